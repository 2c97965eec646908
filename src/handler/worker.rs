//! `worker`: a long-lived process for each worker thread, which gets tasks in batches.
//!
//! Requests come on its descriptor 3, answers go to its descriptor 4, one JSON object a line. Its stdin is empty; stdout
//! and stderr are logs and cannot break the framing. A whole conversation (`>` is what the process reads):
//!
//! ```text
//! < {"warrend":1}
//! > {"id":1,"tasks":[{"key":"a","attempt":1,"queue":"mails","routing_key":"mails","headers":{},"body":"…", …}]}
//! < {"id":1,"results":[{"status":"done"}]}
//! > {"id":2,"tasks":[{…},{…},{…}]}
//! < {"id":2,"results":[{"status":"done"}],"more":true}
//! < {"id":2,"results":[{"status":"retry","delay":"10s","error":"busy"},{"status":"dead","error":"no such address"}]}
//! ```
//!
//! The hello comes within ten seconds of the start. When descriptor 3 ends, the process ends. `request` says what is
//! in a task, `results` what a result may be.
//!
//! | What the process does | What becomes of the tasks | And of the process |
//! | --- | --- | --- |
//! | gives no result, or one that cannot be read | that task failed | goes on |
//! | ends with status 78, or without a hello | broken | the job pauses |
//! | ends, or breaks the protocol | the first without a result crashed, the rest is handed back | replaced, after a delay |
//! | is silent beyond `timeout` | the first without a result timed out, the rest is handed back | TERM, KILL, replaced |
//! | ends before it reads the request | none began: they run in the next process | replaced |
//!
//! A result counts whenever it comes, also between TERM and the end: it is what became of the task.
//!
//! The process is started with the first batch, not with the job: a hundred jobs without messages cost no processes, and a
//! program that cannot work is found by the message (the probe, when the job was paused) that needs it. The price is its
//! start-up time, once. For the same reason a process that ended is replaced when the next batch comes.
//!
//! `max_tasks`, `max_memory` and `max_age` are looked at after each batch, and the age before it too. The request pipe is
//! closed then, and the process has until the next batch to end, at least `kill_grace`.

mod exchange;
mod lines;
mod logs;
mod process;
mod request;
mod restart;
mod results;
#[cfg(test)]
mod tests;

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::exchange::{Exchange, LAST_READS, Trouble};
use self::lines::{Filled, Lines};
use self::process::{Ended, NoStart, Process, STOP_GRACE};
use self::request::Request;
pub use self::restart::Restart;
use self::results::Results;
use super::process::spawn::Program;
use super::process::{BROKEN, STOPPED, killed_by, with_stderr};
use super::{Context, Input, Stop};
use crate::policy::backoff::Backoff;
use crate::task::{Answer, ErrorClass, Exit, Failure, Outcome};
use crate::{config, failpoint};

/// How long a process may take from its start to its hello.
const HELLO: Duration = Duration::from_secs(10);
/// The delays before a process that failed is replaced.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Why the rest of a batch is handed back.
const SPOILT: &str = "the worker process was ended over an earlier task of its batch";

/// Runs the batches of one worker thread in a process of its own.
#[derive(Debug)]
pub struct WorkerHandler {
    pub(super) context: Arc<Context>,
    config: config::Worker,
    /// Or what is wrong with its configuration, said at each run.
    program: Result<Program, String>,
    hello_limit: Duration,
    process: Option<Process>,
    /// A process that gets no more requests, and when TERM follows.
    leaving: Option<(Process, Instant)>,
    backoff: Backoff,
    /// No process is started before.
    not_before: Option<Instant>,
    /// Of the last request.
    id: u64,
    /// The request's buffer, used again and again.
    buffer: Vec<u8>,
    restarts: Vec<Restart>,
}

/// A batch of which no task has begun: why.
struct NotBegun(String);

impl WorkerHandler {
    /// Prepares what is the same for every process; starts none.
    pub fn new(config: &config::Worker, context: Arc<Context>) -> Self {
        Self {
            context,
            program: Program::new(&config.program, "worker"),
            config: config.clone(),
            hello_limit: HELLO,
            process: None,
            leaving: None,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
            not_before: None,
            id: 0,
            buffer: Vec::new(),
            restarts: Vec::new(),
        }
    }

