//! Alerts of the real daemon: what fires, what clears, and whoever is told.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::node::Node;
use crate::support::proxy::Door;

/// Looks come every second; a window has ten.
const WAIT: Duration = Duration::from_secs(60);
const QUICK: &str = "for = \"0s\"\nclear_for = \"1s\"\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A job whose handler waits while a file `hold` stands, and does what its body says.
fn job(daemon: &Daemon) -> String {
    let hold = daemon.folder().join("hold");
    let script = format!(
        "while [ -e {} ]; do sleep 0.02; done; case $(cat) in dead) exit 65 ;; again) [ $WARREND_ATTEMPT -gt 1 ] ;; esac",
        hold.display()
    );
    format!(
        "[jobs.work]\nqueue = \"work\"\nconcurrency = 1\nprefetch = 2\n\
         retry = {{ max_attempts = 2, initial = \"1s\", jitter = 0.0 }}\n\
         [jobs.work.handler]\ncommand = [\"/bin/sh\", \"-c\", '{script}']\n"
    )
}

/// An alert that writes down each time that it is told of.
fn noted(daemon: &Daemon, when: &str, more: &str) -> String {
    let script = format!(
        "printf \"%s %s\\n\" \"$WARREND_ALERT_EVENT\" \"$WARREND_ALERT_NAME\" >>{}; cat >/dev/null; echo noted",
        daemon.folder().join("told").display()
    );
    format!("[[alerts]]\nwhen = \"{when}\"\n{QUICK}command = [\"/bin/sh\", \"-c\", '{script}']\n{more}\n")
}

/// How often that alert was told of so.
fn told(daemon: &Daemon, event: &str, name: &str) -> usize {
    let text = fs::read_to_string(daemon.folder().join("told")).unwrap_or_default();
    text.lines().filter(|line| *line == format!("{event} {name}")).count()
}

fn alerts(daemon: &Daemon) -> Vec<Value> {
    let answer = daemon.ask("{\"command\":\"alerts\"}").unwrap_or_default();
    answer["alerts"].as_array().cloned().unwrap_or_default()
}

/// An alert as it is now; null while nobody knows.
fn alert(daemon: &Daemon, name: &str) -> Value {
    alerts(daemon).into_iter().find(|alert| alert["name"] == name).unwrap_or_default()
}

