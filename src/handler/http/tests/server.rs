//! An HTTP server that does what its script says, one step a request, and tells what it saw.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

/// A connection, encrypted or not.
pub trait Wire: Read + Write + Send {}
impl<W: Read + Write + Send> Wire for W {}

/// What is done once a request was read. Gives back whether the connection is kept.
pub type Step = Box<dyn FnOnce(&mut dyn Wire) -> bool + Send>;

/// One request as it arrived.
#[derive(Debug)]
pub struct Seen {
    /// The connection, counted from 1.
    pub connection: usize,
    /// The first line.
    pub line: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    /// A header that is there once or not at all.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next().map(|value| value.to_str().unwrap());
        assert!(all.next().is_none(), "{name} is there twice");
        first
    }
}

pub struct Server {
    pub address: SocketAddr,
    seen: Receiver<Seen>,
    /// A connection's end, as its number.
    ended: Receiver<usize>,
    over: Arc<AtomicBool>,
}

impl Server {
    pub fn start(script: Vec<Step>) -> Self {
        Self::listen(script, None)
    }

    pub fn start_tls(script: Vec<Step>, tls: Arc<ServerConfig>) -> Self {
        Self::listen(script, Some(tls))
    }

    fn listen(script: Vec<Step>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = unbounded();
        let (tell_end, ended) = unbounded();
        let over = Arc::new(AtomicBool::new(false));
        let quit = Arc::clone(&over);
        let script = Arc::new(Mutex::new(VecDeque::from(script)));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if quit.load(Ordering::Relaxed) {
                    return;
                }
                let stream = stream.unwrap();
                let (script, tls, tell, tell_end) = (Arc::clone(&script), tls.clone(), tell.clone(), tell_end.clone());
                std::thread::spawn(move || {
                    match tls {
                        None => serve(stream, number + 1, &script, &tell),
                        Some(tls) => {
                            let stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
                            serve(stream, number + 1, &script, &tell);
                        }
                    }
                    let _ = tell_end.send(number + 1);
                });
            }
        });
        Self { address, seen, ended, over }
    }

    /// The next request.
    pub fn seen(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(60)).expect("a request comes")
    }

    /// The requests that nobody asked for yet.
    pub fn rest(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }

    /// Waits until a connection has ended, and gives its number.
    pub fn ended(&self) -> usize {
        self.ended.recv_timeout(Duration::from_secs(60)).expect("a connection ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve<W: Wire>(wire: W, connection: usize, script: &Mutex<VecDeque<Step>>, tell: &Sender<Seen>) {
    let mut wire = BufReader::new(wire);
    while let Some(seen) = read(&mut wire, connection) {
        let step = script.lock().unwrap().pop_front();
        let _ = tell.send(seen);
        let Some(step) = step else { return };
        if !step(wire.get_mut()) {
            return;
        }
    }
}

fn read(wire: &mut impl BufRead, connection: usize) -> Option<Seen> {
    let mut line = String::new();
    if wire.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = HeaderMap::new();
    loop {
        let mut header = String::new();
        wire.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap());
    }
    let length = headers.get("content-length").expect("its length is told").to_str().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    wire.read_exact(&mut body).ok()?;
    Some(Seen { connection, line: line.trim_end().to_owned(), headers, body })
}

/// Answers with a status line's end, headers and a body; the connection is kept.
pub fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Step {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Box::new(move |wire| wire.write_all(&bytes).is_ok())
}

/// Says all is well.
pub fn fine() -> Step {
    answer("200 OK", "", "")
}

/// Writes bytes and closes the connection.
pub fn raw(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref().to_vec();
    Box::new(move |wire| {
        let _ = wire.write_all(&bytes);
        let _ = wire.flush();
        false
    })
}

/// Says nothing until the client closes the connection.
pub fn silence() -> Step {
    begun("")
}

/// Writes bytes, and nothing more until the client closes the connection.
pub fn begun(bytes: &'static str) -> Step {
    Box::new(move |wire| {
        let _ = wire.write_all(bytes.as_bytes());
        let _ = wire.flush();
        let mut rest = Vec::new();
        let _ = wire.read_to_end(&mut rest);
        false
    })
}
