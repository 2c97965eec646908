//! Queues, exchanges and bindings: made where they are missing, used as they are where they stand.

use amiquip::{AmqpValue, ExchangeType, FieldTable};

use crate::amqp::exchange;
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};

fn wait_done(daemon: &mut Daemon, job: &str, messages: u64) {
    daemon.wait_until(&format!("{job} has done {messages}"), DAEMON_TIMEOUT, |daemon| {
        daemon.counter(job, "done") == messages
    });
}

/// How many lines of the log are warnings or errors.
fn complaints(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let is_complaint = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    log.lines().filter(is_complaint).map(str::to_owned).collect()
}

#[test]
fn a_passive_queue_is_waited_for_and_never_made() {
    let vhost = Vhost::new();
    let jobs = "[jobs.work]\nqueues = [{ name = \"theirs\", declare = \"passive\" }]\nhandler.discard = true\n\
                [jobs.other]\nqueue = \"other\"\nhandler.discard = true\n";
    let mut daemon = Daemon::new(&vhost, jobs);
    daemon.spawn(&[]);
    daemon.wait_until("the problem is told", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| {
            let problems = status["problems"].to_string();
            problems.contains("theirs") && problems.contains("does not exist")
        })
    });
    assert_eq!(daemon.run(&["status"]).status.code(), Some(1));
    vhost.publish("other", "", with_id("a"));
    wait_done(&mut daemon, "other", 1);
    // It was looked for again and again by now, and there is one line about it.
    assert_eq!(complaints(&daemon).len(), 1, "{:?}", complaints(&daemon));
    assert!(!vhost.queues().contains(&"theirs".to_owned()));

    vhost.declare("theirs");
    vhost.publish("theirs", "", with_id("a"));
    wait_done(&mut daemon, "work", 1);
    daemon.wait_until("all is well", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.success());
}

#[test]
fn what_exists_with_other_arguments_is_used_as_it_is() {
    let vhost = Vhost::new();
    let argument = |name: &str, value| -> FieldTable { [(name.to_owned(), value)].into_iter().collect() };
    let priorities = argument("x-max-priority", AmqpValue::LongInt(3));
    vhost.declare_with("work", priorities);
    let limited = argument("x-max-length", AmqpValue::LongInt(1000));
    vhost.declare_with("work.dead", limited);
    exchange(&vhost, "media", ExchangeType::Direct);
    let jobs = "[jobs.work]\nhandler.command = [\"false\"]\nretry.max_attempts = 1\n\
                dead_letter = { queue = \"work.dead\", message_ttl = \"1d\" }\n\
                [[jobs.work.queues]]\nname = \"work\"\nmax_priority = 10\nmessage_ttl = \"1h\"\n\
                bindings = [{ exchange = \"media\", type = \"topic\", routing_key = \"image\" }]\n";
    let mut daemon = Daemon::new(&vhost, jobs);
    daemon.start();
    vhost.publish_to("media", "image", [(Vec::new(), with_id("a"))]);
    daemon.wait_until("it is dead", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    let status = daemon.status().expect("it runs");
    assert_eq!(status["broker"]["reconnects"], 0, "{status:#}");
    assert_eq!(status["healthy"], true, "{status:#}");
    // The one about the dead letter.
    assert_eq!(complaints(&daemon).len(), 1, "{:?}", complaints(&daemon));
}

#[test]
fn a_message_to_an_exchange_reaches_every_job_that_is_bound() {
    let vhost = Vhost::new();
    let job = |name: &str, keys: &[&str]| {
        let bindings: Vec<String> = keys
            .iter()
            .map(|key| format!("{{ exchange = \"media\", type = \"topic\", routing_key = \"{key}\" }}"))
            .collect();
        format!(
            "[jobs.{name}]\nqueues = [{{ name = \"{name}\", bindings = [{}] }}]\nhandler.discard = true\n",
            bindings.join(", ")
        )
    };
    let jobs = [job("images", &["image.*"]), job("all", &["#"]), job("some", &["image.png", "sound.*"])];
    let mut daemon = Daemon::new(&vhost, &jobs.concat());
    daemon.start();
    for key in ["image.png", "image.jpg", "sound.ogg", "film"] {
        // Mandatory publishing is the daemon's own: an exchange without a match would be an error there.
        let sent = daemon.run(&["publish", "any", "--exchange", "media", "--routing-key", key]);
        assert!(sent.status.success(), "{sent:?}");
    }
    wait_done(&mut daemon, "all", 4);
    wait_done(&mut daemon, "images", 2);
    wait_done(&mut daemon, "some", 2);
}
