//! The stream between a library that polls and a socket that takes and gives as it likes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, PollOpt, Ready, Token};
use proptest::prelude::*;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{
    AlertDescription, CipherSuiteCommon, ClientConfig, ClientConnection, ServerConnection, SupportedCipherSuite,
    SupportedProtocolVersion, Tls12CipherSuite, Tls13CipherSuite, version,
};

use super::super::TlsStream;
use crate::tls::tests::Authority;
use crate::tls::{provider, server_name};

/// What lies between the stream and its peer.
#[derive(Default)]
struct Wire {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
    /// How much each write and each read may move; 0: it would block. Unlimited at its end.
    limits: VecDeque<usize>,
    /// Whether all writes would block for now.
    full: bool,
    /// Whether the last write would have blocked.
    blocked: bool,
    /// Whether nothing more comes.
    ended: bool,
    /// Whether the peer has hung up: writes fail.
    broken: bool,
}

/// The stream's end of it: a socket that does not block.
#[derive(Clone, Default)]
struct Socket(Rc<RefCell<Wire>>);

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
struct Pair {
    stream: TlsStream<Socket>,
    socket: Socket,
    server: ServerConnection,
}

impl Pair {
    fn new() -> Self {
        Self::with(provider(), &version::TLS13)
    }

    fn with(client: Arc<CryptoProvider>, version: &'static SupportedProtocolVersion) -> Self {
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

    fn wire(&self) -> std::cell::RefMut<'_, Wire> {
        self.socket.0.borrow_mut()
    }

    /// What the server has received since the last time.
    fn received(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.wire().to_server);
        feed(&mut self.server, &mut bytes)
    }

    /// The ciphertext that the server has ready goes on its way.
    fn server_sends(&mut self) {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).unwrap();
        }
        self.wire().to_client.extend(bytes);
    }

    fn server_says(&mut self, text: &[u8]) {
        self.server.set_buffer_limit(None);
        self.server.writer().write_all(text).unwrap();
        self.server_sends();
    }

    /// What the library would read now: until it would block, or to the end or the error.
    fn read(&mut self) -> (Vec<u8>, io::Result<usize>) {
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

fn ends(
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
fn feed(server: &mut ServerConnection, bytes: &mut Vec<u8>) -> Vec<u8> {
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
fn write_out(stream: &mut impl Write, outbuf: &mut Vec<u8>) -> io::Result<bool> {
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

fn pattern(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|n| ((n * 31 + seed) % 251) as u8).collect()
}

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

/// The peer's new keys are answered, at the latest with the next bytes, while reading goes on.
#[test]
fn keys_are_changed_while_the_socket_is_full() {
    let mut pair = Pair::new();
    pair.wire().full = true;
    for round in 0..3 {
        pair.server.refresh_traffic_keys().unwrap();
        pair.server_says(format!("after change {round}").as_bytes());
        let (found, end) = pair.read();
        assert_eq!(found, format!("after change {round}").into_bytes());
        assert_eq!(end.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(pair.wire().to_server.is_empty());
    }
    let mut outbuf = b"under new keys".to_vec();
    assert!(write_out(&mut pair.stream, &mut outbuf).unwrap());
    pair.wire().full = false;
    assert!(!write_out(&mut pair.stream, &mut outbuf).unwrap());
    assert_eq!(pair.received(), b"under new keys");
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

/// A provider whose keys are used up after so many records.
fn short_lived(records: u64) -> Arc<CryptoProvider> {
    let worn = |common: &CipherSuiteCommon| CipherSuiteCommon {
        confidentiality_limit: records,
        suite: common.suite,
        hash_provider: common.hash_provider,
    };
    let suites = ring::ALL_CIPHER_SUITES.iter().map(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => {
            let suite = Tls12CipherSuite { common: worn(&suite.common), ..**suite };
            SupportedCipherSuite::Tls12(Box::leak(Box::new(suite)))
        }
        SupportedCipherSuite::Tls13(suite) => {
            let suite = Tls13CipherSuite { common: worn(&suite.common), ..**suite };
            SupportedCipherSuite::Tls13(Box::leak(Box::new(suite)))
        }
    });
    Arc::new(CryptoProvider { cipher_suites: suites.collect(), ..ring::default_provider() })
}

#[test]
fn keys_that_are_used_up_are_changed_or_end_the_connection() {
    let mut pair = Pair::with(short_lived(20), &version::TLS13);
    for round in 0..100 {
        pair.stream.write_all(&[round]).unwrap();
        assert_eq!(pair.received(), [round]);
        pair.server_sends();
        let _ = pair.read();
    }
    let mut pair = Pair::with(short_lived(20), &version::TLS12);
    let written = (0..100).find(|round| match pair.stream.write(&[*round]) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WriteZero);
            true
        }
    });
    let written: u8 = written.expect("TLS 1.2 has no way to change keys");
    let received = pair.received().len();
    assert!(received == 19 && written <= 20, "{written} {received}");
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
