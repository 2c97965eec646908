//! A broken handler is not a bad message: its job pauses, the messages stay, and a probe finds out when it works again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

/// More than a job buffers, many times over.
const MESSAGES: u32 = 1000;

/// User and system time of a process so far. The kernel counts in 1/100 s towards programs (`USER_HZ`).
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, fields) = stat.rsplit_once(')').expect("the name stands in brackets");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number of ticks")).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_missing_program_pauses_its_job_until_it_is_there() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let ids = (0..MESSAGES).map(|n| n.to_string());
    vhost.publish_all("work", ids.map(|id| (Vec::new(), with_id(&id))));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), "");
    let program = folder.path().join("late");
    let jobs = format!(
        "[jobs.work]\nqueue = \"work\"\nhandler.command = [{program:?}]\n\
         [jobs.other]\nqueue = \"other\"\nhandler.discard = true\n"
    );
    let mut daemon = Daemon::new(&vhost, &jobs);
    daemon.spawn(&[]);
    daemon.wait_until("the job is paused", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["state"] == "paused")
    });
    let pid = daemon.pid().expect("it runs");
    let (paused, used) = (Instant::now(), cpu(pid));
    check_pause(&vhost, &mut daemon, &program.display().to_string());

    let script = journal.command().replace(['[', ']', ',', '"'], "");
    fs::write(&program, format!("#!/bin/sh\nexec {script}\n")).expect("the folder is writable");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    // The log is looked at instead of the status, which would cost the daemon time.
    daemon.wait_until("the handler is probed", DAEMON_TIMEOUT, |daemon| daemon.log().contains("probing the handler"));
    let (paused, used) = (paused.elapsed(), cpu(pid) - used);
    assert!(paused > Duration::from_secs(4), "{paused:?}");
    // 2 % is the promise; the kernel counts in steps of 10 ms, and the checks above asked the daemon for its status.
    println!("{used:?} of CPU in {paused:?} of pause");
    assert!(used < paused / 10, "{used:?} of {paused:?} while it waits");
    daemon
        .wait_until("all are done", DAEMON_TIMEOUT * 2, |daemon| daemon.counter("work", "done") == u64::from(MESSAGES));
    let runs = journal.runs();
    assert_eq!(runs.len(), MESSAGES as usize);
    let first = |runs: &Vec<crate::support::journal::Run>| runs.len() == 1 && runs[0].attempt == 1;
    assert!(runs.values().all(first), "no attempt was spent: {runs:?}");
    let status = daemon.status().expect("it runs");
    assert_eq!(status["healthy"], true, "{status:#}");
    assert_eq!(status["jobs"]["work"]["state"], "running");
    assert_eq!(daemon.run(&["status"]).status.code(), Some(0));
}

/// While the job is paused nothing runs, nothing is lost, everything says so, and the other job works.
fn check_pause(vhost: &Vhost, daemon: &mut Daemon, program: &str) {
    daemon.wait_until("all messages are back", BROKER_TIMEOUT, |_| {
        vhost.ready("work") == Some(MESSAGES) && vhost.consumers("work") == Some(0)
    });
    let status = daemon.status().expect("it runs");
    assert_eq!(status["healthy"], false);
    let job = &status["jobs"]["work"];
    let reason = job["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(program), "{reason:?} names the program");
    let problems = status["problems"].to_string();
    assert!(problems.contains("job work: paused") && problems.contains("it is probed in"), "{problems}");
    assert!(problems.contains("install it, or mend `command`"), "it says what to do: {problems}");
    for name in ["done", "dead", "retried", "crashed"] {
        assert_eq!(job[name], 0, "{name}");
    }
    let text = daemon.run(&["status"]);
    assert_eq!(text.status.code(), Some(1));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("degraded") && text.contains("paused"), "{text}");
    vhost.publish("other", "", with_id("a"));
    daemon.wait_until("the other job works", DAEMON_TIMEOUT, |daemon| daemon.counter("other", "done") == 1);
    assert_eq!(vhost.ready("work.dead"), Some(0));
}

#[test]
fn a_handler_that_says_it_is_broken_pauses_too() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), "echo 'no database' >&2; exit 78");
    let job = format!("[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n", journal.command());
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    vhost.publish("work", "", with_id("a"));
    daemon.wait_until("the job is paused", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["state"] == "paused")
    });
    let status = daemon.status().expect("it runs");
    let reason = status["jobs"]["work"]["reason"].to_string();
    assert!(reason.contains("no database"), "{reason}");
    daemon.wait_until("the message is back", BROKER_TIMEOUT, |_| vhost.ready("work") == Some(1));
    assert!(daemon.terminate().success(), "a paused job drains too");
    assert_eq!(journal.attempts("a"), [1]);
}

/// The soft limit is for programs that call `select`: the daemon goes up to the hard one, and its handlers do not.
#[test]
fn a_low_soft_limit_on_open_files_is_the_handlers_alone() {
    const HANDLERS: usize = 30;
    let vhost = Vhost::new();
    vhost.declare("work");
    let mut daemon = Daemon::new(&vhost, "");
    // Each takes about five descriptors of the daemon.
    let journal = Journal::new(daemon.folder(), "[ \"$(ulimit -n)\" = 64 ] || exit 65; sleep 0.3");
    daemon.set_jobs(&format!(
        "[jobs.work]\nqueue = \"work\"\nconcurrency = {HANDLERS}\n[jobs.work.handler]\ncommand = {}",
        journal.command()
    ));
    daemon.set_limits("-S -n 64");
    vhost.publish_all("work", (0..HANDLERS).map(|n| (Vec::new(), with_id(&n.to_string()))));
    daemon.spawn(&["--until-empty"]);
    assert!(daemon.wait_exit(DAEMON_TIMEOUT).success(), "{}", daemon.log_tail());
    assert!(!daemon.log().contains("open files"), "{}", daemon.log_tail());
    assert_eq!((journal.len(), vhost.ready("work.dead")), (HANDLERS, Some(0)), "{}", daemon.log_tail());
}
