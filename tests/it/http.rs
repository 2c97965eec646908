//! The handler that posts each task to a URL: the way from the queue to a server and back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::amqp::{take, text};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};

/// A request as the server saw it.
struct Seen {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    at: Instant,
}

impl Seen {
    fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }
}

/// A server that answers each request as its key and attempt ask for.
struct Server {
    address: SocketAddr,
    seen: Receiver<Seen>,
    connections: Arc<AtomicUsize>,
}

/// From a request to the bytes of its answer; none: it is kept waiting for ever.
type Answers = fn(&Seen) -> Option<&'static str>;

const FINE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

impl Server {
    fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (tell, seen) = channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            let tell = Arc::new(Mutex::new(tell));
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                let (stream, tell) = (stream.expect("it was accepted"), Arc::clone(&tell));
                std::thread::spawn(move || serve(&stream, answers, &tell));
            }
        });
        Self { address, seen, connections }
    }

    fn seen(&self) -> Seen {
        self.seen.recv_timeout(DAEMON_TIMEOUT).expect("a request comes")
    }

    /// A job that posts to this server.
    fn job(&self, name: &str, more: &str) -> String {
        let address = self.address;
        format!("[jobs.{name}]\nqueue = \"{name}\"\nhandler.http = \"http://{address}/hook?token=s3cret\"\n{more}\n")
    }
}

fn serve(stream: &TcpStream, answers: Answers, tell: &Mutex<Sender<Seen>>) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut headers = BTreeMap::new();
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        assert_eq!(line, "POST /hook?token=s3cret HTTP/1.1\r\n");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a header comes whole");
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers["content-length"].parse().expect("a length is a number");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body comes whole");
        let seen = Seen { headers, body, at: Instant::now() };
        let answer = answers(&seen);
        if tell.lock().expect("no sender panics").send(seen).is_err() {
            return;
        }
        match answer {
            Some(answer) => writer.write_all(answer.as_bytes()).expect("an answer is taken"),
            None => {
                // Until the daemon closes the connection.
                let _ = reader.read_to_end(&mut Vec::new());
                return;
            }
        }
    }
}

#[test]
fn tasks_are_posted_over_kept_connections() {
    const COUNT: usize = 200;
    let vhost = Vhost::new();
    let server = Server::start(|_| Some(FINE));
    let mut daemon = Daemon::new(&vhost, &server.job("hook", "concurrency = 2"));
    daemon.start();
    vhost.publish_all("hook", (0..COUNT).map(|n| (format!("body {n}").into_bytes(), with_id(&format!("id-{n}")))));
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for _ in 0..COUNT {
        let seen = server.seen();
        assert_eq!(seen.headers["warrend-queue"], "hook");
        assert_eq!(seen.headers["warrend-attempt"], "1");
        assert_eq!(seen.headers["content-type"], "application/octet-stream");
        bodies.insert(seen.key().to_owned(), seen.body);
    }
    assert_eq!(bodies.len(), COUNT);
    assert!((0..COUNT).all(|n| bodies[&format!("id-{n}")] == format!("body {n}").as_bytes()));
    daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| daemon.counter("hook", "done") == COUNT as u64);
    assert!(server.connections.load(Ordering::Relaxed) <= 2, "one for each worker thread");
    daemon.terminate();
    assert_eq!(vhost.ready("hook"), Some(0));
}

#[test]
fn answers_decide_between_retry_and_dead_letter() {
    let vhost = Vhost::new();
    let server = Server::start(|seen| {
        Some(match (seen.key(), &*seen.headers["warrend-attempt"]) {
            ("gone", _) => "HTTP/1.1 410 Gone\r\nContent-Length: 14\r\n\r\nno longer here",
            ("busy", "1") => "HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
            _ => FINE,
        })
    });
    let retry = "retry = { max_attempts = 3, initial = \"1s\", jitter = 0.0 }";
    let mut daemon = Daemon::new(&vhost, &server.job("hook", retry));
    daemon.start();
    vhost.publish("hook", "1", with_id("gone"));
    vhost.publish("hook", "2", with_id("busy"));
    let wait = Duration::from_secs(40);
    daemon.wait_until("both are settled", wait, |daemon| {
        daemon.counter("hook", "done") == 1 && daemon.counter("hook", "dead") == 1
    });
    let letter = take(&vhost, "hook.dead");
    assert_eq!(text(&letter, "x-warrend-error-class"), "rejected");
    assert_eq!(text(&letter, "x-warrend-error"), "status 410 (gone): no longer here");
    let busy: Vec<_> = (0..3).map(|_| server.seen()).filter(|seen| seen.key() == "busy").collect();
    assert_eq!(busy.len(), 2, "the dead one was sent once");
    // The server asked for three seconds, where the job alone would have waited one.
    assert!(busy[1].at - busy[0].at >= Duration::from_secs(3));
    assert!(!daemon.log().contains("s3cret"));
}

#[test]
fn a_request_that_hangs_is_given_up_at_the_end_and_its_message_goes_back() {
    let vhost = Vhost::new();
    let server = Server::start(|_| None);
    let mut daemon = Daemon::new(&vhost, &server.job("hook", "[shutdown]\ntimeout = \"200ms\""));
    daemon.start();
    vhost.publish("hook", "slow", with_id("slow"));
    server.seen();
    let began = Instant::now();
    assert!(daemon.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(20), "the handler's own timeout is 30 s");
    assert_eq!(vhost.ready("hook"), Some(1));
}
