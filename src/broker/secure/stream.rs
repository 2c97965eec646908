//! TLS between a socket that does not block and the AMQP library, which knows nothing of it.
//!
//! The library polls the socket itself, edge-triggered, and that makes the rules here:
//!
//! - It reads until it is told [`WouldBlock`](ErrorKind::WouldBlock), and then waits for the socket. So a read tells it only
//!   once the socket has said so and no plaintext is left: bytes that were decrypted and not handed out would lie here until
//!   the peer sends more, and it may be waiting for us.
//! - It writes until it is told the same, and asks for room on the socket only while it has bytes of its own left to write.
//!   So bytes count as written only once all of their ciphertext is in the socket. Where the socket takes a part, they are
//!   remembered as taken, the library keeps them, and offers them again when the socket has room.
//!
//! What TLS itself has to say goes out with that: an alert while reading, as far as the socket takes it, and the answer to a
//! peer that changes its keys before the next bytes that are written, at the latest those of a heartbeat.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;

use amiquip::IoStream;
use mio::{Evented, Poll, PollOpt, Ready, Token};
use rustls::ClientConnection;

/// A connection whose handshake is done. Owned by the library's thread; says goodbye when it is dropped.
///
/// After a write that would block, the next one must begin with the same bytes.
#[derive(Debug)]
pub struct TlsStream<S: Read + Write> {
    socket: S,
    tls: ClientConnection,
    /// How many bytes are encrypted that the caller still holds: the beginning of its next write.
    taken: usize,
    /// Why the peer's bytes cannot be followed any further. Told after what they said before.
    failed: Option<rustls::Error>,
}

impl<S: Read + Write> TlsStream<S> {
    /// `socket` must not block.
    pub fn new(socket: S, tls: ClientConnection) -> Self {
        Self { socket, tls, taken: 0, failed: None }
    }

    /// Hands the ciphertext that is ready to the socket.
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes bytes from the socket and decrypts them. Gives their number: 0 at the end of the connection.
    fn receive(&mut self) -> io::Result<usize> {
        if let Some(failed) = &self.failed {
            return Err(io::Error::new(ErrorKind::InvalidData, failed.clone()));
        }
        let count = loop {
            match self.tls.read_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.failed = self.tls.process_new_packets().err();
        // A socket without room gets it with the next write, and one that is broken says so there.
        let _ = self.send();
        Ok(count)
    }

    /// What a failed write means. A peer that refuses us says why and hangs up, so our next write can fail before anybody
    /// has read its reason.
    fn explain(&mut self, failed: io::Error) -> io::Error {
        if failed.kind() == ErrorKind::WouldBlock {
            return failed;
        }
        // Not beyond plaintext: a reason is all that a peer says before it hangs up.
        while self.tls.wants_read() {
            match self.receive() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => return error,
                Err(_) => break,
            }
        }
        failed
    }

    /// Encrypts the beginning of the bytes. Called while nothing waits to be sent.
    fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.tls.writer().write(bytes)?;
        let state = self.tls.process_new_packets();
        let ready = state.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?.tls_bytes_to_write();
        // TLS 1.2 cannot change its keys. Once they have encrypted 2^24 records, the library says goodbye to the peer, and
        // drops what it is given as if it were written. A frame that is as short as that goodbye may be lost unnoticed, like
        // any other that was on its way when a connection ended; what follows it is noticed.
        if ready < count || count == 0 && !bytes.is_empty() {
            return Err(io::Error::new(ErrorKind::WriteZero, "the keys of this TLS 1.2 connection are used up"));
        }
        Ok(count)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send()?;
        if self.taken == 0 {
            self.taken = self.encrypt(bytes)?;
            self.send()?;
        }
        if self.taken > bytes.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "bytes that were offered before are offered no more"));
        }
        Ok(mem::take(&mut self.taken))
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.receive()?,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    let cut = "the connection was cut, without the goodbye that TLS has for its end";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, cut));
                }
                read => return read,
            };
        }
    }
}

impl<S: Read + Write> Write for TlsStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_some(bytes).map_err(|error| self.explain(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl<S: Read + Write> Drop for TlsStream<S> {
    /// The goodbye tells the peer that nothing was cut off. A socket without room does not get it: nobody waits for that.
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = self.send();
    }
}

impl<S: Read + Write + Evented> Evented for TlsStream<S> {
    fn register(&self, poll: &Poll, token: Token, interest: Ready, opts: PollOpt) -> io::Result<()> {
        self.socket.register(poll, token, interest, opts)
    }

    fn reregister(&self, poll: &Poll, token: Token, interest: Ready, opts: PollOpt) -> io::Result<()> {
        self.socket.reregister(poll, token, interest, opts)
    }

    fn deregister(&self, poll: &Poll) -> io::Result<()> {
        self.socket.deregister(poll)
    }
}

impl<S: Read + Write + Evented + Send + 'static> IoStream for TlsStream<S> {}
