//! The end: threads are told in the order that loses nothing, each waited for with a bound.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::{Daemon, DaemonError, Signal, Wake};
use crate::job::{self, Command};
use crate::store;
use crate::web::Web;

/// While jobs drain, `main` looks at least this often how far they are.
const ENDING: Duration = Duration::from_millis(50);
/// After a drain's own deadlines: a thread that is not done by then never will be. The jobs have it first, then the publisher.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// The same for the threads that answer questions and tell of alerts, all of them together.
pub const ASKERS_PATIENCE: Duration = Duration::from_secs(3);

impl Daemon {
    /// Lets running handlers finish, then ends everything.
    pub(super) fn stop(mut self) -> Result<(), DaemonError> {
        let mut until = Instant::now() + self.config.shutdown.timeout;
        self.stopping = true;
        self.watchdog.stopping();
        // What a daemon that stops says of itself is nothing to be told of.
        self.alerts.end();
        info!("stopping: running handlers have {} s to finish", self.config.shutdown.timeout.as_secs());
        self.crew.disband();
        let (mut hurried, mut failed) = (false, Ok(()));
        while let Some(straggler) = self.crew.straggler() {
            self.crew.tell(|| if hurried { Command::Hurry } else { Command::Drain(until) });
            let ended = match self.wake(ENDING) {
                Wake::Signal(Signal::Stop) => {
                    warn!("a second signal: running handlers are ended now");
                    (until, hurried) = (Instant::now(), true);
                    self.crew.disband();
                    Ok(())
                }
                Wake::Signal(Signal::Gone { name, .. }) if name == "recorder" => {
                    return Err(self.tell_end(DaemonError::Ended(name)));
                }
                Wake::Signal(Signal::Gone { thread, .. }) => self.crew.on_gone(thread, &mut self.watchdog.beats),
                Wake::Signal(Signal::Reload | Signal::Judged(_)) | Wake::Time => Ok(()),
                Wake::Asked(question) => {
                    self.on_question(question);
                    Ok(())
                }
            };
            // The others get their time all the same.
            failed = failed.and(ended).and(self.crew.reap(&mut self.watchdog.beats));
            self.watchdog.feed();
            if Instant::now() > until + job::LAST_WORDS + JOIN_PATIENCE {
                return Err(DaemonError::Hung(straggler));
            }
        }
        self.crew.close(Instant::now() + JOIN_PATIENCE);
        // Whoever asked, or waits for a reload, gets no answer any more and need not wait for one.
        drop((self.questions, self.reloads, self.inbox));
        let mut askers = vec![self.control.stop(), self.alerts.into_thread()];
        askers.extend(self.web.into_iter().flat_map(Web::stop));
        join_by(askers, Instant::now() + ASKERS_PATIENCE);
        // It commits what it has. One that has ended already said why.
        let _ = self.recorder.requests.send(store::Request::End);
        failed?;
        match self.recorder.thread.join() {
            Ok(recorded) => recorded?,
            Err(_) => return Err(DaemonError::Ended("recorder".to_owned())),
        }
        info!("stopped");
        Ok(())
    }
}

/// Waits for threads that were told to end. They only answer and tell: a slow client, or a file on a dead disk, does not keep
/// the daemon.
fn join_by(threads: Vec<JoinHandle<()>>, deadline: Instant) {
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(ENDING);
        }
        if thread.is_finished() {
            // One that panicked has told of it.
            let _ = thread.join();
        } else {
            warn!("the thread {} does not end in time, and is left", thread.thread().name().unwrap_or("?"));
        }
    }
}
