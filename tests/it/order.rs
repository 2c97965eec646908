//! Which message runs next: by queue, then by priority, then by arrival.

use std::fs;
use std::path::PathBuf;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

/// A handler whose messages named `gate…` wait for a file, so that others gather behind them.
struct Gate {
    journal: Journal,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Gate {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("open");
        let then =
            format!("case $WARREND_KEY in gate*) until [ -e '{}' ]; do sleep 0.02; done ;; esac", file.display());
        Self { journal: Journal::new(folder.path(), &then), file, _folder: folder }
    }

    fn open(&self) {
        fs::write(&self.file, "").expect("the folder is writable");
    }

    /// The keys in the order of their runs, without the gate.
    fn order(&self) -> Vec<String> {
        let keys = self.journal.lines().into_iter().map(|(key, _)| key);
        keys.filter(|key| !key.starts_with("gate")).collect()
    }
}

fn wait_for_counter(daemon: &mut Daemon, name: &str, value: u64) {
    daemon.wait_until(&format!("{name} is {value}"), DAEMON_TIMEOUT, |daemon| daemon.counter("work", name) == value);
}

#[test]
fn what_is_prefetched_runs_by_priority_and_then_by_arrival() {
    let vhost = Vhost::new();
    let gate = Gate::new();
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nconcurrency = 1\nprefetch = 20\nhandler.command = {}\n",
        gate.journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    vhost.publish("work", "", with_id("gate"));
    wait_for_counter(&mut daemon, "running", 1);
    let priorities = [0, 9, 255, 1, 9, 0, 3];
    let plain = ("none-7".to_owned(), with_id("none-7"));
    let messages = (0..).zip(priorities).map(|(n, priority)| {
        let key = format!("{priority}-{n}");
        let properties = with_id(&key).with_priority(priority);
        (key, properties)
    });
    let messages = messages.chain([plain]);
    vhost.publish_all("work", messages.map(|(key, is)| (key.into_bytes(), is)));
    wait_for_counter(&mut daemon, "buffered", 8);
    gate.open();
    wait_for_counter(&mut daemon, "done", 9);
    let expect = ["255-2", "9-1", "9-4", "3-6", "1-3", "0-0", "0-5", "none-7"];
    assert_eq!(gate.order(), expect);
}

#[test]
fn a_strict_job_serves_its_first_queue_first() {
    let vhost = Vhost::new();
    let gate = Gate::new();
    let job = format!(
        "[jobs.work]\norder = \"strict\"\nconcurrency = 1\nprefetch = 20\nhandler.command = {}\n\
         queues = [{{ name = \"urgent\" }}, {{ name = \"bulk\", weight = 1000 }}]\n",
        gate.journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    vhost.publish("bulk", "", with_id("gate"));
    wait_for_counter(&mut daemon, "running", 1);
    for queue in ["bulk", "urgent"] {
        let key = |n| format!("{queue}-{n}");
        let messages = (0..5).map(|n| (Vec::new(), with_id(&key(n)).with_priority(n)));
        vhost.publish_all(queue, messages);
    }
    wait_for_counter(&mut daemon, "buffered", 10);
    gate.open();
    wait_for_counter(&mut daemon, "done", 11);
    let expect = ["urgent", "bulk"].map(|queue| [4, 3, 2, 1, 0].map(|n| format!("{queue}-{n}"))).concat();
    assert_eq!(gate.order(), expect);
}

/// With a prefetch that outlasts the pauses of a broker on a busy machine: a queue gets turns only for what is here, and
/// catches up a few turns only.
#[test]
fn weights_are_shares_of_the_runs() {
    check_shares("prefetch = 200");
}

#[test]
fn weights_are_shares_also_where_little_is_prefetched() {
    check_shares("");
}

fn check_shares(prefetch: &str) {
    const RUNS: usize = 1000;
    const WEIGHTS: [usize; 3] = [5, 3, 2];
    let vhost = Vhost::new();
    let gate = Gate::new();
    let queues: String =
        WEIGHTS.iter().map(|weight| format!("{{ name = \"w{weight}\", weight = {weight} }}, ")).collect();
    let job = format!(
        "[jobs.work]\nqueues = [{queues}]\nconcurrency = 4\n{prefetch}\nhandler.command = {}\n",
        gate.journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    for weight in WEIGHTS {
        let queue = format!("w{weight}");
        vhost.declare(&queue);
        // None runs out within the runs that are looked at.
        let messages = weight * RUNS / 10 + 200;
        let properties = |n| with_id(&format!("{queue} {n}"));
        vhost.publish_all(&queue, (0..messages).map(|n| (Vec::new(), properties(n))));
    }
    daemon.start();
    daemon.wait_until("a thousand runs", DAEMON_TIMEOUT * 3, |_| gate.journal.len() >= RUNS);
    let order = gate.order();
    for weight in WEIGHTS {
        let queue = format!("w{weight} ");
        let runs = order[..RUNS].iter().filter(|key| key.starts_with(&queue)).count();
        let share = weight * RUNS / 10;
        assert!(runs.abs_diff(share) <= share / 10, "{runs} of {RUNS} runs for weight {weight}");
    }
}
