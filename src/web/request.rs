//! Reading the head of a request, and writing, within bounds of size and time.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::metrics::Form;

/// Longest head, in bytes. A browser's is about one kibibyte.
const LONGEST: usize = 8 * 1024;
/// Most headers.
const MOST_HEADERS: usize = 64;
/// What is read of a body, which no request of ours has, before its sender is left to itself.
const MOST_DRAINED: usize = 256 * 1024;

/// What was asked.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// As it came: methods are case-sensitive.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The form of the metrics that the client reads best.
    pub form: Form,
}

impl Request {
    /// Whether the answer's body is wanted, or only its head.
    pub fn wants_body(&self) -> bool {
        self.method != "HEAD"
    }
}

/// Why a request cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP.
    Garbage,
    /// It is HTTP/2 or later.
    Version,
    /// Its head is too long, or has too many headers.
    TooLarge,
    /// Its head did not come in time.
    TooSlow,
}

/// Reads one head. What follows it stays unread.
pub fn read(mut stream: &TcpStream, deadline: Instant) -> io::Result<Result<Request, Refusal>> {
    let (mut head, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        if let Some(judged) = parse(&head) {
            return Ok(judged);
        }
        let Some(left) = left(deadline) else { return Ok(Err(Refusal::TooSlow)) };
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => head.extend_from_slice(&chunk[..read]),
            Err(error) if is_timeout(&error) => return Ok(Err(Refusal::TooSlow)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `None`: there is more to come.
pub fn parse(head: &[u8]) -> Option<Result<Request, Refusal>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&head[..head.len().min(LONGEST)]) {
        Ok(httparse::Status::Complete(_)) => Some(Ok(judge(&request))),
        Ok(httparse::Status::Partial) => (head.len() >= LONGEST).then_some(Err(Refusal::TooLarge)),
        Err(httparse::Error::TooManyHeaders) => Some(Err(Refusal::TooLarge)),
        Err(httparse::Error::Version) => Some(Err(Refusal::Version)),
        Err(_) => Some(Err(Refusal::Garbage)),
    }
}

fn judge(request: &httparse::Request<'_, '_>) -> Request {
    let target = request.path.unwrap_or_default();
    // A proxy may ask for http://host/path.
    let origin = target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = origin.split(['?', '#']).next().unwrap_or_default();
    let accepts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let accepts: Vec<_> = accepts.filter_map(|header| std::str::from_utf8(header.value).ok()).collect();
    Request {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        form: Form::accepted(&accepts.join(",")),
    }
}

/// Writes all of it. A client that reads a byte now and then is not waited for longer than one that reads nothing.
pub fn write(mut stream: &TcpStream, mut text: &[u8], deadline: Instant) -> io::Result<()> {
    while !text.is_empty() {
        stream.set_write_timeout(Some(left(deadline).ok_or(io::ErrorKind::TimedOut)?))?;
        match stream.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what else comes until the client hangs up, which is what it does once it has the answer.
pub fn drain(mut stream: &TcpStream, deadline: Instant) {
    let (mut rest, mut chunk) = (MOST_DRAINED, [0; 2048]);
    while rest > 0 {
        let Some(left) = left(deadline) else { return };
        if stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => rest = rest.saturating_sub(read),
        }
    }
}

fn left(deadline: Instant) -> Option<Duration> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

fn is_timeout(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind())
}