fn run(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = daemon.run(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn publish(vhost: &Vhost, kind: &str, ids: std::ops::Range<usize>) {
    vhost.publish_all("work", ids.map(|id| (kind.as_bytes().to_vec(), with_id(&format!("{kind}-{id}")))));
}

#[test]
fn severity_is_the_level_in_the_log_and_what_is_for_information_is_no_problem() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "");
    let alert = |severity: &str| {
        format!("[[alerts]]\nname = \"as-{severity}\"\nwhen = \"store_bytes > 1B\"\n{QUICK}severity = \"{severity}\"\n")
    };
    daemon.set_jobs(&format!("{}{}", alert("info"), job(&daemon)));
    daemon.start();
    let line = |daemon: &Daemon, severity: &str| {
        let name = format!("\"as-{severity}\"");
        daemon.log().lines().find(|line| line.contains(&name) && line.contains("fires")).map(str::to_owned)
    };
    daemon.wait_until("it is told", WAIT, |daemon| line(daemon, "info").is_some());
    assert!(line(&daemon, "info").is_some_and(|line| line.contains("INFO")), "{}", daemon.log());
    daemon.wait_until("nothing is wrong", WAIT, |daemon| run(daemon, &["status"]).0 == Some(0));
    assert_eq!(self::alert(&daemon, "as-info")["state"], "firing");
    daemon.set_jobs(&format!("{}{}{}", alert("warning"), alert("critical"), job(&daemon)));
    assert_eq!(run(&daemon, &["reload"]).0, Some(0));
    for (severity, level) in [("warning", "WARN"), ("critical", "ERROR")] {
        daemon.wait_until("it is told", WAIT, |daemon| line(daemon, severity).is_some());
        assert!(line(&daemon, severity).is_some_and(|line| line.contains(level)), "{}", daemon.log());
    }
    let (code, text) = run(&daemon, &["status"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("critical alert \"as-critical\" fires"), "{text}");
}

/// Set off one after the other and mended: each is told of once, and once that it has ended.
#[test]
fn each_quantity_fires_and_clears_once() {
    const NAMES: [&str; 11] = [
        "ready > 5",
        "oldest_wait > 2s",
        "dead_ready > 0",
        "dead_rate > 1/m",
        "retried_rate > 1/m",
        "error_ratio > 50%",
        "rate > 30/m",
        "paused",
        "no_consumers",
        "disconnected",
        "degraded",
    ];
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "");
    let mut text = String::new();
    for name in NAMES {
        let is_counted = name.contains("rate") || name.contains("ratio");
        text += &noted(&daemon, name, if is_counted { "window = \"10s\"" } else { "" });
    }
    for always in ["disk_free < 900000GiB", "store_bytes > 1B"] {
        text += &noted(&daemon, always, "");
    }
    // Of what is so, nothing is left.
    for never in ["disk_free < 1B", "stalled", "blocked", "rate < 1/h"] {
        text += &noted(&daemon, never, "");
    }
    daemon.set_jobs(&format!("{text}{}", job(&daemon)));
    daemon.tapped(&vhost, &[("work", "work")]);
    daemon.start();
    let wait = |daemon: &mut Daemon, event: &str, names: &[&str]| {
        let what = format!("{names:?} are told of as {event}");
        daemon.wait_until(&what, WAIT, |daemon| names.iter().all(|name| told(daemon, event, name) > 0));
    };

    let hold = daemon.folder().join("hold");
    fs::write(&hold, "").expect("the folder can be written");
    publish(&vhost, "fine", 0..10);
    wait(&mut daemon, "fired", &["ready > 5", "oldest_wait > 2s"]);
    let ready = alert(&daemon, "ready > 5");
    assert_eq!((&ready["state"], &ready["job"], &ready["shown"]), (&"firing".into(), &"work".into(), &"8".into()));
    fs::remove_file(&hold).expect("it is there");
    wait(&mut daemon, "fired", &["rate > 30/m"]);
    wait(&mut daemon, "cleared", &["ready > 5", "oldest_wait > 2s", "rate > 30/m"]);

    publish(&vhost, "dead", 0..12);
    publish(&vhost, "again", 0..1);
    wait(&mut daemon, "fired", &["dead_ready > 0", "dead_rate > 1/m", "error_ratio > 50%", "retried_rate > 1/m"]);
    daemon.wait_until("all are dead", WAIT, |_| vhost.ready("work.dead") == Some(12));
    assert_eq!(vhost.drain("work.dead").len(), 12);
    wait(&mut daemon, "cleared", &["dead_ready > 0", "dead_rate > 1/m", "error_ratio > 50%", "retried_rate > 1/m"]);

    assert_eq!(run(&daemon, &["pause", "work"]).0, Some(0));
    wait(&mut daemon, "fired", &["paused", "no_consumers", "degraded"]);
    assert_eq!(run(&daemon, &["resume", "work"]).0, Some(0));
    wait(&mut daemon, "cleared", &["paused", "no_consumers", "degraded"]);

    // What is seen while the daemon connects may have set these off before.
    let before = ["disconnected", "degraded"].map(|name| told(&daemon, "cleared", name));
    daemon.wire().door(Door::Refuse);
    daemon.wire().reset_all();
    daemon.wait_until("both fire", WAIT, |daemon| {
        ["disconnected", "degraded"].iter().all(|name| alert(daemon, name)["state"] == "firing")
    });
    daemon.wire().door(Door::Open);
    daemon.wait_until("both are told of as cleared", WAIT, |daemon| {
        let now = ["disconnected", "degraded"].map(|name| told(daemon, "cleared", name));
        now.iter().zip(before).all(|(now, before)| *now > before)
    });

    wait(&mut daemon, "fired", &["disk_free < 900000GiB", "store_bytes > 1B"]);
    daemon.wait_until("all of them have ended", WAIT, |daemon| {
        NAMES.iter().all(|name| told(daemon, "fired", name) == told(daemon, "cleared", name))
    });
    for name in NAMES.iter().filter(|name| !["no_consumers", "disconnected", "degraded"].contains(name)) {
        assert_eq!(told(&daemon, "fired", name), 1, "{name}\n{}", daemon.log_tail());
    }
    for never in ["disk_free < 1B", "stalled", "blocked", "rate < 1/h"] {
        assert_eq!(told(&daemon, "fired", never), 0, "{never}");
    }
    let log = daemon.log();
    assert!(log.contains("alert \"ready > 5\" fires for job work: ready is "), "{log}");
    assert!(log.contains("alert \"ready > 5\" has cleared for job work: ready is"), "{log}");
    assert!(daemon.terminate().success());
}

