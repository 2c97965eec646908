//! The stream between a library that polls and a socket that takes and gives as it likes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use mio::{Events, Poll, PollOpt, Ready, Token};
use proptest::prelude::*;
use rustls::{AlertDescription, version};

use super::super::TlsStream;
use super::pair::{Pair, ends, feed, pattern, write_out};
use crate::tls::provider;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// However little the socket takes at a time, and whatever is appended in between, the peer gets all of it once. When
    /// the stream would block, the socket has just said so; when the library has nothing left, neither has the stream.
    #[test]
    fn all_that_is_written_arrives(
        appended in proptest::collection::vec(1_usize..80_000, 1..5),
        limits in proptest::collection::vec(prop_oneof![Just(0), 1_usize..30, 1_usize..40_000], 0..200),
    ) {
        let mut pair = Pair::new();
        pair.wire().limits = limits.into();
        let (mut outbuf, mut expected, mut received) = (Vec::new(), Vec::<u8>::new(), Vec::new());
        let mut appended = appended.into_iter();
        loop {
            if let Some(count) = appended.next() {
                let bytes = pattern(count, expected.len());
                expected.extend(&bytes);
                outbuf.extend(bytes);
            } else if outbuf.is_empty() {
                break;
            }
            let blocked = write_out(&mut pair.stream, &mut outbuf).unwrap();
            prop_assert_eq!(blocked, pair.wire().blocked);
            prop_assert_eq!(blocked, !outbuf.is_empty());
            received.extend(pair.received());
            if outbuf.is_empty() {
                prop_assert_eq!(received.len(), expected.len(), "something lies in the stream, and nobody asks for room");
            }
        }
        prop_assert!(received == expected);
    }

    /// Whatever slices the bytes come in, all that has come is read before the stream would block.
    #[test]
    fn all_that_comes_is_read(
        said in proptest::collection::vec(1_usize..30_000, 1..5),
        limits in proptest::collection::vec(1_usize..20_000, 0..100),
        cuts in proptest::collection::vec(1_usize..50_000, 0..10),
    ) {
        let mut pair = Pair::new();
        let mut expected = Vec::new();
        for count in said {
            let text = pattern(count, expected.len());
            pair.server_says(&text);
            expected.extend(text);
        }
        let mut waiting = std::mem::take(&mut pair.wire().to_client);
        pair.wire().limits = limits.into();
        let mut found = Vec::new();
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let come: Vec<u8> = waiting.drain(..cut.min(waiting.len())).collect();
            pair.wire().to_client.extend(come);
            let (part, end) = pair.read();
            prop_assert_eq!(end.unwrap_err().kind(), ErrorKind::WouldBlock);
            prop_assert!(pair.wire().to_client.is_empty(), "the socket has more and will not say so again");
            found.extend(part);
        }
        prop_assert!(found == expected);
    }
}

