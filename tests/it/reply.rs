//! Request and reply: what a job with `reply = true` answers, and whom.

use amiquip::AmqpProperties;

use crate::amqp::{headers, take, text};
use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::node::Node;
use crate::support::scene::{DEAD, QUEUE};
use crate::support::wait_until;

/// Where the callers of these tests wait.
const CALLER: &str = "caller";

fn daemon(vhost: &Vhost, command: &str, rest: &str) -> Daemon {
    Daemon::new(vhost, &jobs(command, rest))
}

fn jobs(command: &str, rest: &str) -> String {
    format!(
        "[jobs.work]\nqueue = \"{QUEUE}\"\nreply = true\ndead_letter.queue = \"{DEAD}\"\n\
         retry = {{ max_attempts = 2, initial = \"1s\", jitter = 0.0 }}\n{rest}\n\
         [jobs.work.handler]\ncommand = [\"sh\", \"-c\", '{command}']\n"
    )
}

fn request(id: &str) -> AmqpProperties {
    with_id(id).with_reply_to(CALLER.to_owned()).with_correlation_id(format!("c-{id}"))
}

#[test]
fn a_request_is_answered_with_what_the_program_writes() {
    let vhost = Vhost::new();
    vhost.declare(CALLER);
    let mut daemon = daemon(&vhost, "printf \"%s!\" \"$(cat)\"", "");
    daemon.start();
    vhost.publish(QUEUE, "hello", request("one"));
    let reply = take(&vhost, CALLER);
    assert_eq!(reply.body, b"hello!");
    assert_eq!(reply.properties.correlation_id().as_deref(), Some("c-one"));
    assert!(headers(&reply).is_empty());
    // The same request again is a duplicate, and one without a reply_to is a plain message.
    vhost.publish(QUEUE, "hello", request("one"));
    vhost.publish(QUEUE, "hello", with_id("two"));
    daemon.wait_until("both are settled", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("work", "done") == 2 && daemon.counter("work", "duplicates") == 1
    });
    assert_eq!(vhost.ready(CALLER), Some(0));
    assert!(daemon.terminate().success());
}

#[test]
fn a_call_gets_its_answer() {
    let vhost = Vhost::new();
    let mut daemon =
        daemon(&vhost, "body=$(cat); [ \"$body\" != bad ] || { echo no luck >&2; exit 65; }; echo \"$body!\"", "");
    daemon.start();
    let call = |body: &str| daemon.run_with_input(&["call", QUEUE, "-"], body.as_bytes());
    for body in ["hello", "again"] {
        let answer = call(body);
        assert_eq!((answer.status.code(), answer.stdout), (Some(0), format!("{body}!\n").into_bytes()));
    }
    let answer = call("bad");
    assert_eq!(answer.status.code(), Some(1));
    let told = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(told.contains("the request failed (rejected): exit status 65: no luck"), "{told}");
    assert!(daemon.terminate().success());
}

#[test]
fn a_request_that_fails_for_good_is_answered_with_its_error() {
    let vhost = Vhost::new();
    vhost.declare(CALLER);
    let command = "echo no luck >&2; if [ \"$WARREND_KEY\" = bad ]; then exit 65; fi; exit 1";
    let mut daemon = daemon(&vhost, command, "max_body = \"1KiB\"");
    daemon.start();
    for (id, body, class, error) in [
        ("bad", "x".to_owned(), "rejected", "exit status 65: no luck"),
        ("worse", "x".to_owned(), "failed", "exit status 1: no luck"),
        ("large", "x".repeat(2000), "oversize", "the body has 2000 bytes, and max_body allows 1024"),
    ] {
        vhost.publish(QUEUE, body, request(id));
        let reply = take(&vhost, CALLER);
        assert_eq!(text(&reply, "x-warrend-error-class"), class);
        assert_eq!(text(&reply, "x-warrend-error"), error);
        assert_eq!(reply.properties.correlation_id().as_deref(), Some(&*format!("c-{id}")));
        wait_until("its dead letter", BROKER_TIMEOUT, || vhost.ready(DEAD) == Some(1));
        take(&vhost, DEAD);
    }
    assert!(daemon.terminate().success());
}

