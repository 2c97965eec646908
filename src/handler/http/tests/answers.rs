//! Which answer has which outcome.

use super::server::{answer, begun, fine, raw};
use super::*;
use crate::task::Reply;

#[test]
fn each_status_has_its_outcome_over_one_connection() {
    let retry = [408, 425, 429, 500, 501, 502, 503, 504, 507, 599, 300, 304, 307, 308];
    let dead = [400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 431, 451, 499];
    let done = [200, 201, 202, 203, 206, 299];
    // A 304 never has a body.
    let body = |status| if status == 304 { "" } else { "why" };
    let all: Vec<u16> = [&retry[..], &dead, &done].concat();
    let setup = Setup::new(all.iter().map(|status| answer(&format!("{status} Said"), "", body(*status))).collect());
    let mut handler = setup.handler();
    for status in &all {
        let answer = handler.run(&input(&keyed(b"")), &setup.stop);
        assert_eq!(answer.delay, None);
        assert_eq!(setup.server.seen().connection, 1, "before {status}");
        if done.contains(status) {
            assert_eq!(answer, Outcome::Done.into());
            continue;
        }
        let (outcome, class, error) = failure(answer);
        let expected =
            if dead.contains(status) { ("dead", ErrorClass::Rejected) } else { ("retry", ErrorClass::Failed) };
        assert_eq!((outcome, class), expected, "{status}");
        assert!(error.starts_with(&format!("status {status}")) && error.ends_with(body(*status)), "{error}");
    }
}

#[test]
fn statuses_without_a_body_keep_the_connection() {
    let setup = Setup::new(vec![
        Box::new(|wire| wire.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok()),
        Box::new(|wire| {
            let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            wire.write_all(chunked).is_ok()
        }),
        // Not the answer: 103 is an early hint, the answer follows.
        Box::new(|wire| {
            wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
        }),
        fine(),
    ]);
    let mut handler = setup.handler();
    for _ in 0..4 {
        assert_eq!(handler.run(&input(&keyed(b"")), &setup.stop), Outcome::Done.into());
        assert_eq!(setup.server.seen().connection, 1);
    }
}

#[test]
fn the_error_text_is_the_status_and_the_begin_of_the_body() {
    let check = |status: &str, body: &str, expected: &str| {
        let setup = Setup::new(vec![answer(status, "", body)]);
        assert_eq!(failure(setup.send(&keyed(b""))).2, expected);
    };
    check("503 Whatever", "", "status 503 (service unavailable)");
    check("422 Nope", "{\"no\":\"such\"}\n", "status 422 (unprocessable entity): {\"no\":\"such\"}");
    check("599 Odd", "\x1b[31mred", "status 599: \u{fffd}[31mred");
    let long = "long ".repeat(100_000);
    check("500 Oops", &long, &format!("status 500 (internal server error): {}…", long[..1024].trim_end()));
}

#[test]
fn a_server_can_ask_for_a_delay() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(1000));
    let setup = Setup::new(vec![
        answer("503 Busy", "Retry-After: 17\r\n", ""),
        answer("429 Slow", &format!("Retry-After: {date}\r\n"), ""),
        answer("503 Busy", "Retry-After: later\r\n", ""),
        answer("404 Gone", "Retry-After: 17\r\n", ""),
        answer("200 OK", "Retry-After: 17\r\n", ""),
    ]);
    let mut handler = setup.handler();
    let mut delay = || handler.run(&input(&keyed(b"")), &setup.stop).delay;
    assert_eq!(delay(), Some(Duration::from_secs(17)));
    let until_date = delay().unwrap();
    assert!(until_date > Duration::from_secs(900) && until_date <= Duration::from_secs(1000), "{until_date:?}");
    assert_eq!((delay(), delay(), delay()), (None, None, None));
}

