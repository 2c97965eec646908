//! The thread that sends the requests of one worker thread, so that the worker can stop waiting.
//!
//! A request blocks: nothing ends the look-up of a name or a connect from outside. So the worker thread hands it to its
//! companion and waits for the answer, the stop or the deadline, whatever comes first. A companion that is dropped ends by
//! itself: its open connections are shut down at once, a look-up or connect ends with its own timeout, and nobody waits
//! for it. Where the process ends meanwhile, so does the thread.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::exchange::{Client, Closer, Exchanged};
use super::request::Request;
use crate::handler::Stop;

/// Owned by the worker thread's handler. Dropping it gives up what it is doing.
#[derive(Debug)]
pub struct Companion {
    /// Room for one; the companion waits for the next one between two requests.
    requests: Sender<Request>,
    /// Room for one: the companion never waits to answer.
    answers: Receiver<Exchanged>,
    /// Bears a byte for each answer, and its end when the companion has ended: a descriptor, so that the worker can wait
    /// for it together with the stop.
    bell: OwnedFd,
    closer: Closer,
}

/// Why the worker stopped waiting.
#[derive(Debug)]
pub enum Waited {
    /// The exchange ended.
    Ended(Exchanged),
    /// The stop was raised first.
    Stopped,
    /// The deadline came first.
    Overran,
    /// The companion ended without an answer, which is a bug.
    Failed,
}

impl Companion {
    /// Starts the thread. Fails where the process has no thread or no descriptor left.
    pub fn start(name: String, client: Client) -> io::Result<Self> {
        let (requests, inbox) = crossbeam_channel::bounded(1);
        let (outbox, answers) = crossbeam_channel::bounded(1);
        let (bell, rope) = pipe_with(PipeFlags::CLOEXEC)?;
        let closer = client.closer();
        std::thread::Builder::new().name(name).spawn(move || attend(client, &inbox, &outbox, &rope))?;
        Ok(Self { requests, answers, bell, closer })
    }

    /// Sends a request and waits for its end. After any other end than [`Waited::Ended`] the companion is to be dropped.
    pub fn exchange(&self, request: Request, stop: &Stop, deadline: Instant) -> Waited {
        if self.requests.send(request).is_err() {
            return Waited::Failed;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(timeout) = Timespec::try_from(left) else {
                return Waited::Failed;
            };
            let mut ready = [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) if left.is_zero() => return Waited::Overran,
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(_) => return Waited::Failed,
            }
            // An answer that is there counts, even if the stop came meanwhile.
            return if ready[0].revents().is_empty() { Waited::Stopped } else { self.take() };
        }
    }

    /// The answer that the bell told of.
    fn take(&self) -> Waited {
        // Of no byte, there is no answer either.
        let _ = rustix::io::read(&self.bell, &mut [0]);
        self.answers.try_recv().map_or(Waited::Failed, Waited::Ended)
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.closer.close();
    }
}

/// The companion's thread.
fn attend(mut client: Client, inbox: &Receiver<Request>, outbox: &Sender<Exchanged>, rope: &OwnedFd) {
    while let Ok(request) = inbox.recv() {
        let exchanged = client.exchange(request);
        // Nobody is there to hear it, or to be woken, where it was given up.
        if outbox.send(exchanged).is_err() || rustix::io::write(rope, &[0]).is_err() {
            return;
        }
    }
}
