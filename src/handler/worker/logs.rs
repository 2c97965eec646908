//! What a worker process prints, from its start to its end.
//!
//! A process may print at any time, also while no task is there and its worker thread sleeps; nobody reading would block
//! it once its pipe is full, and it would not come back for the next request. So each process has a thread that does
//! nothing but read these two pipes. It sleeps until something is printed: an idle process costs nothing. (The worker
//! thread could look now and then instead, but then every idle one would wake up for ever, for a rare case.)

use std::io;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::handler::Stop;
use crate::handler::process::output::Label;
use crate::handler::process::stream::Stream;

/// How often a process gets its share of log lines anew.
const SHARE: Duration = Duration::from_secs(10);

/// The thread that reads what one process prints; owned by the worker thread.
#[derive(Debug)]
pub struct Logs {
    /// Raised when the process has ended: what is still in the pipes is the rest.
    ended: Stop,
    thread: Option<JoinHandle<String>>,
}

impl Logs {
    /// `label` names the process in the log; without it nothing is logged. Neither pipe may block.
    pub fn start(label: Option<&Label>, stdout: Option<OwnedFd>, stderr: OwnedFd) -> io::Result<Self> {
        let ended = Stop::new()?;
        let stream = |pipe, name| Stream::new(pipe, label.map(|label| (label.clone(), name)));
        let streams = [stream(stdout, "stdout"), stream(Some(stderr), "stderr")];
        let until = ended.clone();
        let thread = std::thread::Builder::new().name("logs".to_owned()).spawn(move || read(streams, &until))?;
        Ok(Self { ended, thread: Some(thread) })
    }

    /// Called once the process has ended: reads the rest and gives the end of its stderr.
    pub fn finish(mut self) -> String {
        self.join()
    }

    fn join(&mut self) -> String {
        self.ended.raise();
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.join();
    }
}

/// The thread: reads until both streams have ended, or the process has and what is left of them is read.
fn read(mut streams: [Stream; 2], ended: &Stop) -> String {
    let mut since = Instant::now();
    while streams.iter().any(|stream| stream.pipe().is_some()) {
        let Ok([over, stdout, stderr]) = wait(&streams, ended) else { break };
        if since.elapsed() >= SHARE {
            streams.iter_mut().for_each(Stream::renew);
            since = Instant::now();
        }
        for (stream, ready) in streams.iter_mut().zip([stdout, stderr]) {
            if ready {
                stream.pull();
            }
        }
        if over {
            break;
        }
    }
    let [mut stdout, mut stderr] = streams;
    stdout.drain();
    stderr.drain();
    stdout.finish();
    stderr.finish().0
}

/// Waits without a deadline: whoever owns the thread raises `ended`, whatever happens.
fn wait(streams: &[Stream; 2], ended: &Stop) -> io::Result<[bool; 3]> {
    // A stream that has ended is not waited for; the stop stands in for it.
    let [stdout, stderr] = streams.each_ref().map(|stream| match stream.pipe() {
        Some(pipe) => PollFd::new(pipe, PollFlags::IN),
        None => PollFd::new(ended, PollFlags::empty()),
    });
    let mut fds = [PollFd::new(ended, PollFlags::IN), stdout, stderr];
    match poll(&mut fds, None) {
        Ok(_) => Ok(fds.map(|fd| !fd.revents().is_empty())),
        Err(Errno::INTR) => Ok([false; 3]),
        Err(error) => Err(error.into()),
    }
}
