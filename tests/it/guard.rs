//! What goes wrong in one place stays there: an outage behind the handler, a message that crashes it, a run that hangs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::amqp::{integer, take, text};
use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::holds_within;
use crate::support::journal::Journal;
use crate::support::records::Records;

/// How long a load may take on a busy machine.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);

#[test]
fn an_outage_costs_a_few_attempts_and_no_message() {
    const MESSAGES: u32 = 10_000;
    let vhost = Vhost::new();
    vhost.declare("work");
    vhost.publish_all("work", (0..MESSAGES).map(|n| (Vec::new(), with_id(&format!("m{n}")))));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let outage = folder.path().join("outage");
    fs::write(&outage, "").expect("the folder is writable");
    // The cheapest handler there is: it fails while the file exists.
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nhandler.command = [\"test\", \"!\", \"-e\", {outage:?}]\n\
         kill_switch = {{ restart_after = \"1s\" }}\nretry = {{ initial = \"1s\", jitter = 0.0 }}\n"
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.spawn(&[]);
    check_outage(&vhost, &mut daemon, MESSAGES);

    fs::remove_file(&outage).expect("it is ours");
    daemon.wait_until("all are done", LOAD_TIMEOUT, |daemon| daemon.counter("work", "done") == u64::from(MESSAGES));
    let failed = daemon.counter("work", "retried");
    println!("{failed} attempts failed");
    assert!((20..=50).contains(&failed), "{failed}");
    assert_eq!(["dead", "crashed"].map(|name| daemon.counter("work", name)), [0, 0]);
    assert_eq!(daemon.run(&["status"]).status.code(), Some(0), "{}", daemon.log_tail());
    assert!(daemon.terminate().success());
    let records = Records::read(daemon.store_path());
    assert_eq!(records.done.len(), MESSAGES as usize);
    assert_eq!(records.ended.len() as u64, u64::from(MESSAGES) + failed, "each other message took one attempt");
    assert_eq!((vhost.ready("work"), vhost.ready("work.dead")), (Some(0), Some(0)));
}

/// What is said and what lies where while the job is paused.
fn check_outage(vhost: &Vhost, daemon: &mut Daemon, messages: u32) {
    let mut found = None;
    daemon.wait_until("two probes failed, and the job is paused", DAEMON_TIMEOUT, |daemon| {
        let probed = daemon.log().matches("the probe failed").count() >= 2;
        found = daemon.status().filter(|status| probed && status["jobs"]["work"]["state"] == "paused");
        found.is_some()
    });
    let status = found.expect("the wait ended with one");
    let job = &status["jobs"]["work"];
    let failed = job["retried"].as_u64().expect("a number");
    assert_eq!([&job["done"], &job["dead"]], [0, 0]);
    let problems = status["problems"].to_string();
    for part in ["job work: paused, its kill switch tripped: the probe failed: exit status 1", "it is probed in"] {
        assert!(problems.contains(part), "{problems}");
    }
    let log = daemon.log();
    assert!(log.contains("20 of 20 attempts failed within 60s, the last one: exit status 1"), "{log}");
    assert_eq!(daemon.run(&["status"]).status.code(), Some(1));
    // Those that failed may be back from the delay ladder.
    daemon.wait_until("the messages are back in their queue", BROKER_TIMEOUT, |_| {
        vhost.ready("work").is_some_and(|ready| u64::from(ready) >= u64::from(messages) - failed)
    });
}

#[test]
fn a_message_that_crashes_the_handler_harms_no_other() {
    const MESSAGES: usize = 1000;
    const POISON: &str = "m500";
    let vhost = Vhost::new();
    vhost.declare("work");
    let ids: Vec<String> = (0..MESSAGES).map(|n| format!("m{n}")).collect();
    vhost.publish_all("work", ids.iter().map(|id| (Vec::new(), with_id(id))));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), &format!("[ $WARREND_KEY != {POISON} ] || kill -SEGV $$"));
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nhandler.command = {}\nkill_switch = {{}}\n\
         retry = {{ initial = \"1s\", multiplier = 1.0, jitter = 0.0, max_attempts = 1, max_crashes = 3 }}\n",
        journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    daemon.wait_until("all but one are done, and that one is dead", LOAD_TIMEOUT, |daemon| {
        daemon.counter("work", "done") == MESSAGES as u64 - 1 && vhost.ready("work.dead") == Some(1)
    });
    let expect: BTreeMap<&str, Vec<u32>> =
        ids.iter().map(|id| (id.as_str(), if id == POISON { vec![1, 2, 3] } else { vec![1] })).collect();
    let runs = journal.runs();
    let attempts: BTreeMap<&str, Vec<u32>> =
        runs.iter().map(|(key, runs)| (key.as_str(), runs.iter().map(|run| run.attempt).collect())).collect();
    assert_eq!(attempts, expect);
    let counted = ["crashed", "retried", "dead", "requeued", "duplicates"].map(|name| daemon.counter("work", name));
    assert_eq!(counted, [3, 2, 1, 0, 0], "nothing was handed back or run again for its sake");
    assert_eq!(daemon.status().expect("it runs")["healthy"], true);
    let letter = take(&vhost, "work.dead");
    assert_eq!(letter.properties.message_id().as_deref(), Some(POISON));
    assert_eq!(text(&letter, "x-warrend-error-class"), "crashed");
    assert!(text(&letter, "x-warrend-error").starts_with("killed by SIGSEGV (signal 11)"));
    assert_eq!(integer(&letter, "x-warrend-crashes"), 3);
}

/// Half of the grandchildren stay in the process group of their program, the others leave it for a session of their own.
/// Each has a child too, so that a hundred runs leave four hundred processes to end.
const HANGS: &str = r#"
trap '' TERM HUP
case $WARREND_KEY in *[02468]) leave=setsid ;; *) leave= ;; esac
$leave /bin/sh -c 'trap "" TERM HUP; sleep 1000 & echo "$1 $$ $!" >>"$2/pids"; while :; do sleep 1000; done' \
    grandchild "$WARREND_KEY" "$FOLDER" &
