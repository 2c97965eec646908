//! Queues, exchanges and bindings: made where they are missing, used as they are where they stand.

use std::collections::BTreeSet;

use amiquip::{AmqpValue, ExchangeType, FieldTable};
use serde_json::json;

use crate::amqp::{exchange, long_text, take, text, url_as};
use crate::support::broker::{BROKER_TIMEOUT, Broker, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use crate::support::random_uuid;

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
    // Longer than the first pauses between two looks.
    daemon.wait_until("it was looked for more than once", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["uptime_s"].as_u64() >= Some(3))
    });
    assert_eq!(daemon.counter("work", "reconnects"), 0, "what is missing costs no connection");
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

/// A job whose messages named `again…` fail once, and others are rejected.
fn failing_job(journal: &Journal, queue: &str) -> String {
    format!(
        "[jobs.work]\nqueues = [{queue}]\nhandler.command = {}\nretry = {{ initial = \"1s\", jitter = 0.0 }}\n",
        journal.command()
    )
}

const AGAIN_OR_REJECTED: &str =
    "case $WARREND_KEY in again*) [ $WARREND_ATTEMPT -gt 1 ] || exit 75 ;; *) exit 65 ;; esac";

#[test]
fn what_copies_need_is_made_again_when_it_is_gone() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), AGAIN_OR_REJECTED);
    let mut daemon = Daemon::new(&vhost, &failing_job(&journal, "{ name = \"work\" }"));
    daemon.start();
    vhost.delete_queue("work.dead");
    vhost.delete_queue("warrend.delay.00");
    vhost.with_channel(|channel| channel.exchange_delete("warrend.delay.00", Default::default())).expect("it is there");
    for id in ["again", "rejected"] {
        vhost.publish("work", id, with_id(id));
    }
    daemon.wait_until("the dead letter is there", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    wait_done(&mut daemon, "work", 1);
    assert_eq!(journal.attempts("again"), [1, 2]);
    assert_eq!(journal.attempts("rejected"), [1]);
    let letter = vhost.get("work.dead").expect("it waits");
    assert_eq!(text(&letter, "x-warrend-error-class"), "rejected");
    daemon.wait_until("all is well again", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.success());
}

#[test]
fn a_dead_letter_queue_that_is_full_is_waited_for() {
    const MESSAGES: usize = 3;
    let vhost = Vhost::new();
    let limits = [("x-max-length", AmqpValue::LongInt(1)), ("x-overflow", long_text("reject-publish"))];
    vhost.declare_with("work.dead", limits.map(|(name, value)| (name.to_owned(), value)).into_iter().collect());
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), AGAIN_OR_REJECTED);
    let mut daemon = Daemon::new(&vhost, &failing_job(&journal, "{ name = \"work\" }"));
    daemon.start();
    for n in 0..MESSAGES {
        vhost.publish("work", "", with_id(&n.to_string()));
    }
    daemon.wait_until("the refusal is told", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["problems"].to_string().contains("a copy could not be published"))
    });
    // One fits at a time, and each other try is refused.
    let letters: Vec<_> = (0..MESSAGES).map(|_| take(&vhost, "work.dead")).collect();
    let ids: BTreeSet<_> = letters.iter().filter_map(|letter| letter.properties.message_id().clone()).collect();
    assert_eq!(ids.len(), MESSAGES);
    daemon.wait_until("all is well", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.success());
    let refusals: Vec<_> =
        complaints(&daemon).into_iter().filter(|line| line.contains("could not be published")).collect();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(daemon.terminate().success());
    assert_eq!(vhost.ready("work"), Some(0), "each was acknowledged, and only when its copy was confirmed");
    assert_eq!(journal.len(), MESSAGES);
}

#[test]
fn a_quorum_queue_is_worked_like_any_other() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), AGAIN_OR_REJECTED);
    let job = failing_job(&journal, "{ name = \"work\", type = \"quorum\" }");
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    for id in ["again", "rejected"] {
        vhost.publish("work", id, with_id(id));
    }
    wait_done(&mut daemon, "work", 1);
    daemon.wait_until("the dead letter is there", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    assert!(daemon.terminate().success());
    assert_eq!(vhost.ready("work"), Some(0));
}

/// A user of the broker, gone with its test.
struct User(String);

impl User {
    fn new(vhost: &Vhost, configure: &str) -> Self {
        let user = Self(format!("warrend-test-{}", random_uuid().simple()));
        let call = |path: &str, body| Broker::get().management().call("PUT", path, Some(&body));
        call(&format!("/api/users/{}", user.0), json!({"password": "only here", "tags": ""})).expect("a user is made");
        let rights = json!({"configure": configure, "write": ".*", "read": ".*"});
        call(&format!("/api/permissions/{}/{}", vhost.name(), user.0), rights).expect("it gets its rights");
        user
    }

    fn broker(&self, vhost: &Vhost) -> String {
        let url = url_as(vhost, &self.0, Some("only here"));
        format!("urls = [\"{url}\"]\nreconnect = {{ initial = \"50ms\", max = \"500ms\" }}")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Nothing else depends on it.
        let _ = Broker::get().management().call("DELETE", &format!("/api/users/{}", self.0), None);
    }
}

/// Where an administrator has declared everything, the daemon's user needs no right to.
#[test]
fn a_user_who_may_declare_nothing_works_with_what_stands() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), AGAIN_OR_REJECTED);
    let user = User::new(&vhost, "^$");
    let job = failing_job(&journal, "{ name = \"work\" }");
    let mut daemon = Daemon::with_broker(&user.broker(&vhost), &job);
    daemon.spawn(&[]);
    daemon.wait_until("the refusal is told", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["problems"].to_string().contains("ACCESS_REFUSED"))
    });
    assert_eq!(complaints(&daemon).len(), 1, "{:?}", complaints(&daemon));
    Daemon::new(&vhost, &job).start();
    for id in ["again", "rejected"] {
        vhost.publish("work", id, with_id(id));
    }
    wait_done(&mut daemon, "work", 1);
    daemon.wait_until("the dead letter is there", BROKER_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    daemon.wait_until("all is well", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.success());
}
