//! Bytes to frames, and the small types of AMQP 0-9-1 (section 4.2 of the specification).

/// How a connection begins: the daemon says which protocol it speaks.
const PROTOCOL: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// Type, channel and size before the payload, and the octet behind it.
const AROUND: usize = 8;
const FRAME_END: u8 = 0xCE;
/// A longer frame than anybody agrees on: what says so is no frame.
const LONGEST: usize = 16 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Method,
    Content,
    Body,
    Heartbeat,
}

/// One frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: Kind,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Its bytes on the wire.
    pub fn size(&self) -> usize {
        self.payload.len() + AROUND
    }
}

/// Cuts what one side sends into frames, however it comes.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// So many bytes of it were read.
    read: usize,
    /// The protocol's name was seen, or does not come from this side.
    begun: bool,
}

impl Frames {
    /// Of the daemon, which names the protocol first.
    pub fn of_daemon() -> Self {
        Self::default()
    }

    /// Of the broker.
    pub fn of_broker() -> Self {
        Self { begun: true, ..Self::default() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.read));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until there is one. After an error nothing more can be told.
    pub fn next(&mut self) -> Option<Result<Frame, String>> {
        let waiting = &self.buffer[self.read..];
        if !self.begun {
            let name = waiting.get(..PROTOCOL.len())?;
            if name != PROTOCOL {
                return Some(Err(format!("a connection begins with {name:02x?}")));
            }
            self.begun = true;
            self.read += PROTOCOL.len();
            return self.next();
        }
        let mut head = Reader(waiting);
        let (kind, channel, size) = (head.u8()?, head.u16()?, head.u32()? as usize);
        if size > LONGEST {
            return Some(Err(format!("a frame of {size} bytes")));
        }
        let rest = head.0.get(..size + 1)?;
        let payload = rest[..size].to_vec();
        self.read += size + AROUND;
        let kind = match kind {
            1 => Kind::Method,
            2 => Kind::Content,
            3 => Kind::Body,
            8 => Kind::Heartbeat,
            other => return Some(Err(format!("a frame of type {other}"))),
        };
        if rest[size] != FRAME_END {
            return Some(Err(format!("a frame that ends with {:#04x}", rest[size])));
        }
        Some(Ok(Frame { kind, channel, payload }))
    }
}

/// Reads values one after another. `None`: there are not that many bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Text of at most 255 bytes.
    pub fn short(&mut self) -> Option<String> {
        let length = self.u8()?;
        self.bytes(length.into()).map(lossy)
    }

    /// Bytes behind their length in 32 bits: text, tables and arrays.
    pub fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    /// The next value of a table, where it is one that the tap reads. Others are passed over by their size, tables and
    /// arrays in one step, so that none is too deep.
    pub fn value(&mut self) -> Option<Value> {
        let value = match self.u8()? {
            b't' | b'B' => Value::Integer(self.u8()?.into()),
            b'b' => Value::Integer(self.array().map(i8::from_be_bytes)?.into()),
            b's' => Value::Integer(self.array().map(i16::from_be_bytes)?.into()),
            b'u' => Value::Integer(self.u16()?.into()),
            b'I' => Value::Integer(self.array().map(i32::from_be_bytes)?.into()),
            b'i' => Value::Integer(self.u32()?.into()),
            b'l' => Value::Integer(self.array().map(i64::from_be_bytes)?),
            b'S' => Value::Text(lossy(self.long()?)),
            b'x' | b'A' | b'F' => self.long().map(|_| Value::Other)?,
            b'f' => self.bytes(4).map(|_| Value::Other)?,
            b'D' => self.bytes(5).map(|_| Value::Other)?,
            b'd' | b'T' => self.bytes(8).map(|_| Value::Other)?,
            b'V' => Value::Other,
            _ => return None,
        };
        Some(value)
    }
}

/// A value of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Integer(i64),
    Text(String),
    Other,
}

impl Value {
    /// As a whole number; some tools make text of it.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            Self::Other => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