#[test]
fn a_caller_that_takes_its_bytes_back_is_told() {
    let mut pair = Pair::new();
    pair.wire().full = true;
    assert_eq!(pair.stream.write(b"offered").unwrap_err().kind(), ErrorKind::WouldBlock);
    pair.wire().full = false;
    assert_eq!(pair.stream.write(b"off").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_goodbye_is_told_from_a_cut() {
    let mut pair = Pair::new();
    pair.server_says(b"last words");
    pair.server.send_close_notify();
    pair.server_sends();
    let (found, end) = pair.read();
    assert_eq!((&found[..], end.unwrap()), (&b"last words"[..], 0));

    let mut pair = Pair::new();
    pair.server_says(b"last words");
    pair.wire().ended = true;
    let (found, end) = pair.read();
    assert_eq!(found, b"last words");
    let error = end.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(error.to_string().starts_with("the connection was cut"), "{error}");
    // In the middle of a record, too.
    let mut pair = Pair::new();
    pair.server_says(b"last words");
    pair.wire().to_client.pop_back();
    pair.wire().ended = true;
    let (found, end) = pair.read();
    assert_eq!((&found[..], end.unwrap_err().kind()), (&b""[..], ErrorKind::UnexpectedEof));
}

#[test]
fn a_stream_that_is_dropped_says_goodbye() {
    let mut pair = Pair::new();
    pair.stream.write_all(b"before").unwrap();
    let Pair { stream, socket, mut server } = pair;
    drop(stream);
    let mut bytes = std::mem::take(&mut socket.0.borrow_mut().to_server);
    assert_eq!(feed(&mut server, &mut bytes), b"before");
    assert_eq!(server.reader().read(&mut [0]).unwrap(), 0, "nothing was cut off");
}

fn alert(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref().cloned()
}

/// What came before an alert was said before it, and a peer that breaks off is believed in what it says.
#[test]
fn an_alert_comes_after_what_was_said_and_explains_a_failed_write() {
    let told = rustls::Error::AlertReceived(AlertDescription::DecryptError);
    let alarmed = || {
        let mut pair = Pair::new();
        pair.server_says(b"last words");
        // A record of application data that nobody has encrypted.
        let mut garbage: &[u8] =
            &[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
        pair.server.read_tls(&mut garbage).unwrap();
        pair.server.process_new_packets().unwrap_err();
        pair.server_sends();
        pair
    };
    let mut pair = alarmed();
    let (found, end) = pair.read();
    let received = alert(&end.unwrap_err()).unwrap();
    assert!(matches!(received, rustls::Error::AlertReceived(_)), "{received:?} for {told:?}");
    assert_eq!(found, b"last words");
    let (found, end) = pair.read();
    assert_eq!((&found[..], alert(&end.unwrap_err())), (&b""[..], Some(received.clone())), "it stays what it was");
    // The peer has hung up, and the library writes before it reads.
    let mut pair = alarmed();
    let _ = pair.read();
    pair.wire().broken = true;
    assert_eq!(alert(&pair.stream.write(b"more").unwrap_err()), Some(received));
    let mut pair = Pair::new();
    pair.wire().broken = true;
    pair.wire().ended = true;
    assert_eq!(pair.stream.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe, "without a reason");
}

/// The library's own loop in small, on real sockets with hardly any buffers: an echo of what is written comes back while
/// most of it is not written yet.
#[test]
fn a_slow_peer_on_real_sockets_gets_and_gives_all() {
    const TOTAL: usize = 1 << 19;
    const LIMIT: Duration = Duration::from_secs(60);
    let tiny = |socket: &std::net::TcpStream| {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, 4096).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, 1 << 14).unwrap();
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    tiny(&socket);
    tiny(&peer);
    let (mut client, mut server) = ends(provider(), &version::TLS13);
    let echo = std::thread::spawn(move || {
        server.complete_io(&mut peer).unwrap();
        let mut stream = rustls::StreamOwned::new(server, peer);
        let (mut buffer, mut echoed) = ([0; 700], 0);
        while echoed < TOTAL {
            let count = stream.read(&mut buffer).unwrap();
            stream.write_all(&buffer[..count]).unwrap();
            echoed += count;
        }
    });
    client.complete_io(&mut socket).unwrap();
    let mut stream = TlsStream::new(mio::net::TcpStream::from_stream(socket).unwrap(), client);
    let expected = pattern(TOTAL, 7);
    let (mut outbuf, mut found, mut blocks) = (expected.clone(), Vec::<u8>::new(), 0);
    let (poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
    poll.register(&stream, Token(1), Ready::writable(), PollOpt::edge()).unwrap();
    let deadline = Instant::now() + LIMIT;
    while found.len() < TOTAL {
        poll.poll(&mut events, Some(deadline.saturating_duration_since(Instant::now()))).unwrap();
        assert!(Instant::now() < deadline, "{} of {TOTAL} came back, {} are not written", found.len(), outbuf.len());
        for event in &events {
            if event.readiness().is_writable() {
                blocks += usize::from(write_out(&mut stream, &mut outbuf).unwrap());
            }
            if event.readiness().is_readable() {
                let mut buffer = [0; 4096];
                loop {
                    match stream.read(&mut buffer) {
                        Ok(count) => {
                            assert!(count > 0, "the peer ended early");
                            found.extend(&buffer[..count]);
                            if found.len() == TOTAL {
                                break;
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error} after {} of {TOTAL}", found.len()),
                    }
                }
            }
        }
        let interest = if outbuf.is_empty() { Ready::readable() } else { Ready::readable() | Ready::writable() };
        poll.reregister(&stream, Token(1), interest, PollOpt::edge()).unwrap();
    }
    assert!(found == expected);
    assert!(blocks > 10, "the socket was never full");
    echo.join().unwrap();
}
