//! What no broker sends: each ends the connection.

use std::fmt;

/// Why a connection cannot go on. Prints the end of a sentence that began with the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker) enum Violation {
    /// Where a frame should begin stood these bytes.
    NoFrame([u8; 7]),
    /// A frame that is larger than what we asked for.
    Large {
        /// Bytes of its payload.
        size: usize,
    },
    /// A frame that does not end where it says.
    WrongEnd,
    /// A method or content header that ends before it is whole.
    CutFrame,
    /// A method that no broker sends to a client.
    UnknownMethod {
        /// Its class.
        class: u16,
        /// Its number in the class.
        method: u16,
    },
    /// A message that announces a body which no broker would have taken.
    LargeBody {
        /// In bytes.
        size: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrame([b'A', b'M', b'Q', b'P', version @ ..]) => {
                let [_, major, minor] = version;
                write!(f, "it speaks AMQP {major}.{minor} and not 0-9-1")
            }
            // An alert or a handshake record of TLS 1.x.
            Self::NoFrame([0x15 | 0x16, 3, ..]) => f.write_str("it answered in TLS, which takes an amqps:// URL"),
            Self::NoFrame(bytes) => {
                write!(f, "what came is not AMQP 0-9-1: it began with \"{}\"", bytes.escape_ascii())
            }
            Self::Large { size } => write!(f, "the broker sent a frame of {size} bytes, more than was agreed"),
            Self::WrongEnd => f.write_str("what came is not AMQP 0-9-1: a frame has no end"),
            Self::CutFrame => f.write_str("what came is not AMQP 0-9-1: a frame is cut off"),
            Self::UnknownMethod { class, method } => {
                write!(f, "the broker sent the method {class}.{method}, which is not for clients")
            }
            Self::LargeBody { size } => write!(f, "the broker announced a message of {size} bytes"),
        }
    }
}

impl std::error::Error for Violation {}
