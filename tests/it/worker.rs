//! Jobs with a `worker` handler: batches, results by position, processes that die in the middle.

use std::collections::BTreeMap;
use std::fs;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::number_from;
use crate::support::scene::WORK_TIMEOUT;

const MESSAGES: usize = 200;

/// Notes each task before it is done, and does what its key says. Each result goes out by itself.
const WORKER: &str = r#"#!/usr/bin/env python3
import json, os, signal, sys
folder = os.path.dirname(__file__)
requests, answers = open(3, "rb"), open(4, "wb", buffering=0)
journal = open(folder + "/journal", "ab", buffering=0)
def say(value): answers.write(json.dumps(value).encode() + b"\n")
def result(task):
    kind, first = task["key"].split("-")[0], task["attempt"] == 1
    journal.write(("%s %d\n" % (task["key"], task["attempt"])).encode())
    if kind == "again" and first: return {"status": "retry", "delay": "1s", "error": "busy"}
    if kind == "rejected": return {"status": "dead", "error": "no such address"}
    if kind == "killed" and first: os.kill(os.getpid(), signal.SIGKILL)
    if kind == "garbage" and first: answers.write(b"Segmentation fault\n"); signal.pause()
    if kind == "odd" and first: return {"status": "maybe"}
    return {"status": "done"}
say({"warrend": 1})
for line in requests:
    request = json.loads(line)
    with open(folder + "/batches", "a") as batches: batches.write("%d\n" % len(request["tasks"]))
    for task in request["tasks"]: say({"id": request["id"], "results": [result(task)], "more": True})
"#;

/// Of a hundred messages, one of each kind but the plain ones.
fn id(number: usize) -> String {
    let kind = match number % 100 {
        10 => "again",
        30 => "rejected",
        50 => "killed",
        70 => "garbage",
        90 => "odd",
        _ => "plain",
    };
    format!("{kind}-{number}")
}

/// A daemon whose job has this worker and these keys.
fn daemon(vhost: &Vhost, worker: &str, keys: &str) -> Daemon {
    use std::os::unix::fs::PermissionsExt as _;
    let mut daemon = Daemon::new(vhost, "");
    let program = daemon.folder().join("worker.py");
    fs::write(&program, worker).expect("the folder is writable");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    daemon.set_jobs(&format!(
        "[jobs.work]\nqueue = \"work\"\nconcurrency = 2\n\
         [jobs.work.handler]\nworker = [{program:?}]\n{keys}\n\
         [jobs.work.retry]\ninitial = \"1s\"\njitter = 0.0"
    ));
    daemon
}

/// Attempts that ran, by key.
fn runs(daemon: &Daemon) -> BTreeMap<String, Vec<u32>> {
    let mut runs = BTreeMap::<_, Vec<u32>>::new();
    for line in fs::read_to_string(daemon.folder().join("journal")).unwrap_or_default().lines() {
        let (key, attempt) = line.split_once(' ').expect("each line has a key and an attempt");
        runs.entry(key.to_owned()).or_default().push(attempt.parse().expect("a number"));
    }
    runs
}

#[test]
fn every_message_ends_as_its_worker_says() {
    let vhost = Vhost::new();
    vhost.declare("work");
    vhost.publish_all("work", (0..MESSAGES).map(|n| (id(n).into_bytes(), with_id(&id(n)))));
    let mut daemon = daemon(&vhost, WORKER, "batch = 20");
    daemon.start();
    let done = MESSAGES - MESSAGES / 100;
    daemon.wait_until("all are done or dead", WORK_TIMEOUT, |daemon| {
        daemon.counter("work", "done") == done as u64 && vhost.ready("work.dead") == Some((MESSAGES - done) as u32)
    });
    let status = daemon.status().expect("it runs");
    assert_eq!(daemon.terminate().code(), Some(0), "{}", daemon.log_tail());
    assert!(!daemon.has_processes());

    // Whatever died beside it: each attempt ran once, and only what its own message did cost it one.
    let runs = runs(&daemon);
    assert_eq!(runs.len(), MESSAGES);
    for (key, attempts) in &runs {
        let kind = key.split('-').next().expect("a first part");
        let expected: &[u32] = if ["plain", "rejected"].contains(&kind) { &[1] } else { &[1, 2] };
        assert_eq!(attempts, expected, "{key}\n{}", daemon.log_tail());
    }
    for letter in vhost.drain("work.dead") {
        assert!(letter.properties.message_id().as_ref().is_some_and(|id| id.starts_with("rejected-")));
    }
    let restarts = &status["jobs"]["work"]["worker_restarts"];
    let each = (MESSAGES / 100) as u64;
    assert_eq!((&restarts["crashed"], &restarts["protocol"]), (&each.into(), &each.into()), "{restarts}");
    assert_eq!(restarts.as_object().expect("by reason").len(), 7);
    let batches = fs::read_to_string(daemon.folder().join("batches")).expect("it ran");
    assert!(batches.lines().any(|size| size == "20") && batches.lines().all(|size| size.len() < 3), "{batches}");
}

