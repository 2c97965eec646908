//! `warrend pause`, `resume` and `explain`, as an administrator uses them.

use serde_json::Value;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::scene::{DEAD, QUEUE, WORK_TIMEOUT};

fn daemon(vhost: &Vhost, command: &str) -> Daemon {
    let mut daemon = Daemon::new(
        vhost,
        &format!(
            "[jobs.work]\nqueue = \"work\"\ndead_letter.queue = \"{DEAD}\"\n\
             retry = {{ max_attempts = 2, initial = \"1s\", jitter = 0.0 }}\n\
             [jobs.work.handler]\ncommand = [\"sh\", \"-c\", '{command}']\n"
        ),
    );
    daemon.tapped(vhost, &[("work", QUEUE)]);
    daemon
}

fn run(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = daemon.run(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_pause_outlives_the_daemon_and_says_who_and_why() {
    let vhost = Vhost::new();
    let mut daemon = daemon(&vhost, "exit 0");
    daemon.start();
    let (code, text) = run(&daemon, &["pause", "work", "--reason", "the API is down"]);
    assert_eq!(code, Some(0), "{text}");
    vhost.publish(QUEUE, "x", with_id("one"));
    for _ in 0..2 {
        daemon.wait_until("the job is paused", DAEMON_TIMEOUT, |daemon| {
            daemon.status().is_some_and(|status| status["jobs"]["work"]["state"] == "paused")
        });
        let status = daemon.status().expect("it answers");
        let paused = &status["jobs"]["work"]["paused"];
        assert_eq!(paused["reason"], "the API is down");
        let by = paused["by"].as_str().unwrap_or_default().to_owned();
        assert!(!by.is_empty() && paused["since_ms"].as_i64() > Some(1_700_000_000_000), "{paused}");
        let (code, text) = run(&daemon, &["status"]);
        assert!(code == Some(1) && text.contains(&format!("paused by {by} since")), "{text}");
        assert_eq!(daemon.counter("work", "received"), 0);
        assert!(daemon.terminate().success());
        daemon.spawn(&[]);
    }
    assert_eq!(vhost.ready(QUEUE), Some(1));
    daemon.wait_until("it answers", DAEMON_TIMEOUT, |daemon| daemon.status().is_some());
    let (code, text) = run(&daemon, &["resume", "work"]);
    assert_eq!(code, Some(0), "{text}");
    daemon.wait_until("it works", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 1);
    assert!(daemon.terminate().success());
    daemon.start();
    daemon.wait_until("it is no longer paused", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["state"] == "running")
    });
    let (code, text) = run(&daemon, &["pause", "wrok"]);
    assert!(code == Some(1) && text.contains("no job \"wrok\" runs here; there are: work"), "{text}");
}

#[test]
fn what_waits_for_a_worker_goes_back_when_its_job_is_paused() {
    let vhost = Vhost::new();
    let mut daemon = daemon(&vhost, "while [ ! -e go ]; do sleep 0.01; done");
    daemon.start();
    vhost.publish_all(QUEUE, (0..20).map(|n| (Vec::new(), with_id(&n.to_string()))));
    daemon.wait_until("handlers run", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") == 4);
    assert_eq!(run(&daemon, &["pause", "work"]).0, Some(0));
    daemon.wait_until("the rest goes back", DAEMON_TIMEOUT, |_| vhost.ready(QUEUE) == Some(16));
    assert_eq!(daemon.counter("work", "running"), 4, "what runs, runs on");
    assert_eq!(run(&daemon, &["resume", "work"]).0, Some(0));
    daemon.wait_until("it is taken again", DAEMON_TIMEOUT, |_| vhost.ready(QUEUE) < Some(16));
    daemon.signal(rustix::process::Signal::KILL);
}

fn explain(daemon: &Daemon, id: &str) -> Value {
    let output = daemon.run(&["explain", id, "--json"]);
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

#[test]
fn explain_tells_the_life_of_a_key() {
    let vhost = Vhost::new();
    let command = "case \"$WARREND_KEY\" in good) ;; slow) exec sleep 60 ;; crash) kill -SEGV $$ ;; \
                   *) echo \"no luck with $WARREND_KEY\" >&2; exit 3 ;; esac";
    let mut daemon = daemon(&vhost, command);
    let (code, text) = run(&daemon, &["explain", "good"]);
    assert!(code == Some(1) && text.contains("good is unknown here"), "{text}");
    daemon.start();
    for id in ["good", "bad", "crash", "slow"] {
        vhost.publish(QUEUE, "x", with_id(id));
    }
    daemon.wait_until("the first attempt fails", DAEMON_TIMEOUT, |daemon| {
        explain(daemon, "bad")["jobs"][0]["attempts"].as_array().is_some_and(|attempts| attempts.len() == 1)
    });
    let waiting = explain(&daemon, "bad");
    assert!(
        ["waiting", "due", "in-flight"].contains(&waiting["jobs"][0]["state"].as_str().unwrap_or("?")),
        "{waiting}"
    );
    daemon.wait_until("all but one end", WORK_TIMEOUT, |daemon| {
        ["bad", "crash"].iter().all(|id| explain(daemon, id)["jobs"][0]["state"] == "dead")
    });

    let good = explain(&daemon, "good");
    assert_eq!(
        (&good["jobs"][0]["state"], &good["jobs"][0]["attempts"][0]["outcome"]),
        (&"done".into(), &"done".into())
    );
    let attempt = &good["jobs"][0]["attempts"][0];
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!((&attempt["exit_code"], &attempt["signal"]), (&0.into(), &Value::Null), "{attempt}");
    assert_eq!(attempt["host"], *host);
    let bad = &explain(&daemon, "bad")["jobs"][0];
    let attempts = bad["attempts"].as_array().expect("it is a list");
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        assert_eq!(attempt["error"], "exit status 3: no luck with bad");
        assert!(attempt["started_ms"].as_i64() <= attempt["ended_ms"].as_i64());
        assert_eq!((&attempt["exit_code"], &attempt["signal"]), (&3.into(), &Value::Null), "{attempt}");
        assert_eq!(attempt["host"], *host);
    }
    assert_eq!((&attempts[0]["retry_after_s"], &attempts[1]["retry_after_s"]), (&1.into(), &Value::Null));
    assert!(bad["first_seen_ms"].as_i64() <= attempts[0]["started_ms"].as_i64());

    for attempt in explain(&daemon, "crash")["jobs"][0]["attempts"].as_array().expect("it is a list") {
        assert_eq!((&attempt["exit_code"], &attempt["signal"]), (&Value::Null, &"SIGSEGV".into()), "{attempt}");
    }
    let (code, text) = run(&daemon, &["explain", "crash", "--job", "work"]);
    assert!(code == Some(0) && text.contains("crash in job work: dead") && text.contains("SIGSEGV"), "{text}");
    assert!(text.contains(&format!("of 2 in the dead-letter queue {DEAD}")), "{text}");
    let (_, text) = run(&daemon, &["dead", "show", "work", "--id", "bad"]);
    assert!(text.contains("attempt 2") && text.contains("no luck with bad"), "{text}");
    let (_, text) = run(&daemon, &["explain", "slow"]);
    assert!(text.contains("slow in job work: in-flight") && text.contains("attempt 1 is running"), "{text}");
    assert!(run(&daemon, &["explain", "nobody"]).1.contains("unknown here"));
    daemon.signal(rustix::process::Signal::KILL);
}
