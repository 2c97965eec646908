//! Connections that are kept, lost, given up.

use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use super::server::{answer, begun, fine, raw, silence};
use super::*;

#[test]
fn an_answer_of_any_sensible_length_keeps_its_connection() {
    let setup = Setup::new(vec![
        answer("200 OK", "", "x".repeat(1025)),
        answer("200 OK", "", "x".repeat(60_000)),
        answer("500 Oops", "", "x".repeat(60_000)),
        answer("200 OK", "", "x".repeat(10_000_000)),
        fine(),
        fine(),
    ]);
    let mut handler = setup.handler();
    let connections: Vec<_> = (0..6)
        .map(|_| {
            handler.run(&input(&keyed(b"body")), &setup.stop);
            setup.server.seen().connection
        })
        .collect();
    assert_eq!(connections, [1, 1, 1, 1, 2, 2]);
}

#[test]
fn a_connection_that_the_server_closed_costs_no_attempt() {
    let setup = Setup::new(vec![
        // Closed while the connection is idle: seen before the next request is sent.
        Box::new(|wire| {
            fine()(wire);
            false
        }),
        fine(),
        // Closed when the request is there already, without an answer: it is sent again.
        raw(""),
        fine(),
        // Twice in a row is no coincidence.
        raw(""),
        raw(""),
        fine(),
    ]);
    let mut handler = setup.handler();
    let mut run = || handler.run(&input(&keyed(b"body")), &setup.stop).outcome;
    assert_eq!(run(), Outcome::Done);
    assert_eq!(setup.server.ended(), 1);
    assert_eq!((run(), run()), (Outcome::Done, Outcome::Done));
    assert!(matches!(run(), Outcome::Retry(_)));
    assert_eq!(run(), Outcome::Done);
    let seen = setup.server.rest();
    assert!(seen.iter().all(|seen| seen.body == b"body" && seen.header("idempotency-key").is_some()));
    assert_eq!(seen.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [1, 2, 2, 3, 3, 4, 5]);
}

#[test]
fn a_request_without_a_key_is_not_sent_twice() {
    let setup = Setup::new(vec![fine(), raw(""), fine()]);
    let mut handler = setup.handler();
    let mut run = || handler.run(&input(&task(b"body")), &setup.stop);
    assert_eq!(run(), Outcome::Done.into());
    let (outcome, class, error) = failure(run());
    assert_eq!((outcome, class), ("retry", ErrorClass::Failed));
    assert_eq!(error, format!("{} closed the connection before it answered", setup.server.address));
    assert_eq!(setup.server.rest().len(), 2);
}

#[test]
fn who_does_not_listen_is_a_failed_attempt() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut setup = Setup::new(vec![]);
    setup.config.url = format!("http://{address}/s3cret");
    let (outcome, class, error) = failure(setup.send(&keyed(b"")));
    assert_eq!((outcome, class), ("retry", ErrorClass::Failed));
    assert_eq!(error, format!("no connection to {address}: connection refused"));
}

#[test]
fn silence_is_a_timeout_and_the_next_request_works() {
    let mut setup = Setup::new(vec![silence(), fine(), begun("HTTP/1.1 200 OK\r\nX: "), fine()]);
    setup.config.timeout = Duration::from_millis(200);
    let mut handler = setup.handler();
    let mut run = || handler.run(&input(&keyed(b"")), &setup.stop);
    for _ in 0..2 {
        let (outcome, class, error) = failure(run());
        assert_eq!((outcome, class), ("retry", ErrorClass::Timeout));
        assert_eq!(error, format!("no answer from {} within 200ms", setup.server.address));
        assert_eq!(run(), Outcome::Done.into());
    }
}

/// An address where connects hang: the kernel drops what comes to a full queue.
fn full() -> (SocketAddr, impl Sized) {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
    }
    (address, (listener, waiting))
}

#[test]
fn a_connect_that_hangs_is_ended_by_the_timeout_or_the_stop() {
    let (address, _held) = full();
    let mut setup = Setup::new(vec![]);
    setup.config.url = format!("http://{address}/");
    setup.config.timeout = Duration::from_millis(200);
    let (outcome, class, error) = failure(setup.send(&keyed(b"")));
    assert_eq!((outcome, class), ("retry", ErrorClass::Timeout));
    assert_eq!(error, format!("no answer from {address} within 200ms"));
    setup.config.timeout = LONG;
    let began = Instant::now();
    let stopped = std::thread::scope(|scope| {
        scope.spawn(|| setup.stop.raise());
        setup.send(&keyed(b""))
    });
    assert_eq!(stopped, Outcome::Interrupted(STOPPED).into());
    assert!(began.elapsed() < LONG / 2);
}

#[test]
fn a_stop_gives_the_request_up_at_once() {
    let setup = Setup::new(vec![fine(), silence()]);
    let mut handler = setup.handler();
    assert_eq!(handler.run(&input(&keyed(b"")), &setup.stop), Outcome::Done.into());
    setup.server.seen();
    let stopped = std::thread::scope(|scope| {
        scope.spawn(|| {
            setup.server.seen();
            setup.stop.raise();
        });
        handler.run(&input(&keyed(b"")), &setup.stop)
    });
    assert_eq!(stopped, Outcome::Interrupted(STOPPED).into());
    // Well before the timeout of the request: its connection was shut down, and it was not sent again.
    assert_eq!(setup.server.ended(), 1);
    assert!(setup.server.rest().is_empty());
    assert_eq!(handler.run(&input(&keyed(b"")), &setup.stop), Outcome::Interrupted(STOPPED).into());
    assert!(setup.server.rest().is_empty());
}

#[test]
fn a_handler_that_goes_closes_its_connection() {
    let setup = Setup::new(vec![fine()]);
    let mut handler = setup.handler();
    handler.run(&input(&keyed(b"")), &setup.stop);
    drop(handler);
    assert_eq!(setup.server.ended(), 1);
}

#[test]
fn the_companion_is_named_after_its_worker() {
    let setup = Setup::new(vec![fine()]);
    let thread = std::thread::Builder::new().name("work:zebra:3".to_owned());
    let mut handler = setup.handler();
    let stop = setup.stop;
    let worker = thread.spawn(move || {
        handler.run(&input(&keyed(b"")), &stop);
        handler
    });
    let _handler = worker.unwrap().join().unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    assert!(names.into_iter().any(|name| name == "http:zebra:3\n"));
}