#[test]
fn a_process_is_recycled_and_nobody_notices() {
    let vhost = Vhost::new();
    vhost.declare("work");
    vhost.publish_all("work", (0..MESSAGES).map(|n| (Vec::new(), with_id(&format!("plain-{n}")))));
    let mut daemon = daemon(&vhost, WORKER, "batch = 5\nmax_tasks = 10");
    daemon.start();
    daemon.wait_until("all are done", WORK_TIMEOUT, |daemon| daemon.counter("work", "done") == MESSAGES as u64);
    let status = daemon.status().expect("it runs");
    assert!(runs(&daemon).values().all(|attempts| *attempts == [1]));
    let job = &status["jobs"]["work"];
    assert!(job["worker_restarts"]["max_tasks"].as_u64() >= Some(MESSAGES as u64 / 20), "{job}");
    assert_eq!((&job["retried"], &job["crashed"]), (&0.into(), &0.into()), "{job}");
    assert_eq!(daemon.terminate().code(), Some(0), "{}", daemon.log_tail());
}

#[test]
fn a_worker_that_cannot_work_pauses_its_job_and_costs_no_attempt() {
    let vhost = Vhost::new();
    vhost.declare("work");
    vhost.publish_all("work", (0..MESSAGES).map(|n| (Vec::new(), with_id(&format!("plain-{n}")))));
    let broken = format!(
        "#!/usr/bin/env python3\nimport os, sys\nif not os.path.exists(os.path.dirname(__file__) + '/mended'): sys.exit('no licence')\n{WORKER}"
    );
    let mut daemon = daemon(&vhost, &broken, "batch = 20");
    daemon.start();
    daemon.wait_until("the job is paused", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["state"] == "paused")
    });
    let status = daemon.status().expect("it runs");
    let reason = status["jobs"]["work"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("gave no hello): no licence"), "{reason}");
    fs::write(daemon.folder().join("mended"), "").expect("the folder is writable");
    daemon.wait_until("all are done", WORK_TIMEOUT, |daemon| daemon.counter("work", "done") == MESSAGES as u64);
    assert!(runs(&daemon).values().all(|attempts| *attempts == [1]), "no attempt was spent");
    assert_eq!(daemon.terminate().code(), Some(0), "{}", daemon.log_tail());
}

/// A slower worker: a kill of the daemon nearly always meets a batch at work.
const SLOW: &str = r#"#!/usr/bin/env python3
import json, os, time
folder = os.path.dirname(__file__)
requests, answers = open(3, "rb"), open(4, "wb", buffering=0)
journal = open(folder + "/journal", "ab", buffering=0)
answers.write(b'{"warrend":1}\n')
for line in requests:
    request = json.loads(line)
    for task in request["tasks"]:
        journal.write(("%s %d\n" % (task["key"], task["attempt"])).encode())
        time.sleep(0.002)
        answers.write(json.dumps({"id": request["id"], "results": [{"status": "done"}], "more": True}).encode() + b"\n")
"#;

/// `WARREND_WORKER_KILLS=50` is the long form.
#[test]
fn a_killed_daemon_repeats_at_most_what_its_workers_held() {
    const BATCH: usize = 10;
    let kills = number_from("WARREND_WORKER_KILLS", 5);
    let messages = 300 * kills;
    let vhost = Vhost::new();
    vhost.declare("work");
    vhost.publish_all("work", (0..messages).map(|n| (Vec::new(), with_id(&format!("m-{n}")))));
    let mut daemon = daemon(&vhost, SLOW, &format!("batch = {BATCH}"));
    let ran = |daemon: &Daemon| runs(daemon).values().map(Vec::len).sum::<usize>();
    for kill in 1..=kills {
        daemon.spawn(&[]);
        let enough = kill * messages / (kills + 1);
        daemon.wait_until("some have run", WORK_TIMEOUT, |daemon| ran(daemon) >= enough);
        daemon.kill9();
    }
    daemon.spawn(&["--until-empty"]);
    assert!(daemon.wait_exit(WORK_TIMEOUT).success(), "{}", daemon.log_tail());
    let all = runs(&daemon);
    assert_eq!(all.len(), messages, "none is lost");
    let again = ran(&daemon) - messages;
    // Two threads, a batch each, and as many finished tasks as wait for their record: 16 at least.
    assert!(again <= kills * 2 * (BATCH + 16), "{again} ran again after {kills} kills");
    eprintln!("{messages} messages, {kills} kills, {} lost, {again} ran again", messages - all.len());
}