/// A memory alarm, and a consumer that the broker has forgotten.
#[test]
fn a_broker_that_takes_nothing_or_gives_nothing_fires_until_it_does() {
    let node = Node::start();
    let vhost = Vhost::on(node.broker());
    let mut daemon = Daemon::new(&vhost, "");
    daemon.set_broker(&format!("urls = [{:?}]\n{}", vhost.url(), crate::stall::SHORT));
    let text = noted(&daemon, "blocked", "") + &noted(&daemon, "stalled", "") + &job(&daemon);
    daemon.set_jobs(&text);
    daemon.start();
    let wait = |daemon: &mut Daemon, event: &str, name: &str| {
        daemon.wait_until(&format!("{name} is told of as {event}"), WAIT, |daemon| told(daemon, event, name) == 1);
    };
    let hold = daemon.folder().join("hold");
    fs::write(&hold, "").expect("the folder can be written");
    publish(&vhost, "dead", 0..1);
    daemon.wait_until("it runs", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") == 1);
    node.alarm(true);
    // The broker blocks a publisher when it publishes again.
    fs::remove_file(&hold).expect("it is there");
    wait(&mut daemon, "fired", "blocked");
    node.alarm(false);
    wait(&mut daemon, "cleared", "blocked");
    crate::stall::drop_consumer(&node, &vhost);
    wait(&mut daemon, "fired", "stalled");
    wait(&mut daemon, "cleared", "stalled");
    assert_eq!(["blocked", "stalled"].map(|name| told(&daemon, "fired", name)), [1, 1]);
    assert!(daemon.terminate().success());
}

/// A value that swings about its bound is told of once, and once more when that is over.
#[test]
fn what_swings_does_not_spam() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "");
    let alert_text = noted(&daemon, "paused", "").replace("clear_for = \"1s\"", "clear_for = \"8s\"");
    daemon.set_jobs(&format!("{alert_text}{}", job(&daemon)));
    daemon.start();
    for _ in 0..4 {
        for (command, shown) in [("pause", "yes"), ("resume", "no")] {
            assert_eq!(run(&daemon, &[command, "work"]).0, Some(0));
            daemon.wait_until("it was looked at", WAIT, |daemon| alert(daemon, "paused")["shown"] == shown);
        }
    }
    assert_eq!((told(&daemon, "fired", "paused"), told(&daemon, "cleared", "paused")), (1, 0));
    daemon.wait_until("it clears", WAIT, |daemon| told(daemon, "cleared", "paused") == 1);
    assert_eq!(told(&daemon, "fired", "paused"), 1);
    assert!(daemon.terminate().success());
}

/// What came to the server.
struct Seen {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("it is JSON")
    }

    /// What the reference implementation says of it.
    fn verify(&self) {
        let reference = standardwebhooks::Webhook::new(SECRET).expect("the secret is one");
        reference.verify(&self.body, &self.headers).expect("the signature is right");
    }
}

/// Answers each request with the next of these statuses, and from then on with the last.
fn server(statuses: &'static [&'static str]) -> (SocketAddr, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        let mut status = *statuses.next().expect("there is one");
        for stream in listener.incoming() {
            if !serve(&stream.expect("it was accepted"), status, &tell) {
                return;
            }
            status = statuses.next().copied().unwrap_or(status);
        }
    });
    (address, seen)
}

fn serve(stream: &TcpStream, status: &str, tell: &Sender<Seen>) -> bool {
    let mut reader = BufReader::new(stream);
    let mut headers = HeaderMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request comes whole");
    assert_eq!(line, "POST /hook?token=s3cret HTTP/1.1\r\n");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header comes whole");
        let Some((name, value)) = line.split_once(':') else { break };
        let name: HeaderName = name.parse().expect("it is a name");
        headers.insert(name, HeaderValue::from_str(value.trim()).expect("it is a value"));
    }
    let mut body = vec![0; headers["content-length"].to_str().expect("it is text").parse().expect("it is a number")];
    reader.read_exact(&mut body).expect("a body comes whole");
    let mut writer = stream;
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nheard");
    writer.write_all(answer.as_bytes()).expect("an answer is taken");
    tell.send(Seen { headers, body }).is_ok()
}