while :; do sleep 1000; done"#;

#[test]
fn nothing_of_a_run_that_hangs_outlives_its_timeout() {
    const MESSAGES: usize = 100;
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), HANGS);
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nconcurrency = 10\nretry.max_attempts = 1\n\
         [jobs.work.handler]\ncommand = {}\ntimeout = \"1s\"\nkill_grace = \"100ms\"\nenv = {{ FOLDER = {:?} }}\n",
        journal.command(),
        folder.path()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    vhost.publish_all("work", (0..MESSAGES).map(|n| (Vec::new(), with_id(&format!("m{n}")))));
    let mut checked = 0;
    // While others run: what a dead letter stands for is over when it is there.
    while checked < MESSAGES {
        daemon.wait_until("the next one is dead", LOAD_TIMEOUT, |_| vhost.ready("work.dead").is_some_and(|n| n > 0));
        for letter in vhost.drain("work.dead") {
            let key = letter.properties.message_id().clone().expect("ours have an id");
            assert_eq!(text(&letter, "x-warrend-error-class"), "timeout", "{key}");
            let alive: Vec<String> = pids(folder.path(), &journal, &key).into_iter().filter_map(command_line).collect();
            assert!(alive.is_empty(), "of {key} live: {alive:?}");
            checked += 1;
        }
    }
    // Not by chance: they were there.
    let grandchildren = fs::read_to_string(folder.path().join("pids")).expect("they wrote it").lines().count();
    assert!(grandchildren > MESSAGES * 9 / 10, "{grandchildren} of {MESSAGES} runs came so far");
    let ended = holds_within(DAEMON_TIMEOUT, || !names_folder(folder.path()));
    assert!(ended, "a process that names the folder lives, {}", daemon.log_tail());
    assert_eq!(daemon.counter("work", "dead"), MESSAGES as u64);
}

/// The program of a key, its grandchild and the child of that, as far as they came to write themselves down.
fn pids(folder: &Path, journal: &Journal, key: &str) -> Vec<u32> {
    let own = journal.lines().into_iter().filter(|(of, _)| of == key).map(|(_, run)| run.pid);
    let text = fs::read_to_string(folder.join("pids")).unwrap_or_default();
    let mine = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let others = mine.flat_map(|pids| pids.split(' ')).map(|pid| pid.parse().expect("the handler wrote a number"));
    own.chain(others).collect()
}

/// The command line of a process that lives; a zombie has none. The kernel may have given the number to a process of
/// somebody else meanwhile, which is none of ours.
fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
    let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
    (line.contains("handler.sh") || line.contains("grandchild") || line.starts_with("sleep 1000")).then_some(line)
}

/// Whether the command line of any process names the folder of the handler, as those of programs and grandchildren do.
fn names_folder(folder: &Path) -> bool {
    let folder = folder.as_os_str().as_encoded_bytes();
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    let lines = entries.flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.into_iter().any(|line| line.windows(folder.len()).any(|part| part == folder))
}