#[test]
fn nobody_runs_a_request_that_nobody_waits_for() {
    let vhost = Vhost::new();
    vhost.declare(CALLER);
    let mut daemon = daemon(&vhost, "sleep 1; exit 1", "concurrency = 1\nprefetch = 2");
    daemon.start();
    // One runs for a second, and its retry would begin after its deadline; the other's deadline passes while it waits.
    for id in ["first", "second"] {
        vhost.publish(QUEUE, "", request(id).with_expiration("900".to_owned()));
    }
    let mut replies: Vec<_> = (0..2).map(|_| take(&vhost, CALLER)).collect();
    replies.sort_by_key(|reply| reply.properties.correlation_id().clone());
    for (reply, error) in
        replies.iter().zip(["nobody waits for the answer of another attempt", "its expiration passed"])
    {
        assert_eq!(text(reply, "x-warrend-error-class"), "expired");
        assert!(text(reply, "x-warrend-error").starts_with(error), "{}", text(reply, "x-warrend-error"));
    }
    daemon.wait_until("both are dead", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "dead") == 2);
    assert!(daemon.terminate().success());
}

#[test]
fn a_caller_that_has_gone_keeps_nobody_from_working() {
    let vhost = Vhost::new();
    let mut daemon = daemon(&vhost, "cat", "");
    daemon.start();
    for (id, reply_to) in [("one", "gone"), ("two", "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA2OD.no=="), ("three", "")] {
        vhost.publish(QUEUE, "x", request(id).with_reply_to(reply_to.to_owned()));
    }
    daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 3);
    daemon.wait_until("and acknowledged", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["running"] == 0)
    });
    assert!(daemon.log().contains("a reply reached nobody"), "{}", daemon.log_tail());
    assert!(daemon.terminate().success());
    assert_eq!(vhost.ready(QUEUE), Some(0));
}

#[test]
fn a_request_that_is_done_does_not_run_again_because_its_reply_found_no_way() {
    let node = Node::start();
    let vhost = Vhost::on(node.broker());
    vhost.declare(CALLER);
    let command = "echo \"$WARREND_KEY\" >>ran; [ \"$WARREND_KEY\" = first ] || until [ -e go ]; do sleep 0.02; done";
    let mut daemon = daemon(&vhost, command, "concurrency = 3");
    daemon.set_jobs(&format!("[shutdown]\ntimeout = \"1s\"\n{}cwd = \".\"\n", jobs(command, "concurrency = 3")));
    daemon.start();
    // The broker blocks a publisher when it publishes again.
    vhost.publish(QUEUE, "", request("first"));
    take(&vhost, CALLER);
    vhost.publish_all(QUEUE, (0..3).map(|n| (Vec::new(), request(&n.to_string()))));
    daemon.wait_until("all run", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") == 3);
    node.alarm(true);
    wait_until("the alarm is raised", BROKER_TIMEOUT, || {
        let nodes = node.broker().management().call("GET", "/api/nodes", None);
        nodes.is_ok_and(|nodes| nodes[0]["mem_alarm"] == true)
    });
    std::fs::write(daemon.folder().join("go"), "").expect("the folder is writable");
    daemon.wait_until("their replies wait", DAEMON_TIMEOUT, |daemon| {
        // The one that the broker blocked at may have got through.
        daemon.counter("work", "owing") >= 1
            && daemon.counter("work", "running") == 0
            && daemon.status().is_some_and(|status| status["broker"]["blocked"] == true)
    });
    assert!(daemon.terminate().success(), "{}", daemon.log_tail());
    node.alarm(false);
    wait_until("they are acknowledged", BROKER_TIMEOUT, || vhost.ready(QUEUE) == Some(0));
    let ran = std::fs::read_to_string(daemon.folder().join("ran")).expect("they ran");
    assert_eq!(ran.lines().count(), 4, "{ran}");
    daemon.start();
    assert_eq!((daemon.counter("work", "received"), vhost.ready(QUEUE)), (0, Some(0)));
    assert!(daemon.terminate().success());
}
