//! What people have the daemon do: each order goes to the thread that owns what it changes, and is answered when that is done.

use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::{Order, PATIENCE, Panel, PanelJob, Question, SILENT_RECORDER, ask, wait};
use crate::job::Command;
use crate::report;
use crate::store::{self, Act, Deed, Pause, StoreError};
use crate::task::{MessageKey, UnixMillis};
use crate::who::Who;

/// How long the files of the configuration may take to be read and judged.
const READING: Duration = Duration::from_secs(10);

impl Panel {
    /// Has the configuration read anew, or only said what that would change. What follows is seen in the status.
    pub fn reload(&self, only_asks: bool, by: Who) -> Result<report::Reload, String> {
        let answer = ask(&self.main, |reply| Question::Reload(Order { only_asks, by, reply: Some(reply) }));
        answer.recv_deadline(Instant::now() + READING).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                "the files of the configuration could not be read in time: is their disk well?".to_owned()
            }
            RecvTimeoutError::Disconnected => {
                "warrend takes no reload now: it is stopping, or has too much to answer".to_owned()
            }
        })
    }

    /// Pauses a job by hand. Remembered before it is done, so that it outlives the daemon.
    pub fn pause(&self, name: &str, reason: Option<String>, by: Who) -> Result<(), Refusal> {
        let pause = Pause { reason: reason.clone(), by: by.to_string(), since: UnixMillis::now() };
        self.set_pause(name, Some(pause), Deed { detail: reason, ..Deed::new(by, Act::Paused) })
    }

    /// Lets it go on.
    pub fn resume(&self, name: &str, by: Who) -> Result<(), Refusal> {
        self.set_pause(name, None, Deed::new(by, Act::Resumed))
    }

    fn set_pause(&self, name: &str, pause: Option<Pause>, deed: Deed) -> Result<(), Refusal> {
        let id = named(&self.jobs()?, name)?.id;
        let deed = deed.to(name);
        let remembered = ask(&self.recorder, |reply| store::Request::Pause(id, pause.clone(), deed, reply));
        match wait(&remembered, Instant::now() + PATIENCE) {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(error.into()),
            // It may still write it down, when the disk is well again.
            None => {
                return Err(Refusal::of_store(format!("{SILENT_RECORDER}; see `warrend status` before you try again")));
            }
        }
        // Asked anew: a job that has started since then may have read what was remembered before.
        let jobs =
            self.jobs().map_err(|why| format!("it is remembered for the next start of job {name}, but {why}"))?;
        // One that is between its end and its start will read what is remembered now.
        let Some(job) = jobs.iter().find(|job| *job.name == *name) else { return Ok(()) };
        // A job that waits for its broker takes it up when it is done with that.
        job.commands.send_timeout(Command::Pause(pause), PATIENCE).map_err(|_| {
            format!("job {name} does not answer: it waits for RabbitMQ or for the disk; its next start will do it")
                .into()
        })
    }

    /// Has a key forgotten, or all keys of a job, unless they are in flight. The job need not run here.
    pub fn forget(&self, name: &str, key: Option<MessageKey>, by: Who) -> Result<report::Upkeep, Refusal> {
        let until = Instant::now() + PATIENCE;
        if let Some(job) = self.jobs()?.iter().find(|job| *job.name == *name) {
            let in_flight = ask(&job.commands, |reply| Command::Forget(key.clone(), reply));
            match wait(&in_flight, until) {
                Some(0) => {}
                Some(_) if key.is_some() => {
                    let text = format!("it is in flight in job {name}: `warrend explain` says where; try again later");
                    return Err(text.into());
                }
                Some(messages) => {
                    let text = format!("job {name} has {messages} messages in flight: `warrend pause {name}` first");
                    return Err(text.into());
                }
                None => return Err(format!("job {name} does not answer: it waits for RabbitMQ or for the disk").into()),
            }
        }
        let done = ask(&self.recorder, |reply| store::Request::Forget(name.to_owned(), key, by, reply));
        match wait(&done, Instant::now() + PATIENCE) {
            Some(done) => done.map(upkeep).map_err(no_room),
            None => Err(Refusal::of_store(SILENT_RECORDER)),
        }
    }

    /// Has forgotten what is over, and room given back, for somebody; without one says how far that is.
    pub fn upkeep(&self, by: Option<Who>) -> Result<report::Upkeep, Refusal> {
        let done = ask(&self.recorder, |reply| store::Request::Upkeep(by, reply));
        match wait(&done, Instant::now() + PATIENCE) {
            Some(done) => done.map(upkeep).map_err(no_room),
            None => Err(Refusal::of_store(SILENT_RECORDER)),
        }
    }

    /// Writes into the audit trail what somebody did elsewhere.
    pub fn note(&self, deed: Deed) -> Result<(), Refusal> {
        let done = ask(&self.recorder, |reply| store::Request::Note(deed, reply));
        match wait(&done, Instant::now() + PATIENCE) {
            Some(done) => done.map_err(Refusal::from),
            None => Err(Refusal::of_store(SILENT_RECORDER)),
        }
    }
}

fn no_room(error: StoreError) -> Refusal {
    error.while_forgetting().into()
}

/// Why an order was not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// In a sentence.
    pub why: String,
    /// Whether it was the store that could not be written.
    pub is_of_store: bool,
}

impl Refusal {
    fn of_store(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_of_store: true }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::of_store(error.to_string())
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, is_of_store: false }
    }
}

fn upkeep(upkeep: store::Upkeep) -> report::Upkeep {
    let store::Upkeep { forgotten, given_back, done } = upkeep;
    report::Upkeep { forgotten, given_back, finished: done }
}

fn named<'a>(jobs: &'a [PanelJob], name: &str) -> Result<&'a PanelJob, String> {
    jobs.iter().find(|job| *job.name == *name).ok_or_else(|| {
        let names: Vec<_> = jobs.iter().map(|job| &*job.name).collect();
        format!("no job {name:?} runs here; there are: {}", names.join(", "))
    })
}
