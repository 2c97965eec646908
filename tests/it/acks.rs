//! When acknowledgements are sent: by count, by time, and at once when nothing is left to run.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::amqp::unacknowledged;
use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

/// A job for the queue `work` whose message `slow` runs until a file is there, so that the job is never idle.
struct Busy {
    // Before its vhost, as it must be dropped before that is taken from it.
    daemon: Daemon,
    vhost: Vhost,
    end: PathBuf,
    _journal: Journal,
    _folder: tempfile::TempDir,
}

impl Busy {
    fn new(ack: &str) -> Self {
        let vhost = Vhost::new();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let end = folder.path().join("end");
        let then =
            format!("if [ $WARREND_KEY = slow ]; then until [ -e '{}' ]; do sleep 0.02; done; fi", end.display());
        let journal = Journal::new(folder.path(), &then);
        let job = format!(
            "[jobs.work]\nqueue = \"work\"\nconcurrency = 2\nprefetch = 100\nack = {ack}\nhandler.command = {}\n",
            journal.command()
        );
        let mut daemon = Daemon::new(&vhost, &job);
        daemon.tapped(&vhost, &[("work", "work")]);
        daemon.start();
        vhost.publish("work", "", with_id("slow"));
        daemon.wait_until("the slow one runs", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") == 1);
        Self { vhost, daemon, end, _journal: journal, _folder: folder }
    }

    fn publish(&self, ids: std::ops::Range<u64>) {
        let messages = ids.map(|n| (Vec::new(), with_id(&n.to_string())));
        self.vhost.publish_all("work", messages);
    }

    fn wait(&mut self, name: &str, value: u64) {
        self.daemon
            .wait_until(&format!("{name} is {value}"), DAEMON_TIMEOUT, |daemon| daemon.counter("work", name) == value);
    }

    fn wait_unacknowledged(&mut self, value: u64) {
        let vhost = &self.vhost;
        let what = format!("the broker counts {value} unacknowledged messages");
        self.daemon.wait_until(&what, BROKER_TIMEOUT, |_| unacknowledged(vhost, "work") == Some(value));
    }

    /// Lets the slow one end, which leaves nothing to run: what waits is acknowledged at once, in one frame.
    fn finish(&mut self) {
        let acks = self.daemon.counter("work", "acks");
        fs::write(&self.end, "").expect("the folder is writable");
        self.wait("acks", acks + 1);
    }
}

#[test]
fn a_full_batch_is_acknowledged_before_its_interval_is_over() {
    let mut busy = Busy::new("{ batch = 4, interval = \"10s\" }");
    let began = Instant::now();
    busy.publish(0..3);
    busy.wait("done", 3);
    assert_eq!(busy.daemon.counter("work", "acks"), 0, "three of four wait");
    busy.publish(3..4);
    // The slow one is the first of its channel, so no `multiple` can reach past it.
    busy.wait("acks", 4);
    assert!(began.elapsed() < Duration::from_secs(9), "the interval of 10 s was not what sent them");
    busy.wait_unacknowledged(1);
    busy.finish();
    busy.wait_unacknowledged(0);
}

#[test]
fn an_interval_bounds_the_wait_for_company() {
    let mut busy = Busy::new("{ batch = 64, interval = \"1s\" }");
    busy.publish(0..2);
    busy.wait("done", 2);
    let done = Instant::now();
    assert_eq!(busy.daemon.counter("work", "acks"), 0, "there is room for more");
    busy.wait("acks", 2);
    let waited = done.elapsed();
    assert!((500..3000).contains(&waited.as_millis()), "the interval is 1 s, and it took {waited:?}");
    busy.wait_unacknowledged(1);
    busy.finish();
    busy.wait_unacknowledged(0);
}

#[test]
fn a_job_with_nothing_left_to_run_waits_for_no_interval() {
    let mut busy = Busy::new("{ batch = 64, interval = \"10s\" }");
    let began = Instant::now();
    busy.publish(0..2);
    busy.wait("done", 2);
    assert_eq!(busy.daemon.counter("work", "acks"), 0, "one still runs");
    busy.finish();
    assert!(began.elapsed() < Duration::from_secs(9), "the interval of 10 s was not what sent it");
}

#[test]
fn one_ack_settles_many_messages() {
    const MESSAGES: u64 = 10_000;
    let vhost = Vhost::new();
    vhost.declare("work");
    let messages = (0..MESSAGES).map(|n| (Vec::new(), with_id(&n.to_string())));
    vhost.publish_all("work", messages);
    let job = "[jobs.work]\nqueue = \"work\"\nprefetch = 1000\nack.batch = 100\nhandler.discard = true\n";
    let mut daemon = Daemon::new(&vhost, job);
    daemon.start();
    daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == MESSAGES);
    assert!(daemon.counter("work", "acks") <= MESSAGES / 20);
    // With the connection cut instead of closed in order, what was not acknowledged would come again.
    daemon.wait_until("the broker has every ack", BROKER_TIMEOUT, |_| unacknowledged(&vhost, "work") == Some(0));
    daemon.kill9();
    assert_eq!(vhost.ready("work"), Some(0));
}
