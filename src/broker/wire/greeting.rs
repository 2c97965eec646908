//! What we say of ourselves at the login.
//!
//! The library introduces itself under its own name and cannot be told otherwise. So the client properties of its
//! `connection.start-ok` are replaced on their way out: with our name, with one for the connection, by which the broker's
//! log and management page tell which job it is, and with the wish to be told of a wrong password
//! (`authentication_failure_close`): without it, RabbitMQ just hangs up, three seconds later.

use std::io::{self, Write};
use std::mem;

/// Bytes of the protocol header, `AMQP` and a version: what is sent before the first frame.
const PROTOCOL_HEADER: usize = 8;
/// Bytes of a frame before its payload: type, channel, size.
const HEAD: usize = 7;
/// Frame type method, channel 0; behind the size class `connection`, method `start-ok`.
const START_OK: ([u8; 3], [u8; 4]) = ([1, 0, 0], [0, 10, 0, 11]);

/// The way out. After the login it does nothing.
pub(super) struct Greeting {
    name: String,
    state: State,
}

enum State {
    /// So many bytes of the protocol header are still to be sent.
    Header(usize),
    /// The part of the first frame that the library has handed over. Its last byte is taken only with the whole frame on
    /// its way: as long as the library has something to send, it listens for the socket to become writable.
    Gathering(Vec<u8>),
    /// The frame as we want it, and how much of it has been sent.
    Sending(Vec<u8>, usize),
    Over,
}

impl Greeting {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), state: State::Header(PROTOCOL_HEADER) }
    }

    /// Sends what the library sends, and says how many bytes of it were taken, like [`Write::write`].
    pub(super) fn write(&mut self, to: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Over => to.write(bytes),
            State::Header(left) => {
                let written = to.write(&bytes[..bytes.len().min(*left)])?;
                *left -= written;
                if *left == 0 {
                    self.state = State::Gathering(Vec::new());
                }
                Ok(written)
            }
            State::Gathering(frame) => {
                let wanted = match frame.get(3..HEAD) {
                    Some(size) => HEAD + be_u32(size) as usize,
                    None => HEAD,
                };
                let taken = bytes.len().min(wanted - frame.len());
                frame.extend_from_slice(&bytes[..taken]);
                if taken == 0 && !bytes.is_empty() {
                    let mut frame = mem::take(frame);
                    frame.push(bytes[0]);
                    self.state = State::Sending(introduced(frame, &self.name), 0);
                    return self.write(to, bytes);
                }
                Ok(taken)
            }
            State::Sending(frame, sent) => {
                while *sent < frame.len() {
                    match to.write(&frame[*sent..])? {
                        0 => return Ok(0),
                        written => *sent += written,
                    }
                }
                self.state = State::Over;
                Ok(1)
            }
        }
    }
}

/// The frame with other client properties, where it is a `start-ok`; any other stays as it is.
fn introduced(frame: Vec<u8>, name: &str) -> Vec<u8> {
    let (head, payload) = frame.split_at(HEAD);
    let Some(rest) = payload.strip_prefix(&START_OK.1).filter(|_| head.starts_with(&START_OK.0)) else { return frame };
    let after = rest.get(..4).and_then(|size| rest.get(4 + be_u32(size) as usize..));
    // The library writes no other form than this.
    let Some(after) = after else { return frame };
    let mut payload = START_OK.1.to_vec();
    payload.extend(client_properties(name));
    // Mechanism, response, locale, and the end of the frame.
    payload.extend_from_slice(after);
    let mut frame = START_OK.0.to_vec();
    frame.extend(length(payload.len() - 1));
    frame.extend(payload);
    frame
}

