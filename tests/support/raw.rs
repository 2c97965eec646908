//! An AMQP publisher that sends what it is given, byte for byte: no library would encode it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::broker::Vhost;

/// The largest frame that it asks for; RabbitMQ's default.
const FRAME_MAX: u32 = 131_072;
/// Bytes around the payload of a frame.
const AROUND: usize = 8;
/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Properties of a message as bytes: the flags, and what they announce, in the order of the flags.
#[derive(Debug, Clone, Default)]
pub struct RawProperties {
    flags: u16,
    parts: Vec<(u16, Vec<u8>)>,
}

impl RawProperties {
    /// A property that is a short string; `bit` counts from 15 (`content_type`) downwards, as in the specification.
    pub fn text(self, bit: u16, text: &[u8]) -> Self {
        self.part(bit, short(text))
    }

    /// The headers: a table without its length.
    pub fn headers(self, table: &[u8]) -> Self {
        self.part(13, long(table))
    }

    /// Bytes of any property.
    pub fn part(mut self, bit: u16, bytes: Vec<u8>) -> Self {
        self.flags |= 1 << bit;
        self.parts.push((bit, bytes));
        self
    }

    /// A flag without anything that belongs to it.
    pub fn flag(mut self, bit: u16) -> Self {
        self.flags |= 1 << bit;
        self
    }

    /// Whether a header of that name is somewhere in it.
    pub fn has(&self, header: &[u8]) -> bool {
        let name = short(header);
        self.bytes().windows(name.len()).any(|bytes| bytes == name)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut parts = self.parts.clone();
        parts.sort_by_key(|(bit, _)| std::cmp::Reverse(*bit));
        let parts = parts.into_iter().flat_map(|(_, bytes)| bytes);
        self.flags.to_be_bytes().into_iter().chain(parts).collect()
    }
}

/// A string with a length of one byte.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short string has at most 255 bytes")], text].concat()
}

/// A string, a table or an array with a length of four bytes.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("it fits a frame").to_be_bytes()[..], bytes].concat()
}

/// One header: its name, its type, and its value without any length.
pub fn entry(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name)[..], &[kind], value].concat()
}

/// A header that is text, or should be.
pub fn text_entry(name: &[u8], text: &[u8]) -> Vec<u8> {
    entry(name, b'S', &long(text))
}

/// A header with so many arrays (`A`) or tables (`F`) in one another.
pub fn nested_entry(name: &[u8], kind: u8, depth: usize) -> Vec<u8> {
    // From the inside: each layer is in front of what was there. Written backwards, so that none is copied twice.
    let mut backwards = vec![b'V'];
    for _ in 0..depth {
        if kind == b'F' {
            backwards.push(0);
        }
        let size = u32::try_from(backwards.len()).expect("it fits a frame");
        backwards.extend(size.to_le_bytes());
        backwards.push(kind);
    }
    backwards.reverse();
    [short(name), backwards].concat()
}

/// A connection with one channel in confirm mode.
pub struct Raw {
    stream: TcpStream,
    frame_max: usize,
}

impl Raw {
    /// Logs in as the tests' user.
    pub fn open(vhost: &Vhost) -> Self {
        Self::try_open(vhost).expect("the broker lets the tests in")
    }

    fn try_open(vhost: &Vhost) -> io::Result<Self> {
        let stream = TcpStream::connect(vhost.broker().address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut raw = Self { stream, frame_max: FRAME_MAX as usize };
        raw.stream.write_all(b"AMQP\0\0\x09\x01")?;
        raw.expect(10, 10)?;
        let (user, password) = vhost.credentials();
        let login = format!("\0{user}\0{password}");
        let mechanism = [&long(b"")[..], &short(b"PLAIN"), &long(login.as_bytes()), &short(b"en_US")].concat();
        raw.method(0, 10, 11, &mechanism)?;
        let tune = raw.expect(10, 30)?;
        let offered = u32::from_be_bytes(tune[2..6].try_into().expect("four bytes"));
        let frame_max = if offered == 0 { FRAME_MAX } else { offered.min(FRAME_MAX) };
        raw.frame_max = frame_max as usize;
        raw.method(0, 10, 31, &[&tune[..2], &frame_max.to_be_bytes(), &[0, 0]].concat())?;
        raw.method(0, 10, 40, &[&short(vhost.name().as_bytes())[..], &[0, 0]].concat())?;
        raw.expect(10, 41)?;
        raw.method(1, 20, 10, &[0])?;
        raw.expect(20, 11)?;
        raw.method(1, 85, 10, &[0])?;
        raw.expect(85, 11)?;
        Ok(raw)
    }

    /// Declares a fanout exchange, and has it give all it gets to the queue.
    pub fn bind(&mut self, exchange: &[u8], queue: &[u8]) -> io::Result<()> {
        self.method(1, 40, 10, &[&[0, 0][..], &short(exchange), &short(b"fanout"), &[0], &long(b"")].concat())?;
        self.expect(40, 11)?;
        self.method(
            1,
            50,
            20,
            &[&[0, 0][..], &short(queue), &short(exchange), &short(b""), &[0], &long(b"")].concat(),
        )?;
        self.expect(50, 21).map(drop)
    }

    /// Publishes and waits for the confirm. The error is what the broker said when it refused: the connection is over then.
    pub fn publish(
        &mut self,
        exchange: &[u8],
        routing_key: &[u8],
        properties: &RawProperties,
        body: &[u8],
    ) -> io::Result<()> {
        self.method(1, 60, 40, &[&[0, 0][..], &short(exchange), &short(routing_key), &[0]].concat())?;
        let fixed = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes()].concat();
        self.frame(2, 1, &[fixed, properties.bytes()].concat())?;
        for part in body.chunks(self.frame_max - AROUND) {
            self.frame(3, 1, part)?;
        }
        self.expect(60, 80).map(drop)
    }

    fn method(&mut self, channel: u8, class: u8, method: u8, arguments: &[u8]) -> io::Result<()> {
        self.frame(1, channel, &[&[0, class, 0, method], arguments].concat())
    }

    fn frame(&mut self, kind: u8, channel: u8, payload: &[u8]) -> io::Result<()> {
        let size = u32::try_from(payload.len()).expect("it is small").to_be_bytes();
        let frame = [&[kind, 0, channel][..], &size, payload, &[0xCE]].concat();
        self.stream.write_all(&frame)
    }

    /// The arguments of the next method, which must be this one.
    fn expect(&mut self, class: u8, method: u8) -> io::Result<Vec<u8>> {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head)?;
            let size = u32::from_be_bytes(head[3..].try_into().expect("four bytes")) as usize;
            let mut payload = vec![0; size + 1];
            self.stream.read_exact(&mut payload)?;
            if head[0] == 8 {
                continue;
            }
            let arguments = payload.get(4..size).unwrap_or_default();
            if payload.starts_with(&[0, class, 0, method]) {
                return Ok(arguments.to_vec());
            }
            // A close of the connection or the channel says why behind its code.
            let text = arguments.get(3..).unwrap_or_default();
            return Err(io::Error::other(format!("{:?}: {}", &payload[..4], text.escape_ascii())));
        }
    }
}
