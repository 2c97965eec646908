//! The daemon is aborted inside each crash window of a message: between two steps of its way, where a random kill seldom
//! hits.
//!
//! A single message and one abort at a time, where it is known exactly what must come of it. The row `daemon-abort` of
//! tests/chaos aborts under load again and again, where every message is in another window.

use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::Daemon;
use crate::support::journal::Journal;
use crate::support::records::Records;
use crate::support::scene::{DEAD, Fate, HANDLER, QUEUE, WORK_TIMEOUT};

const VARIABLE: &str = "WARREND_FAILPOINT";

/// One abort in the life of one message.
struct Case {
    fate: Fate,
    /// `NAME:N` of the failpoint.
    abort: &'static str,
    /// How often each of its attempts runs, counted from the first one.
    runs: &'static [usize],
    /// How often it lies in the dead-letter queue.
    dead: RangeInclusive<usize>,
}

const fn case(fate: Fate, abort: &'static str, runs: &'static [usize], dead: RangeInclusive<usize>) -> Case {
    Case { fate, abort, runs, dead }
}

/// What must come of each window: before the commit the attempt runs again, after it never. A copy is doubled only
/// between its confirm and the mark that the store keeps of it, and the twin of a retry copy is dropped.
///
/// Of a success the commits are numbered 1; of a failure 1 is its record and 2 the mark. Where an abort races with the
/// mark or the ack, a dead letter may be there once or twice.
const CASES: [Case; 24] = [
    case(Fate::Plain, "before-run:1", &[1], 0..=0),
    case(Fate::Plain, "after-run:1", &[2], 0..=0),
    case(Fate::Plain, "before-commit:1", &[2], 0..=0),
    case(Fate::Plain, "after-commit:1", &[1], 0..=0),
    case(Fate::Plain, "before-ack:1", &[1], 0..=0),
    case(Fate::Plain, "after-ack:1", &[1], 0..=0),
    case(Fate::Rejected, "before-run:1", &[1], 1..=1),
    case(Fate::Rejected, "after-run:1", &[2], 1..=1),
    case(Fate::Rejected, "before-commit:1", &[2], 1..=1),
    case(Fate::Rejected, "after-commit:1", &[1], 1..=1),
    case(Fate::Rejected, "after-publish:1", &[1], 2..=2),
    case(Fate::Rejected, "before-commit:2", &[1], 1..=2),
    case(Fate::Rejected, "after-commit:2", &[1], 1..=1),
    case(Fate::Rejected, "before-ack:1", &[1], 1..=2),
    case(Fate::Rejected, "after-ack:1", &[1], 1..=2),
    case(Fate::Again, "after-run:1", &[2, 1], 0..=0),
    case(Fate::Again, "before-commit:1", &[2, 1], 0..=0),
    case(Fate::Again, "after-commit:1", &[1, 1], 0..=0),
    case(Fate::Again, "after-publish:1", &[1, 1], 0..=0),
    case(Fate::Again, "before-ack:1", &[1, 1], 0..=0),
    case(Fate::Again, "after-ack:1", &[1, 1], 0..=0),
    case(Fate::Again, "after-run:2", &[1, 2], 0..=0),
    case(Fate::Failing, "after-commit:3", &[1, 1], 1..=1),
    case(Fate::Failing, "after-publish:2", &[1, 1], 2..=2),
];

#[test]
fn each_crash_window_of_one_message_ends_as_designed() {
    no_core_files();
    let waiting = Mutex::new(CASES.iter());
    // They mostly wait: for processes that start, and for the second until a retry.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no thread panics with it").next();
                    let Some(case) = next else { return };
                    run_case(case);
                }
            });
        }
    });
}

fn run_case(case: &Case) {
    let what = format!("{} aborted at {}", case.fate.name(), case.abort);
    let vhost = Vhost::new();
    vhost.declare(QUEUE);
    let mut daemon = Daemon::new(&vhost, "");
    let journal = Journal::new(daemon.folder(), HANDLER);
    let broker = format!("urls = [{:?}]\nreconnect = {{ initial = \"50ms\", max = \"500ms\" }}", vhost.url());
    let job = format!(
        "[jobs.work]\nqueue = {QUEUE:?}\n[jobs.work.handler]\ncommand = {}\n\
         [jobs.work.retry]\nmax_attempts = 2\ninitial = \"1s\"\njitter = 0.0",
        journal.command()
    );
    daemon.set_broker(&broker);
    daemon.set_jobs(&job);
    daemon.tapped(&vhost, &[("work", QUEUE)]);
    let id = format!("{}-1", case.fate.name());
    vhost.publish(QUEUE, id.as_bytes(), with_id(&id));

    daemon.env(VARIABLE, case.abort);
    daemon.spawn(&[]);
    let status = daemon.wait_exit(WORK_TIMEOUT);
    assert_aborted(&what, status, &daemon);
    daemon.env_remove(VARIABLE);
    daemon.spawn(&["--until-empty"]);
    let status = daemon.wait_exit(WORK_TIMEOUT);
    assert_eq!(status.code(), Some(0), "{what}: {}", daemon.log_tail());

    let mut runs = vec![0; case.runs.len()];
    for (key, run) in journal.lines() {
        assert_eq!(key, id, "{what}");
        runs[run.attempt as usize - 1] += 1;
    }
    assert_eq!(runs, case.runs, "{what}: runs of each attempt");
    let dead = vhost.drain(DEAD).len();
    assert!(case.dead.contains(&dead), "{what}: {dead} dead letters");
    let done = Records::read(daemon.store_path()).done.contains(&id);
    assert_eq!(done, *case.dead.end() == 0, "{what}: done");
    assert_eq!(vhost.ready(QUEUE), Some(0), "{what}: messages in the queue");
}

fn assert_aborted(what: &str, status: ExitStatus, daemon: &Daemon) {
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{what}: {status}\n{}", daemon.log_tail());
}

/// Aborts on purpose leave nothing to look at.
fn no_core_files() {
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    setrlimit(Resource::Core, limit).expect("a limit can be lowered");
}
