//! What is said of peers that are no broker, or one that is not well: one sentence, at once, or when the time is up.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{BrokerError, connect};
use crate::config;

/// Longer than any answer on this machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects to a peer that serves one connection, and gives the sentence of the failure.
fn failure(connect_timeout: &str, serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || serve(listener.accept().unwrap().0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("warrend.toml");
    let text = format!(
        "[broker]\nurls = [\"amqp://somebody:secret@127.0.0.1:{port}\"]\nconnect_timeout = \"{connect_timeout}\"\n\
         [jobs.a]\nqueue = \"a\"\nhandler.discard = true\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = config::load(&file, &|_| None).expect("the configuration is right").config;
    let begun = Instant::now();
    let Err(error) = connect(&config.broker, 0, "test") else { panic!("that was no broker") };
    assert!(begun.elapsed() < PATIENCE / 2, "it did not wait for anything");
    served.join().unwrap();
    let sentence = error.to_string();
    assert!(!sentence.contains("secret") && !sentence.contains(char::is_control), "{sentence}");
    let told = matches!(&error, BrokerError::Refused { .. } | BrokerError::Unreachable { .. });
    assert!(told, "{error:?}");
    sentence.replace(&format!("127.0.0.1:{port}"), "HOST")
}

fn method(payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[1, 0, 0][..], &size, payload, &[0xCE]].concat()
}

/// `connection.start` with an empty table and what every client can do.
fn start() -> Vec<u8> {
    method(b"\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US")
}

/// `connection.close`; the code is below 256 or above it by a little.
fn close(code: u16, text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    method(&[&[0, 10, 0, 50][..], &code.to_be_bytes(), &[length], text, &[0; 4]].concat())
}

/// Reads until the client falls silent or goes.
fn read_some(socket: &mut TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
}

/// A peer that answers the greeting with these bytes and waits until the client goes.
fn answering(answer: Vec<u8>) -> impl FnOnce(TcpStream) {
    move |mut socket| {
        read_some(&mut socket);
        socket.write_all(&answer).unwrap();
        while socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    }
}

/// A peer that gets as far as the login and answers that.
fn at_login(answer: impl FnOnce(TcpStream) + Send + 'static) -> impl FnOnce(TcpStream) + Send + 'static {
    move |mut socket| {
        read_some(&mut socket);
        socket.write_all(&start()).unwrap();
        read_some(&mut socket);
        answer(socket);
    }
}

#[test]
fn who_speaks_something_else_is_told_at_once() {
    let said = |answer: &[u8]| failure("60s", answering(answer.to_vec()));
    assert_eq!(
        said(b"HTTP/1.1 400 Bad Request\r\n"),
        "cannot reach RabbitMQ at HOST: what came is not AMQP 0-9-1: it began with \"HTTP/1.\"; is this the broker's \
         AMQP port?"
    );
    assert_eq!(
        said(b"AMQP\0\x01\0\0"),
        "cannot reach RabbitMQ at HOST: it speaks AMQP 1.0 and not 0-9-1; is this the broker's AMQP port?"
    );
    assert_eq!(
        said(b"\x15\x03\x01\0\x02\x02\x46"),
        "cannot reach RabbitMQ at HOST: it answered in TLS, which takes an amqps:// URL; is this the broker's AMQP port?"
    );
    let endless = said(b"\x01\0\0\xff\xff\xff\xff");
    assert!(endless.contains("a frame of 4294967295 bytes, more than was agreed"), "{endless}");
    let no_end = said(&[&start()[..start().len() - 1], b"x"].concat());
    assert!(no_end.contains("a frame has no end"), "{no_end}");
}

#[test]
fn a_refused_login_is_told_from_a_broker_that_goes() {
    let refused = b"ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.\n";
    let said = |code, text: &[u8]| failure("60s", at_login(answering_at_once(close(code, text))));
    assert_eq!(said(403, refused), "RabbitMQ at HOST refused the user \"somebody\": check user name and password");
    let going = said(320, b"CONNECTION_FORCED - broker \x1b[31mforced\xff");
    assert_eq!(
        going,
        "cannot reach RabbitMQ at HOST: it ended the handshake: CONNECTION_FORCED - broker  [31mforced\u{fffd}"
    );
    let silent = failure("60s", at_login(drop));
    assert!(
        silent.contains("it ended the connection during the login of the user \"somebody\", without a word"),
        "{silent}"
    );
}

/// Like [`answering`], to a peer that has asked already.
fn answering_at_once(answer: Vec<u8>) -> impl FnOnce(TcpStream) {
    move |mut socket| {
        socket.write_all(&answer).unwrap();
        while socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    }
}

#[test]
fn who_trickles_or_falls_silent_is_cut_when_the_time_is_up() {
    let trickle = |mut socket: TcpStream| {
        // Heartbeats are allowed at any time and end nothing.
        while socket.write_all(b"\x08\0\0\0\0\0\0\xce").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    };
    for serve in [trickle, |mut socket: TcpStream| while socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}] {
        let sentence = failure("300ms", serve);
        assert!(sentence.contains("the AMQP handshake was not finished within 300ms"), "{sentence}");
        let sentence = failure("300ms", at_login(serve));
        assert!(sentence.contains("no answer to the login of the user \"somebody\" within 300ms"), "{sentence}");
    }
}
