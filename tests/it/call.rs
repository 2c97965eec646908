//! `warrend call`: requests and their replies. What answers here is a consumer of the test's own, so that it can do what a
//! job would not.

use std::fs;
use std::io::Write as _;
use std::process::Output;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amiquip::{
    AmqpProperties, AmqpValue, Channel, Connection, ConsumerMessage, ConsumerOptions, Delivery, ExchangeType,
    FieldTable, Publish,
};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::amqp::{bind, exchange, headers, long_text};
use crate::support::broker::{BROKER_TIMEOUT, Vhost};
use crate::support::daemon::Daemon;
use crate::support::wait_until;

/// Long enough that no test gets there.
const LONG: &str = "60s";

/// What a consumer does with one request.
type Respond = fn(&Channel, &Delivery);

/// Answers one request on the queue `rpc`, and gives it to the test.
fn respond_once(vhost: &Vhost, respond: Respond) -> JoinHandle<Delivery> {
    vhost.declare("rpc");
    let url = vhost.url();
    let (ready, is_ready) = mpsc::channel();
    let responder = thread::spawn(move || {
        let mut connection = Connection::insecure_open(&url).expect("the broker is there");
        let channel = connection.open_channel(None).expect("it opens channels");
        let options = ConsumerOptions { no_ack: true, ..ConsumerOptions::default() };
        let consumer = channel.basic_consume("rpc", options).expect("the queue is there");
        ready.send(()).expect("the test waits for it");
        let ConsumerMessage::Delivery(request) =
            consumer.receiver().recv_timeout(BROKER_TIMEOUT).expect("a request comes")
        else {
            panic!("the broker ended the consumer");
        };
        respond(&channel, &request);
        consumer.cancel().expect("it was in order");
        // Its last word comes after that; had its receiver gone before, the connection would end.
        while consumer.receiver().recv_timeout(BROKER_TIMEOUT).is_ok() {}
        drop(consumer);
        channel.close().expect("it was in order");
        connection.close().expect("it was in order");
        request
    });
    is_ready.recv_timeout(BROKER_TIMEOUT).expect("the responder consumes");
    responder
}

/// Sends a reply to where the request says. Not mandatory: the broker calls a channel's own address no queue, and would
/// send even a reply that arrived back.
fn reply(channel: &Channel, request: &Delivery, body: &[u8], properties: AmqpProperties) {
    let to = request.properties.reply_to().clone().expect("a request says where its reply goes");
    let correlation = request.properties.correlation_id().clone().expect("a request bears a correlation id");
    let properties = match properties.correlation_id() {
        Some(_) => properties,
        None => properties.with_correlation_id(correlation),
    };
    channel.basic_publish("", Publish::with_properties(body, to, properties)).expect("the connection stands");
}

