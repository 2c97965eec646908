//! A daemon whose handlers run as long as the test wants.

use std::fs;
use std::path::PathBuf;

use super::broker::{BROKER_TIMEOUT, Vhost, with_id};
use super::daemon::{DAEMON_TIMEOUT, Daemon};
use super::journal::Journal;

/// A daemon with one job `work` whose messages named `slow…` run until a file is there.
pub struct Slow {
    /// Before its vhost: it is to end before that is gone.
    pub daemon: Daemon,
    pub vhost: Vhost,
    pub journal: Journal,
    end: PathBuf,
    _folder: tempfile::TempDir,
}

impl Slow {
    /// `job` stands in `[jobs.work]`, and other tables may follow it.
    pub fn new(job: &str) -> Self {
        let vhost = Vhost::new();
        vhost.declare("work");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let end = folder.path().join("end");
        let then = format!("case $WARREND_KEY in slow*) until [ -e '{}' ]; do sleep 0.02; done ;; esac", end.display());
        let journal = Journal::new(folder.path(), &then);
        let job = format!("[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n{job}\n", journal.command());
        let daemon = Daemon::new(&vhost, &job);
        Self { daemon, vhost, journal, end, _folder: folder }
    }

    pub fn publish(&self, ids: impl IntoIterator<Item = String>) {
        self.vhost.publish_all("work", ids.into_iter().map(|id| (Vec::new(), with_id(&id))));
    }

    pub fn let_slow_ones_end(&self) {
        fs::write(&self.end, "").expect("the folder is writable");
    }

    pub fn wait(&mut self, name: &str, value: u64) {
        let what = format!("{name} is {value}");
        self.daemon.wait_until(&what, DAEMON_TIMEOUT, |daemon| daemon.counter("work", name) == value);
    }

    pub fn wait_ready(&mut self, messages: u32) {
        let vhost = &self.vhost;
        let what = format!("{messages} messages are ready in the queue");
        self.daemon.wait_until(&what, BROKER_TIMEOUT, |_| vhost.ready("work") == Some(messages));
    }

    /// Starts the daemon again and lets it work off everything.
    pub fn finish(&mut self) {
        self.let_slow_ones_end();
        self.daemon.spawn(&["--until-empty"]);
        assert!(self.daemon.wait_exit(DAEMON_TIMEOUT).success());
    }

    /// No message ran a second time, and each run was a first attempt.
    pub fn assert_one_first_attempt_each(&self, messages: usize) {
        let runs = self.journal.runs();
        assert_eq!(runs.len(), messages, "{runs:?}");
        let once = runs.values().all(|runs| runs.len() == 1 && runs[0].attempt == 1);
        assert!(once, "{runs:?}");
    }

    /// Writes the job's part of the configuration anew; nothing is reloaded.
    pub fn change(&mut self, from: &str, to: &str) {
        let jobs = self.daemon.jobs();
        assert!(jobs.contains(from), "{jobs}");
        self.daemon.set_jobs(&jobs.replace(from, to));
    }

    /// Each message ran, and none a second time.
    pub fn assert_each_ran_once(&self, messages: usize) {
        let runs = self.journal.runs();
        assert!(runs.len() == messages && runs.values().all(|runs| runs.len() == 1), "{runs:?}");
    }
}