#[test]
fn a_webhook_is_signed_and_sent_again_until_it_is_taken() {
    let vhost = Vhost::new();
    let (address, seen) = server(&["500 Busy", "200 OK"]);
    let mut daemon = Daemon::new(&vhost, "");
    let secret = daemon.folder().join("secret");
    fs::write(&secret, SECRET).expect("the folder can be written");
    let text = format!(
        "[[alerts]]\nname = \"nobody works\"\nwhen = \"paused\"\nseverity = \"critical\"\n{QUICK}\
         webhook = \"http://{address}/hook?token=s3cret\"\nsecret_file = {secret:?}\nheaders = {{ X-Team = \"ops\" }}\n"
    );
    daemon.set_jobs(&format!("{text}{}", job(&daemon)));
    daemon.start();
    assert_eq!(run(&daemon, &["alerts"]).0, Some(0));
    assert_eq!(run(&daemon, &["pause", "work"]).0, Some(0));
    let (first, second) = (next(&seen), next(&seen));
    for seen in [&first, &second] {
        seen.verify();
        assert_eq!(seen.headers["x-team"], "ops");
        assert_eq!(seen.headers["content-type"], "application/json");
    }
    assert_eq!((&first.body, &first.headers["webhook-id"]), (&second.body, &second.headers["webhook-id"]));
    let told = first.json();
    assert_eq!(told["id"], *first.headers["webhook-id"].to_str().unwrap());
    let expect =
        [("event", "fired"), ("alert", "nobody works"), ("when", "paused"), ("severity", "critical"), ("job", "work")];
    for (key, value) in expect {
        assert_eq!(told[key], value, "{told}");
    }
    let text = told["text"].as_str().expect("it is text");
    assert!(
        text.starts_with("warrend on ") && text.ends_with(": alert \"nobody works\" (paused) fires for job work"),
        "{text}"
    );
    daemon.wait_until("it is known that it was told", WAIT, |daemon| {
        let notified = &alert(daemon, "nobody works")["notified"];
        notified["taken"] == true && notified["tries"] == 2 && notified["answer"] == "status 200 (ok): heard"
    });

    let (code, text) = run(&daemon, &["alerts"]);
    assert!(code == Some(1) && text.contains("firing") && text.contains("webhook, fired, "), "{text}");
    let (code, text) = run(&daemon, &["status"]);
    assert!(code == Some(1) && text.contains("critical alert \"nobody works\" fires"), "{text}");
    let status = daemon.status().expect("it answers");
    assert_eq!(status["alerts"][0]["state"], "firing");

    assert_eq!(run(&daemon, &["resume", "work"]).0, Some(0));
    let cleared = next(&seen);
    cleared.verify();
    assert_eq!(cleared.json()["event"], "cleared");
    assert!(!daemon.log().contains("s3cret"));
    assert!(daemon.terminate().success());
}

fn next(seen: &Receiver<Seen>) -> Seen {
    seen.recv_timeout(WAIT).expect("a request comes")
}

/// One that hangs is killed, delays no other alert and no message, and an orderly stop even less.
#[test]
fn a_command_that_hangs_is_killed_and_delays_nothing() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "");
    let hang = daemon.folder().join("hang.sh");
    fs::write(&hang, "trap '' TERM\nwhile :; do sleep 1000; done\n").expect("the folder can be written");
    let hanging = |when: &str, timeout: &str| {
        format!("[[alerts]]\nwhen = \"{when}\"\n{QUICK}timeout = \"{timeout}\"\ncommand = [\"/bin/sh\", {hang:?}]\n")
    };
    let other = noted(&daemon, "degraded", "");
    daemon.set_jobs(&format!(
        "{}{}{other}{}",
        hanging("paused", "1s"),
        hanging("store_bytes > 1B", "1m"),
        job(&daemon)
    ));
    daemon.start();
    assert_eq!(run(&daemon, &["pause", "work"]).0, Some(0));
    daemon.wait_until("it fires", WAIT, |daemon| alert(daemon, "paused")["state"] == "firing");
    daemon.wait_until("the other is told of", WAIT, |daemon| told(daemon, "fired", "degraded") >= 1);
    assert_eq!(run(&daemon, &["resume", "work"]).0, Some(0));
    publish(&vhost, "fine", 0..5);
    daemon.wait_until("messages are handled", WAIT, |daemon| daemon.counter("work", "done") == 5);
    daemon.wait_until("it was tried for the last time", WAIT, |daemon| {
        let notified = &alert(daemon, "paused")["notified"];
        notified["taken"] == false && notified["tries"] == 4
    });
    let (_, text) = run(&daemon, &["alerts"]);
    assert!(text.contains("paused: the command was not told that it fired, 4 tries: no end within 1s"), "{text}");
    let began = Instant::now();
    assert!(daemon.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(30), "the other's timeout is a minute");
    daemon.wait_until("nothing of the commands lives", DAEMON_TIMEOUT, |daemon| !daemon.has_processes());
}