/// A field table; RabbitMQ's page on connections and the one on authentication say what the names mean.
fn client_properties(name: &str) -> Vec<u8> {
    let mut capabilities = Vec::new();
    for capability in ["authentication_failure_close", "connection.blocked", "consumer_cancel_notify"] {
        put_name(&mut capabilities, capability);
        capabilities.extend([b't', 1]);
    }
    let platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let texts = [
        ("product", "warrend"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", &platform),
        ("connection_name", name),
    ];
    let mut table = Vec::new();
    for (name, text) in texts {
        put_name(&mut table, name);
        table.push(b'S');
        table.extend(length(text.len()));
        table.extend_from_slice(text.as_bytes());
    }
    put_name(&mut table, "capabilities");
    table.push(b'F');
    table.extend(length(capabilities.len()));
    table.extend(capabilities);
    [&length(table.len())[..], &table].concat()
}

fn put_name(table: &mut Vec<u8>, name: &str) {
    table.push(u8::try_from(name.len()).expect("our own names are short"));
    table.extend_from_slice(name.as_bytes());
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a frame of a few hundred bytes").to_be_bytes()
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use amq_protocol::protocol::AMQPClass;
    use amq_protocol::protocol::connection::{AMQPMethod, StartOk};
    use amq_protocol::types::{AMQPValue, FieldTable};
    use proptest::prelude::*;

    use super::*;

    /// A socket that takes so many bytes at a time, and now and then none.
    struct Narrow {
        taken: Vec<u8>,
        most: usize,
        turn: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.most);
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Sends it as the library would: in pieces of at most `piece` bytes, each again and again until it is taken.
    fn sent(bytes: &[u8], piece: usize, most: usize) -> Vec<u8> {
        let (mut greeting, mut socket) =
            (Greeting::new("warrend@host:1 job:a"), Narrow { taken: Vec::new(), most, turn: 0 });
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                match greeting.write(&mut socket, piece) {
                    Ok(0) => panic!("the library would go on for ever"),
                    Ok(taken) => piece = &piece[taken..],
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        }
        socket.taken
    }

    fn frame(channel: u8, payload: &[u8]) -> Vec<u8> {
        [&[1, 0, channel][..], &length(payload.len()), payload, &[0xCE]].concat()
    }

    fn start_ok() -> Vec<u8> {
        // An empty table, a mechanism, a response, a locale.
        frame(0, b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x08\0user\0pw\x05en_US")
    }

    fn parsed(frame: &[u8]) -> StartOk {
        match parse_frame(frame) {
            Ok((&[], AMQPFrame::Method(0, AMQPClass::Connection(AMQPMethod::StartOk(start_ok))))) => start_ok,
            other => panic!("{other:?}"),
        }
    }

    const PROTOCOL: &[u8] = b"AMQP\0\0\x09\x01";

    #[test]
    fn the_broker_learns_who_we_are_and_the_rest_stays() {
        let sent = sent(&[PROTOCOL, &start_ok()].concat(), usize::MAX, usize::MAX);
        assert_eq!(&sent[..8], PROTOCOL);
        let StartOk { client_properties, mechanism, response, locale } = parsed(&sent[8..]);
        assert_eq!((&*mechanism, &*response, &*locale), ("PLAIN", "\0user\0pw", "en_US"));
        let text = |name: &str| {
            let AMQPValue::LongString(text) = &client_properties[name] else { panic!("{client_properties:?}") };
            text.clone()
        };
        assert_eq!(text("connection_name"), "warrend@host:1 job:a");
        assert_eq!((text("product"), text("version")), ("warrend".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
        let yes = ["authentication_failure_close", "connection.blocked", "consumer_cancel_notify"];
        let yes: FieldTable = yes.into_iter().map(|name| (name.to_owned(), AMQPValue::Boolean(true))).collect();
        assert_eq!(client_properties["capabilities"], AMQPValue::FieldTable(yes));
    }

    #[test]
    fn a_first_frame_that_is_no_start_ok_stays_as_it_is() {
        for other in
            [frame(0, b""), frame(0, b"\0\x0a\0\x32xyz"), frame(1, &start_ok()[7..]), frame(0, b"\0\x0a\0\x0b\0")]
        {
            let all = [PROTOCOL, &other, &other].concat();
            assert_eq!(sent(&all, usize::MAX, usize::MAX), all);
        }
    }

    proptest! {
        #[test]
        fn pieces_and_a_narrow_socket_change_nothing(piece in 1_usize..300, most in 1_usize..300) {
            let all = [PROTOCOL, &start_ok(), b"what comes after it, in any form"].concat();
            prop_assert_eq!(sent(&all, piece, most), sent(&all, usize::MAX, usize::MAX));
        }
    }
}
