//! A TLS connection without a network: what lies on the wire is in the test's hands.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ClientConnection, ServerConnection, SupportedProtocolVersion, version};

use super::super::TlsStream;
use crate::tls::tests::Authority;
use crate::tls::{provider, server_name};

/// What lies between the stream and its peer.
#[derive(Default)]
pub struct Wire {
    pub to_client: VecDeque<u8>,
    pub to_server: Vec<u8>,
    /// How much each write and each read may move; 0: it would block. Unlimited at its end.
    pub limits: VecDeque<usize>,
    /// Whether all writes would block for now.
    pub full: bool,
    /// Whether the last write would have blocked.
    pub blocked: bool,
    /// Whether nothing more comes.
    pub ended: bool,
    /// Whether the peer has hung up: writes fail.
    pub broken: bool,
}

/// The stream's end of it: a socket that does not block.
#[derive(Clone, Default)]
pub struct Socket(pub Rc<RefCell<Wire>>);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let limit = wire.limits.pop_front().unwrap_or(usize::MAX);
        let count = limit.min(buffer.len()).min(wire.to_client.len());
        // A socket that has bytes gives some of them: it is edge-triggered, so it says that it has none at its end only.
        let count = if wire.to_client.is_empty() { 0 } else { count.max(1) };
        if count == 0 && !wire.ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        for (place, byte) in buffer.iter_mut().zip(wire.to_client.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let limit = wire.limits.pop_front().unwrap_or(usize::MAX);
        wire.blocked = limit == 0 || wire.full;
        if wire.blocked {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = limit.min(bytes.len());
        wire.to_server.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both ends of a connection whose handshake is done.
pub struct Pair {
    pub stream: TlsStream<Socket>,
    pub socket: Socket,
    pub server: ServerConnection,
}

impl Pair {
    pub fn new() -> Self {
        Self::with(provider(), &version::TLS13)
    }

    pub fn with(client: Arc<CryptoProvider>, version: &'static SupportedProtocolVersion) -> Self {
        let (mut client, mut server) = ends(client, version);
        let mut bytes = Vec::new();
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            feed(&mut server, &mut bytes);
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
            bytes.clear();
        }
        let socket = Socket::default();
        Self { stream: TlsStream::new(socket.clone(), client), socket, server }
    }

    pub fn wire(&self) -> std::cell::RefMut<'_, Wire> {
        self.socket.0.borrow_mut()
    }

    /// What the server has received since the last time.
    pub fn received(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.wire().to_server);
        feed(&mut self.server, &mut bytes)
    }

    /// The ciphertext that the server has ready goes on its way.
    pub fn server_sends(&mut self) {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).unwrap();
        }
        self.wire().to_client.extend(bytes);
    }

    pub fn server_says(&mut self, text: &[u8]) {
        self.server.set_buffer_limit(None);
        self.server.writer().write_all(text).unwrap();
        self.server_sends();
    }

    /// What the library would read now: until it would block, or to the end or the error.
    pub fn read(&mut self) -> (Vec<u8>, io::Result<usize>) {
        let mut found = Vec::new();
        loop {
            let mut buffer = [0; 5000];
            match self.stream.read(&mut buffer) {
                Ok(count @ 1..) => found.extend(&buffer[..count]),
                end => return (found, end),
            }
        }
    }
}

pub fn ends(
    client: Arc<CryptoProvider>,
    version: &'static SupportedProtocolVersion,
) -> (ClientConnection, ServerConnection) {
    let (authority, mut roots) = (Authority::new("ours"), rustls::RootCertStore::empty());
    roots.add(authority.as_issued().certificate.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(client).with_protocol_versions(&[version]).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), server_name("localhost").unwrap()).unwrap();
    let config = authority.issue(&["localhost"]).server(&[version], None);
    (client, ServerConnection::new(Arc::new(config)).unwrap())
}

/// Gives the server all bytes, and takes what they say.
pub fn feed(server: &mut ServerConnection, bytes: &mut Vec<u8>) -> Vec<u8> {
    let mut said = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        server.read_tls(&mut rest).unwrap();
        server.process_new_packets().unwrap();
        let mut part = vec![0; 20_000];
        while let Ok(count @ 1..) = server.reader().read(&mut part) {
            said.extend(&part[..count]);
        }
    }
    bytes.clear();
    said
}

/// How the library writes: until it would block, and what was written is forgotten.
pub fn write_out(stream: &mut impl Write, outbuf: &mut Vec<u8>) -> io::Result<bool> {
    let mut written = 0;
    let mut blocked = false;
    while written < outbuf.len() && !blocked {
        match stream.write(&outbuf[written..]) {
            Ok(count) => {
                assert!(count > 0, "the library would try for ever");
                written += count;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => blocked = true,
            Err(error) => return Err(error),
        }
    }
    outbuf.drain(..written);
    Ok(blocked)
}

pub fn pattern(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|n| ((n * 31 + seed) % 251) as u8).collect()
}