    /// Runs a batch; see [`super::Handler::run`].
    pub fn run(&mut self, inputs: &[Input<'_>], stop: &Stop) -> Vec<Answer> {
        let mut before = None;
        loop {
            let process = match self.process(stop) {
                Ok(process) => process,
                Err(outcome) => return vec![outcome.into(); inputs.len()],
            };
            match (self.exchange(process, inputs, stop), before) {
                (Ok(answers), _) => return answers,
                (Err(NotBegun(why)), None) => before = Some(why),
                // Nothing but the process itself can be the reason.
                (Err(NotBegun(why)), Some(_)) => {
                    let broken = format!("a worker said hello and took no request, twice in a row: {why}");
                    return vec![Outcome::Broken(broken).into(); inputs.len()];
                }
            }
        }
    }

    /// Why processes were given up since this was last asked.
    pub fn take_restarts(&mut self) -> Vec<Restart> {
        std::mem::take(&mut self.restarts)
    }

    /// The process for the next batch, or what becomes of the batch without one.
    fn process(&mut self, stop: &Stop) -> Result<Process, Outcome> {
        if let Some(process) = self.process.take() {
            let ready = process.wait(Some(stop), false, Instant::now());
            if ready.stopped {
                self.process = Some(process);
                return Err(Outcome::NotBegun);
            }
            if ready.ended || ready.answers {
                self.lost_idle(process)?;
            } else if self.config.max_age.is_some_and(|most| process.age() >= most) {
                self.dismiss(process, Restart::MaxAge);
            } else {
                return Ok(process);
            }
        }
        if let Some((process, term_at)) = self.leaving.take() {
            process.part(term_at, self.config.program.kill_grace, Some(stop), |_| false);
        }
        self.wait_for_turn(stop)?;
        let program = self.program.as_ref().map_err(|error| Outcome::Broken(error.clone()))?;
        Process::start(program, &self.context, self.hello_limit, stop).map_err(|error| match error {
            NoStart::Broken(reason) => Outcome::Broken(reason),
            NoStart::Stopped => Outcome::NotBegun,
        })
    }

    /// A process ended, or said something, while it owed nothing. No task is charged for it.
    fn lost_idle(&mut self, process: Process) -> Result<(), Outcome> {
        let by_itself = process.ends_now();
        let ended = process.end();
        let code = ended.status.filter(|_| by_itself).map(|status| status.code());
        match code {
            Some(Some(BROKEN)) => return Err(self.cannot_work(&ended)),
            // It replaces itself after some tasks, as some worker libraries do: that is no failure.
            Some(Some(0)) => self.restarts.push(Restart::Exited),
            Some(_) => self.failed(Restart::Exited),
            None => self.failed(Restart::Protocol),
        }
        log::debug!(job = &*self.context.job; "job {}: a worker process ended between two batches", self.context.job);
        Ok(())
    }

    /// Waits until a process may be started again.
    fn wait_for_turn(&mut self, stop: &Stop) -> Result<(), Outcome> {
        loop {
            let left = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            let timeout = Timespec::try_from(left).expect("a few seconds fit");
            match poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => {
                    self.not_before = None;
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return Err(Outcome::NotBegun),
            }
        }
    }

    /// Runs a batch in this process.
    fn exchange(&mut self, mut process: Process, inputs: &[Input<'_>], stop: &Stop) -> Result<Vec<Answer>, NotBegun> {
        self.id += 1;
        let context = Arc::clone(&self.context);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut exchange = Exchange {
            request: Request::new(self.id, inputs, &context, &mut buffer),
            results: Results::new(self.id, inputs.len(), &context),
        };
        process.tasks += inputs.len() as u64;
        let deadline = Instant::now() + self.config.program.timeout;
        let attended = exchange.attend(&mut process, deadline, stop);
        failpoint::hit("worker-answered");
        let answers = match attended {
            Ok(()) => {
                self.backoff.reset();
                let answers = exchange.results.answers;
                self.keep(process);
                Ok(answers)
            }
            Err(trouble) => self.give_up(process, exchange, &trouble, stop),
        };
        if buffer.capacity() <= request::KEPT {
            self.buffer = buffer;
        }
        answers
    }

    /// After a batch that went well: keeps the process for the next, or lets it leave.
    fn keep(&mut self, mut process: Process) {
        process.answers.shrink();
        let config = &self.config;
        let due = if config.max_tasks.is_some_and(|most| process.tasks >= most) {
            Some(Restart::MaxTasks)
        } else if config.max_age.is_some_and(|most| process.age() >= most) {
            Some(Restart::MaxAge)
        } else if config.max_memory.is_some_and(|most| process.resident() >= Some(most)) {
            Some(Restart::MaxMemory)
        } else {
            None
        };
        match due {
            None => self.process = Some(process),
            Some(reason) => self.dismiss(process, reason),
        }
    }

    fn dismiss(&mut self, mut process: Process, reason: Restart) {
        log::debug!(job = &*self.context.job; "job {}: a worker process is replaced ({})", self.context.job, reason.as_str());
        self.restarts.push(reason);
        process.close_requests();
        self.leaving = Some((process, Instant::now() + self.config.program.kill_grace));
    }

    /// After a batch that did not go well: ends the process, and answers for the tasks that have no result.
    fn give_up(
        &mut self,
        mut process: Process,
        mut exchange: Exchange<'_>,
        trouble: &Trouble,
        stop: &Stop,
    ) -> Result<Vec<Answer>, NotBegun> {
        let unread = process.requests().is_some_and(|pipe| exchange.request.is_unread(pipe));
        let grace = self.config.program.kill_grace;
        let now = Instant::now();
        let mut listen =
            |answers: &mut Lines| exchange.pull(answers, LAST_READS).is_ok_and(|filled| filled != Filled::End);
        let ended = match trouble {
            Trouble::Ended => {
                listen(&mut process.answers);
                process.end()
            }
            Trouble::Protocol(_) => process.end(),
            Trouble::Late => process.part(now, grace, Some(stop), listen),
            Trouble::Stopped => process.part(now, grace.min(STOP_GRACE), None, listen),
        };
        let results = exchange.results;
        if !results.answers.is_empty() {
            self.backoff.reset();
        }
        self.judge(results, trouble, &ended, unread)
    }

    /// What becomes of the batch of a process that was given up.
    fn judge(
        &mut self,
        results: Results<'_>,
        trouble: &Trouble,
        ended: &Ended,
        unread: bool,
    ) -> Result<Vec<Answer>, NotBegun> {
        let not_begun = unread && results.answers.is_empty();
        let complete = results.is_complete();
        let wanted = results.wanted();
        let mut answers = results.answers;
        let rest = match trouble {
            Trouble::Stopped if not_begun => Outcome::NotBegun,
            Trouble::Stopped => Outcome::Interrupted(STOPPED),
            Trouble::Late => {
                self.failed(Restart::Timeout);
                let said = format!("the worker gave no result within {:?}", self.config.program.timeout);
                answers.extend((!complete).then(|| failure(ErrorClass::Timeout, &said, ended)));
                if not_begun { Outcome::NotBegun } else { Outcome::Interrupted(SPOILT) }
            }
            Trouble::Ended if ended.status.is_some_and(|status| status.code() == Some(BROKEN)) => {
                self.cannot_work(ended)
            }
            Trouble::Ended => {
                self.failed(if complete || not_begun { Restart::Exited } else { Restart::Crashed });
                let said = how(ended);
                if not_begun {
                    return Err(NotBegun(with_stderr(&said, &ended.stderr)));
                }
                let status = ended.status;
                let exit =
                    status.and_then(|status| status.code().map(Exit::Code).or(status.signal().map(Exit::Signal)));
                let crash = || Answer { exit, ..failure(ErrorClass::Crashed, &said, ended) };
                answers.extend((!complete).then(crash));
                Outcome::Interrupted(SPOILT)
            }
            Trouble::Protocol(what) => {
                self.failed(Restart::Protocol);
                let said = format!("the worker broke the protocol: {what}");
                log::warn!(job = &*self.context.job; "job {}: {said}", self.context.job);
                if not_begun {
                    return Err(NotBegun(with_stderr(&said, &ended.stderr)));
                }
                answers.extend((!complete).then(|| failure(ErrorClass::Crashed, &said, ended)));
                Outcome::Interrupted(SPOILT)
            }
        };
        answers.resize(wanted, rest.into());
        Ok(answers)
    }

    /// Counts a process that failed; the next one starts a little later each time, until a task gets its result.
    fn failed(&mut self, reason: Restart) {
        self.restarts.push(reason);
        self.not_before = Some(Instant::now() + self.backoff.next_bound());
    }

    fn cannot_work(&self, ended: &Ended) -> Outcome {
        let name = self.config.program.argv.first().map_or("", String::as_str);
        let said = format!("worker `{name}` says that it cannot work (exit status {BROKEN})");
        Outcome::Broken(with_stderr(&said, &ended.stderr))
    }
}

impl Drop for WorkerHandler {
    /// When the job ends: the process has a moment to see the end of its requests, and another after TERM.
    fn drop(&mut self) {
        let grace = self.config.program.kill_grace.min(STOP_GRACE);
        let soon = Instant::now() + grace;
        let idle = self.process.take().map(|process| (process, soon));
        for (process, term_at) in idle.into_iter().chain(self.leaving.take()) {
            process.part(term_at.min(soon), grace, None, |_| false);
        }
    }
}

fn failure(class: ErrorClass, what: &str, ended: &Ended) -> Answer {
    Outcome::Retry(Failure { class, error: with_stderr(what, &ended.stderr) }).into()
}

/// How a process ended that ended by itself.
fn how(ended: &Ended) -> String {
    match ended.status {
        Some(status) => match status.code() {
            Some(code) => format!("the worker ended with exit status {code}"),
            None => format!("the worker was {}", killed_by(status)),
        },
        None => "the worker ended, it cannot be said how".to_owned(),
    }
}