fn caller(vhost: &Vhost) -> Daemon {
    Daemon::new(vhost, "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It failed with one sentence on stderr, and printed nothing.
#[track_caller]
fn assert_failed(output: &Output, exit: i32) -> String {
    assert_eq!(output.status.code(), Some(exit), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = stderr(output);
    assert_eq!(text.lines().count(), 1, "{text:?}");
    text.trim_end().strip_prefix("warrend: ").expect("it begins with the program's name").to_owned()
}

#[test]
fn the_reply_is_printed_as_it_came() {
    let vhost = Vhost::new();
    let daemon = caller(&vhost);
    let responder = respond_once(&vhost, |channel, request| {
        reply(channel, request, &[&request.body[..], b"\0\xff"].concat(), AmqpProperties::default());
    });
    let arguments = [
        "call",
        "rpc",
        "-",
        "--timeout",
        LONG,
        "--id",
        "r-1",
        "--priority",
        "7",
        "--header",
        "x=1=2",
        "--header",
        "y=",
    ];
    let output = daemon.run_with_input(&arguments, b"from a pipe");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"from a pipe\0\xff"[..], &b""[..]));

    let request = responder.join().expect("it answered");
    let properties = &request.properties;
    assert_eq!(properties.message_id().as_deref(), Some("r-1"));
    assert_eq!(*properties.priority(), Some(7));
    assert_eq!(properties.expiration().as_deref(), Some("60000"));
    assert!(properties.reply_to().as_deref().is_some_and(|to| to.starts_with("amq.rabbitmq.reply-to.")));
    let correlation = properties.correlation_id().clone().unwrap_or_default();
    assert!(uuid::Uuid::try_parse(&correlation).is_ok(), "{correlation:?}");
    assert_eq!(headers(&request), [("x".to_owned(), long_text("1=2")), ("y".to_owned(), long_text(""))].into());
}

#[test]
fn a_request_takes_the_way_that_it_is_told() {
    let vhost = Vhost::new();
    let daemon = caller(&vhost);
    exchange(&vhost, "media", ExchangeType::Topic);
    let responder = respond_once(&vhost, |channel, request| {
        reply(channel, request, request.routing_key.as_bytes(), AmqpProperties::default());
    });
    bind(&vhost, "rpc", "media", "image.*");
    let file = daemon.folder().join("body");
    fs::write(&file, b"from a file").expect("the folder is writable");
    let file = file.display().to_string();
    let way = ["--exchange", "media", "--routing-key", "image.png"];
    let output = daemon.run(&[&["call", "any", &file, "--timeout", LONG][..], &way].concat());
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"image.png"[..]), "{output:?}");
    let request = responder.join().expect("it answered");
    assert_eq!(request.body, b"from a file");
    let own = request.properties.message_id().clone().unwrap_or_default();
    assert!(uuid::Uuid::try_parse(&own).is_ok(), "{own:?}");
}

#[test]
fn a_reply_to_something_else_is_not_taken() {
    let vhost = Vhost::new();
    let daemon = caller(&vhost);
    let responder = respond_once(&vhost, |channel, request| {
        let other = AmqpProperties::default().with_correlation_id("another".to_owned());
        reply(channel, request, b"not yours", other);
        reply(channel, request, b"yours", AmqpProperties::default());
    });
    let output = daemon.run(&["call", "rpc", "--timeout", LONG]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"yours"[..]), "{output:?}");
    responder.join().expect("it answered");
}

#[test]
fn a_compressed_reply_is_decoded() {
    let vhost = Vhost::new();
    let daemon = caller(&vhost);
    let responder = respond_once(&vhost, |channel, request| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"a reply").expect("memory takes it");
        let gzip = AmqpProperties::default().with_content_encoding("gzip".to_owned());
        reply(channel, request, &encoder.finish().expect("memory takes it"), gzip);
    });
    let output = daemon.run(&["call", "rpc", "--timeout", LONG]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"a reply"[..]), "{output:?}");
    responder.join().expect("it answered");

    let responder = respond_once(&vhost, |channel, request| {
        reply(channel, request, b"no gzip", AmqpProperties::default().with_content_encoding("gzip".to_owned()));
    });
    let sentence = assert_failed(&daemon.run(&["call", "rpc", "--timeout", LONG]), 1);
    assert!(sentence.starts_with("the reply cannot be read: ") && sentence.contains("gzip"), "{sentence}");
    responder.join().expect("it answered");
}

#[test]
fn an_error_reply_is_told_on_stderr() {
    let vhost = Vhost::new();
    let daemon = caller(&vhost);
    let responder = respond_once(&vhost, |channel, request| {
        let mut table = FieldTable::new();
        table.insert("x-warrend-error-class".to_owned(), long_text("rejected"));
        table.insert("x-warrend-error".to_owned(), long_text("exit status 65: can't read it\nat all"));
        reply(channel, request, b"not to be printed", AmqpProperties::default().with_headers(table));
    });
    let sentence = assert_failed(&daemon.run(&["call", "rpc", "--timeout", LONG]), 1);
    assert_eq!(sentence, "the request failed (rejected): exit status 65: can't read it at all");
    responder.join().expect("it answered");

    // Of a stranger who knows half of it.
    let responder = respond_once(&vhost, |channel, request| {
        let table: FieldTable = [("x-warrend-error-class".to_owned(), AmqpValue::Void)].into_iter().collect();
        reply(channel, request, b"", AmqpProperties::default().with_headers(table));
    });
    let sentence = assert_failed(&daemon.run(&["call", "rpc", "--timeout", LONG]), 1);
    assert_eq!(sentence, "the request failed (unknown): unknown");
    responder.join().expect("it answered");
}

