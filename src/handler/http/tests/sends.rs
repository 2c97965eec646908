//! What a receiver gets.

use ureq::http::HeaderMap;

use super::server::fine;
use super::*;
use crate::task::{HeaderValue, Message, Properties};

/// Sends one task to a server that takes it, and gives what it saw.
fn seen(setup: &Setup, task: &Task) -> Seen {
    assert_eq!(setup.send(task), Outcome::Done.into());
    setup.server.seen()
}

#[test]
fn a_bare_message_says_little() {
    let setup = Setup::new(vec![fine()]);
    let seen = seen(&setup, &task(b""));
    assert_eq!(seen.line, "POST /hook/s3cret?token=s3cret HTTP/1.1");
    let mut names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "warrend-attempt",
        "warrend-exchange",
        "warrend-job",
        "warrend-max-attempts",
        "warrend-priority",
        "warrend-queue",
        "warrend-redelivered",
        "warrend-routing-key",
    ];
    assert_eq!(names, expected);
    let check = |name: &str, value: &str| assert_eq!(seen.header(name), Some(value));
    check("accept", "*/*");
    check("accept-encoding", "identity");
    check("content-type", "application/octet-stream");
    check("host", &setup.server.address.to_string());
    check("user-agent", concat!("warrend/", env!("CARGO_PKG_VERSION")));
    check("warrend-attempt", "1");
    check("warrend-exchange", "");
    check("warrend-job", "thumbnails");
    check("warrend-max-attempts", "5");
    check("warrend-priority", "0");
    check("warrend-queue", "thumbnails.urgent");
    check("warrend-redelivered", "0");
}

fn rich() -> Task {
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    let some = |text: &str| Some(text.to_owned());
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let properties = Properties {
        content_type: some("image/png; q=\"1\""),
        content_encoding: some("br"),
        headers: [("traceparent", trace), ("tracestate", "a=1,b=2"), ("authorization", "s3cret"), ("host", "evil")]
            .map(|(name, value)| (name.to_owned(), text(value)))
            .into(),
        priority: Some(7),
        correlation_id: some("c\r\nx-evil: 1"),
        reply_to: some("answers"),
        message_id: some("m-ü"),
        timestamp: Some(1_700_000_000),
        kind: some("made"),
        app_id: some("shop"),
        ..Properties::default()
    };
    let message = Message {
        exchange: "media".to_owned(),
        routing_key: "image.ü 50%".to_owned(),
        redelivered: true,
        properties,
        body: b"{\"a\":1}".to_vec(),
    };
    Task { attempt: 3, priority: 7, message, ..keyed(b"") }
}

#[test]
fn all_that_a_message_has_is_told() {
    let setup = Setup::new(vec![fine()]);
    let seen = seen(&setup, &rich());
    assert_eq!(seen.body, b"{\"a\":1}");
    let check = |name: &str, value: &str| assert_eq!(seen.header(name), Some(value));
    check("content-type", "image/png; q=\"1\"");
    check("content-encoding", "br");
    check("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    check("tracestate", "a=1,b=2");
    check("idempotency-key", "order-42");
    check("warrend-attempt", "3");
    check("warrend-redelivered", "1");
    check("warrend-priority", "7");
    check("warrend-exchange", "media");
    check("warrend-routing-key", "image.%C3%BC 50%25");
    check("warrend-message-id", "m-%C3%BC");
    check("warrend-correlation-id", "c%0D%0Ax-evil: 1");
    check("warrend-reply-to", "answers");
    check("warrend-timestamp", "1700000000");
    check("warrend-type", "made");
    check("warrend-app-id", "shop");
    check("host", &setup.server.address.to_string());
    for absent in ["authorization", "x-evil", "webhook-id"] {
        assert_eq!(seen.header(absent), None);
    }
}

#[test]
fn a_decoded_body_has_no_encoding_any_more() {
    let setup = Setup::new(vec![fine()]);
    let task = rich();
    let decoded = Input { task: &task, body: b"plain".to_vec().into() };
    assert_eq!(setup.handler().run(&decoded, &setup.stop), Outcome::Done.into());
    let seen = setup.server.seen();
    assert_eq!((seen.header("content-encoding"), &*seen.body), (None, &b"plain"[..]));
}

#[test]
fn what_no_header_can_hold_is_left_out() {
    let setup = Setup::new(vec![fine()]);
    let mut task = rich();
    task.message.properties.content_type = Some("a\nb".to_owned());
    task.message.properties.headers.insert("traceparent".to_owned(), HeaderValue::Text("a\r\nb: c".to_owned()));
    task.message.properties.headers.insert("tracestate".to_owned(), HeaderValue::I8(1));
    task.key = Some(MessageKey::from_text(&"k".repeat(100_000)));
    let seen = seen(&setup, &task);
    assert_eq!(seen.header("content-type"), Some("application/octet-stream"));
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (None, None));
    assert!(seen.header("idempotency-key").unwrap().starts_with("sha256:"));
}