#[test]
fn a_test_says_what_was_answered_with_a_daemon_and_without() {
    let vhost = Vhost::new();
    let (address, seen) = server(&["204 No Content", "500 Broken", "204 No Content"]);
    let mut daemon = Daemon::new(&vhost, "");
    let webhook = format!("name = \"both\"\nwebhook = \"http://{address}/hook?token=s3cret\"\n");
    let both = noted(&daemon, "paused", &webhook);
    daemon.set_jobs(&format!("{both}[[alerts]]\nwhen = \"degraded\"\n{}", job(&daemon)));

    let (code, text) = run(&daemon, &["alerts"]);
    assert!(code == Some(3) && text.contains("not running"), "{text}");
    let (code, text) = run(&daemon, &["alerts", "--test", "both"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("not running: told from here") && text.contains("command took it: exit status 0: noted"),
        "{text}"
    );
    assert_eq!((told(&daemon, "test", "both"), &next(&seen).json()["event"]), (1, &"test".into()));

    daemon.start();
    let (code, text) = run(&daemon, &["alerts", "--test", "both", "--json"]);
    assert_eq!(code, Some(1), "{text}");
    let answer: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!((&answer["schema"], &answer["from"], &answer["asked"]), (&1.into(), &"daemon".into(), &2.into()));
    let answers: BTreeMap<_, _> =
        answer["answers"].as_array().expect("a list").iter().map(|told| (told["through"].to_string(), told)).collect();
    assert_eq!(answers["\"command\""]["taken"], true);
    assert_eq!(answers["\"webhook\""]["answer"], "status 500 (internal server error): heard");
    let (code, text) = run(&daemon, &["alerts", "--test", "both"]);
    assert!(code == Some(0) && text.contains("webhook took it: status 204 (no content)"), "{text}");
    // A test is no notification of the alert.
    assert_eq!(alert(&daemon, "both")["notified"], Value::Null);

    let (code, text) = run(&daemon, &["alerts", "--test", "degraded"]);
    assert!(code == Some(0) && text.contains("neither `command` nor `webhook`"), "{text}");
    let (code, text) = run(&daemon, &["alerts", "--test", "bth"]);
    assert!(
        code == Some(1) && text.contains("no alert is called \"bth\"; there are: \"both\", \"degraded\""),
        "{text}"
    );
    assert!(daemon.terminate().success());
    let (code, text) = run(&daemon, &["alerts", "--test", "bth"]);
    assert!(code == Some(1) && text.contains("there are: \"both\", \"degraded\""), "{text}");
}

/// A reload brings alerts, lets others go, and leaves alone what is as before.
#[test]
fn a_reload_changes_alerts_at_once() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "");
    let (kept, added) = (noted(&daemon, "store_bytes > 1B", ""), noted(&daemon, "store_bytes > 2B", ""));
    let job = job(&daemon);
    daemon.set_jobs(&job);
    daemon.start();
    assert!(alerts(&daemon).is_empty());
    let reload = |daemon: &mut Daemon, text: &str, names: &[&str]| {
        daemon.set_jobs(text);
        let (code, said) = run(daemon, &["reload"]);
        assert!(code == Some(0) && said.contains("alerts."), "{said}");
        daemon.wait_until("the alerts are as the file says", WAIT, |daemon| {
            let alerts = alerts(daemon);
            let found: Vec<_> = alerts.iter().map(|alert| alert["name"].as_str().unwrap_or_default()).collect();
            found == names && alerts.iter().all(|alert| alert["state"] == "firing")
        });
    };
    reload(&mut daemon, &format!("{kept}{job}"), &["store_bytes > 1B"]);
    let since = alert(&daemon, "store_bytes > 1B")["since_ms"].clone();
    reload(&mut daemon, &format!("{added}{kept}{job}"), &["store_bytes > 2B", "store_bytes > 1B"]);
    assert_eq!(alert(&daemon, "store_bytes > 1B")["since_ms"], since);
    daemon.wait_until("both are told of", WAIT, |daemon| told(daemon, "fired", "store_bytes > 2B") == 1);
    reload(&mut daemon, &format!("{kept}{job}"), &["store_bytes > 1B"]);
    assert_eq!(told(&daemon, "fired", "store_bytes > 1B"), 1);
    assert!(daemon.terminate().success());
}