#[test]
fn a_request_that_nobody_answers_is_told_in_time_and_expires() {
    let vhost = Vhost::new();
    let daemon = caller(&vhost);
    vhost.declare("rpc");
    let begun = Instant::now();
    let sentence = assert_failed(&daemon.run(&["call", "rpc", "--timeout", "500ms"]), 1);
    assert!(begun.elapsed() >= Duration::from_millis(500), "it did not wait");
    assert!(sentence.starts_with("no reply within 500ms: "), "{sentence}");
    for word in ["`warrend status`", "`reply = true`", "\"rpc\"", "--timeout"] {
        assert!(sentence.contains(word), "{sentence}");
    }
    wait_until("the request expires", BROKER_TIMEOUT, || vhost.ready("rpc") == Some(0));

    let responder = respond_once(&vhost, |_, _| {});
    assert_failed(&daemon.run(&["call", "rpc", "--timeout", "200ms"]), 1);
    responder.join().expect("it took the request, and said nothing");
}

#[test]
fn a_request_that_cannot_arrive_is_told_at_once() {
    let vhost = Vhost::new();
    let mut daemon = caller(&vhost);
    exchange(&vhost, "media", ExchangeType::Topic);
    let mut full = FieldTable::new();
    full.insert("x-max-length".to_owned(), AmqpValue::LongInt(0));
    full.insert("x-overflow".to_owned(), long_text("reject-publish"));
    vhost.declare_with("full", full);
    let begun = Instant::now();
    let call = |daemon: &Daemon, to: &[&str]| daemon.run(&[&["call", "--timeout", LONG], to].concat());
    let to = |exchange| ["any", "--exchange", exchange, "--routing-key", "image.png"];
    let missing = assert_failed(&call(&daemon, &["nowhere"]), 1);
    assert_eq!(missing, "queue \"nowhere\" does not exist");
    let unbound = assert_failed(&call(&daemon, &to("media")), 1);
    assert!(unbound.contains("media") && unbound.contains("image.png"), "{unbound}");
    let no_exchange = assert_failed(&call(&daemon, &to("missing")), 1);
    assert!(no_exchange.contains("missing") && no_exchange.contains("NOT_FOUND"), "{no_exchange}");
    let full = assert_failed(&call(&daemon, &["full"]), 1);
    assert!(full.contains("negative confirm"), "{full}");
    let long = assert_failed(&call(&daemon, &["nowhere", "--id", &"x".repeat(256)]), 1);
    assert!(long.contains("message_id has 256 bytes"), "{long}");

    const SECRET: &str = "s3cret-7f3a";
    daemon.set_broker(&format!("urls = [\"amqp://user:{SECRET}@127.0.0.1:1\"]"));
    let unreachable = assert_failed(&call(&daemon, &["rpc"]), 69);
    assert!(unreachable.starts_with("cannot reach RabbitMQ at 127.0.0.1:1"), "{unreachable}");
    assert!(!unreachable.contains(SECRET), "{unreachable}");
    assert!(begun.elapsed() < Duration::from_secs(60), "one of them waited for a reply");

    for wrong in [&["call"][..], &["call", "rpc", "--timeout", "0s"], &["call", "rpc", "--exchange", "media"]] {
        assert_eq!(daemon.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// Whoever waits for a reply learns at once that the connection is gone.
#[test]
fn a_connection_that_ends_under_a_call_is_told() {
    let vhost = Vhost::new();
    let daemon = caller(&vhost);
    vhost.declare("rpc");
    let mut call = daemon.start_command(&["call", "rpc", "--timeout", LONG]);
    wait_until("the request is there", BROKER_TIMEOUT, || vhost.ready("rpc") == Some(1));
    wait_until("the connection is closed", BROKER_TIMEOUT, || vhost.close_connections() > 0);
    let mut status = None;
    wait_until("the call ends", BROKER_TIMEOUT, || {
        status = call.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(69));
}