#[test]
fn configured_headers_win() {
    let mut setup = Setup::new(vec![fine()]);
    for (name, value) in [("Authorization", "Bearer s3cret"), ("user-agent", "mine"), ("Content-Type", "text/plain")] {
        setup.config.headers.insert(name.to_owned(), value.to_owned());
    }
    let seen = seen(&setup, &rich());
    let check = |name: &str, value: &str| assert_eq!(seen.header(name), Some(value));
    check("authorization", "Bearer s3cret");
    check("user-agent", "mine");
    check("content-type", "text/plain");
    assert!(!format!("{:?}", Template::new(&setup.config)).contains("Bearer"));
}

#[test]
fn headers_that_cannot_be_sent_break_the_handler() {
    for (name, value) in [("a b", "s3cret"), ("x", "s3cret\r\ny: z")] {
        let mut setup = Setup::new(vec![]);
        setup.config.headers.insert(name.to_owned(), value.to_owned());
        let why = broken(setup.send(&keyed(b"")));
        assert!(why.contains(&format!("`{name}`")) && !why.contains("s3cret"), "{why}");
    }
}

#[test]
fn a_large_body_arrives_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let setup = Setup::new(vec![fine()]);
    assert!(seen(&setup, &keyed(&body)).body == body);
}

/// A file with a secret, in a folder of its own.
fn secret_file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the reference implementation says of a request.
fn verify(secret: &str, seen: &Seen) -> Result<(), String> {
    let headers: HeaderMap = seen.headers.clone();
    let reference = standardwebhooks::Webhook::new(secret).unwrap();
    reference.verify(&seen.body, &headers).map_err(|error| error.to_string())
}

#[test]
fn the_reference_implementation_accepts_our_signature() {
    let (_folder, path) = secret_file(&format!("{SECRET}\n"));
    let mut setup = Setup::new(vec![fine(), fine(), fine(), fine(), fine()]);
    setup.config.secret_file = Some(path);
    let id = |task: &Task, expected: &str| {
        let mut seen = seen(&setup, task);
        assert_eq!(seen.header("webhook-id"), Some(expected));
        assert_eq!(verify(SECRET, &seen), Ok(()));
        assert!(verify("whsec_c29tZSBvdGhlciBrZXk=", &seen).is_err());
        seen.body.push(b' ');
        assert!(verify(SECRET, &seen).is_err());
    };
    id(&rich(), "order-42");
    id(&Task { key: Some(MessageKey::from_text("a.1700000000.ü")), ..rich() }, "a%2E1700000000%2E%C3%BC");
    id(&Task { key: None, ..rich() }, "m-%C3%BC");
    // SHA-256 of an empty body begins so.
    let unnamed = |first_seen| Task { first_seen: UnixMillis(first_seen), ..task(b"") };
    id(&unnamed(1), "1-e3b0c44298fc1c149afbf4c8996fb924");
    id(&unnamed(2), "2-e3b0c44298fc1c149afbf4c8996fb924");
}

#[test]
fn a_secret_that_cannot_be_read_breaks_the_handler_until_it_can() {
    let (_folder, path) = secret_file("");
    let mut setup = Setup::new(vec![fine()]);
    setup.config.secret_file = Some(path.clone());
    let mut handler = setup.handler();
    let mut run = || handler.run(&input(&keyed(b"body")), &setup.stop);
    for wrong in
        ["", "whsec_", "whsec_s3cret!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &format!("{SECRET}\n{SECRET}"), "\0"]
    {
        std::fs::write(&path, wrong).unwrap();
        let why = broken(run());
        let expected = format!("the secret_file {} is not one line of `whsec_` and base64", path.display());
        assert_eq!(why, expected);
    }
    std::fs::remove_file(&path).unwrap();
    let why = broken(run());
    assert!(why.contains(path.to_str().unwrap()) && why.contains("cannot be read"), "{why}");
    std::fs::write(&path, SECRET).unwrap();
    assert_eq!(run(), Outcome::Done.into());
    assert_eq!(verify(SECRET, &setup.server.seen()), Ok(()));
    assert!(!format!("{handler:?}").contains("MfKQ9r"));
}