#[test]
fn a_redirect_is_not_followed_and_only_its_host_is_told() {
    let elsewhere = Server::start(vec![fine()]);
    let location = format!("Location: http://{}/s3cret?token=s3cret\r\n", elsewhere.address);
    for status in ["301 Moved", "302 Found", "303 See", "307 Moved", "308 Moved"] {
        let setup = Setup::new(vec![answer(status, &location, "")]);
        let (outcome, class, error) = failure(setup.send(&keyed(b"body")));
        assert_eq!((outcome, class), ("retry", ErrorClass::Failed));
        let end = format!(", a redirect to http://{} that is not followed", elsewhere.address);
        assert!(error.ends_with(&end) && !error.contains("s3cret"), "{error}");
        assert_eq!(setup.server.seen().line, "POST /hook/s3cret?token=s3cret HTTP/1.1");
        assert!(setup.server.rest().is_empty());
    }
    assert!(elsewhere.rest().is_empty());
    let setup = Setup::new(vec![answer("302 Found", "", "")]);
    assert_eq!(failure(setup.send(&keyed(b""))).2, "status 302 (found), a redirect that is not followed");
}

#[test]
fn what_is_no_http_is_a_failed_attempt() {
    let check = |bytes: &[u8], expected: &str| {
        let setup = Setup::new(vec![raw(bytes)]);
        let (outcome, class, error) = failure(setup.send(&keyed(b"body")));
        assert_eq!((outcome, class), ("retry", ErrorClass::Failed), "{error}");
        let host = setup.server.address;
        assert!(error.starts_with(&format!("{host} {expected}")) && !error.contains("s3cret"), "{error}");
    };
    check(b"SSH-2.0-OpenSSH_9.2\r\n", "answered what is not http: ");
    check(b"\0\x01\x02\x03\r\n\r\n", "answered what is not http: ");
    check(b"", "closed the connection before it answered");
    check(b"HTTP/1.1 20", "closed the connection before it answered");
    let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    check(header.as_bytes(), "answered with a header of more than 24576 bytes");
}

#[test]
fn the_body_of_an_answer_is_the_reply_where_one_is_wanted() {
    let check = |step, expected: Answer| {
        let mut setup = Setup::new(vec![step]);
        setup.context.reply = true;
        setup.context.max_body = 10;
        assert_eq!(setup.send(&keyed(b"")), expected);
    };
    let reply = |body: &[u8], content_type: Option<&str>| {
        let reply = Reply { body: body.into(), content_type: content_type.map(str::to_owned) };
        Answer { reply: Some(reply), ..Outcome::Done.into() }
    };
    check(answer("200 OK", "Content-Type: text/x\r\n", "0123456789"), reply(b"0123456789", Some("text/x")));
    check(answer("201 Made", "Content-Encoding: identity\r\n", b"\0\xff"), reply(b"\0\xff", None));
    check(raw("HTTP/1.1 204 No Content\r\n\r\n"), reply(b"", None));
    let dead = |class, error: &str| Outcome::Dead(Failure { class, error: error.to_owned() }).into();
    let long = "status 200, but more than a reply may have (10 bytes)";
    check(answer("200 OK", "", "0123456789a"), dead(ErrorClass::Oversize, long));
    check(raw(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_000_000))), dead(ErrorClass::Oversize, long));
    let encoded = "status 200, but a reply with the encoding gzip, which was not asked for";
    check(answer("200 OK", "Content-Encoding: gzip\r\n", "01"), dead(ErrorClass::Undecodable, encoded));
}

#[test]
fn a_reply_that_does_not_come_whole_is_a_failed_attempt() {
    let mut setup = Setup::new(vec![raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")]);
    setup.context.reply = true;
    let (outcome, class, error) = failure(setup.send(&keyed(b"")));
    assert_eq!((outcome, class), ("retry", ErrorClass::Failed));
    assert!(error.ends_with("closed the connection before it had answered all"), "{error}");
    let mut setup = Setup::new(vec![begun("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")]);
    setup.context.reply = true;
    setup.config.timeout = Duration::from_millis(200);
    let (outcome, class, error) = failure(setup.send(&keyed(b"")));
    assert_eq!((outcome, class), ("retry", ErrorClass::Timeout));
    assert!(error.ends_with("within 200ms"), "{error}");
}

#[test]
fn without_a_wish_for_a_reply_the_status_alone_counts() {
    for step in [
        raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        begun("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        begun("HTTP/1.1 200 OK\r\n\r\ndata: one\n\ndata: "),
        answer("200 OK", "Content-Encoding: gzip\r\n", "no gzip"),
    ] {
        let setup = Setup::new(vec![step]);
        let began = Instant::now();
        assert_eq!(setup.send(&keyed(b"")), Outcome::Done.into());
        assert!(began.elapsed() < LONG / 2, "the body is not waited for");
    }
}
