//! A tap on the wire: it reads what daemon and broker say to each other, and judges the daemon by it on every run.
//!
//! It is written apart from the daemon's own code, down to the decoder, so that one does not share the other's mistakes.
//! What it holds the daemon to (promises P2 and P4, and good manners):
//!
//! | rule | how it is judged |
//! | --- | --- |
//! | no ack before its record | when the ack leaves the daemon, a reader of the store must see the record |
//! | no copy before its record | the same when the copy leaves |
//! | no ack of a failed attempt before the confirm of its copy | the broker's confirm of that publish has reached the daemon, and no return of it before |
//! | no tag settled twice, none of another channel | open tags of each channel |
//! | `multiple` reaches no open delivery | every delivery that it covers is judged by the rules above |
//! | what is handed back is requeued | flags of each nack |
//! | unacknowledged at most the prefetch | counted by consumer; none is consumed without a prefetch |
//! | every publish confirmed and mandatory, every copy persistent | flags of each publish; not mandatory only straight to a caller |
//! | no channel error of our making | closes by the broker, except 404 for a passive declaration, and 320 for a whole connection; a test may expect others |
//! | nothing on what is closed | state of each channel and connection |
//! | heartbeats kept | silence of the daemon for more than two of them |
//! | frames as agreed | their size, and that they can be read |
//!
//! What the daemon sent is judged as soon as it is read, before the broker gets it; what the broker sent once the daemon
//! was given it. So the order that the tap sees is that in which the daemon acted.
//!
//! The records of a job are looked up by message id: a queue whose job has another key must not be given to the tap.

mod book;
mod channel;
mod content;
mod line;
mod method;
mod store;
mod trace;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use book::Book;
pub use book::Tally;
use line::Line;
pub use line::Role;
use trace::Trace;

/// When the proxy's loop was away for so long, what came meanwhile came late.
const AWAY: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug)]
pub struct Tap {
    book: Book,
    lines: BTreeMap<u64, Line>,
    trace: Trace,
    last: Instant,
    /// The first violation with the frames before it, once there is one.
    first: Option<String>,
    /// Violations that somebody was told.
    told: usize,
}

impl Tap {
    /// For a daemon with that store, which need not exist yet.
    pub fn new(store: &Path) -> Self {
        let now = Instant::now();
        Self { book: Book::new(store), lines: BTreeMap::new(), trace: Trace::new(now), last: now, first: None, told: 0 }
    }

    /// The store is there from now on, and nothing was recorded before.
    pub fn read_from(&mut self, store: &Path) {
        self.book.read_from(store);
    }

    /// What is delivered from that queue is the work of that job, whose keys are message ids: the store must know of it.
    pub fn job(mut self, job: &str, queue: &str) -> Self {
        self.book.jobs.insert(queue.to_owned(), job.to_owned());
        self
    }

    /// From now on the broker may close channels and connections with that reply code.
    pub fn expect_close(&mut self, code: u16) {
        self.book.expected.push(code);
    }

    /// From now on the daemon owes no heartbeats, or owes them again: it is stopped or starved meanwhile.
    pub fn excuse_silence(&mut self, excused: bool) {
        self.book.hangs = excused;
        let now = Instant::now();
        self.lines.values_mut().for_each(|line| line.excuse(now));
    }

    /// A connection of the daemon.
    pub fn opened(&mut self, now: Instant, line: u64) {
        self.book.tally.connections += 1;
        self.lines.insert(line, Line::new(line, now));
    }

    /// The daemon has sent this, and the broker has not got it yet.
    pub fn sent(&mut self, now: Instant, line: u64, bytes: &[u8]) {
        if let Some(line) = self.lines.get_mut(&line) {
            line.sent(now, bytes, &mut self.book, &mut self.trace);
            self.tell();
        }
    }

    /// The daemon was given this.
    pub fn told(&mut self, now: Instant, line: u64, bytes: &[u8]) {
        if let Some(line) = self.lines.get_mut(&line) {
            line.told(now, bytes, &mut self.book, &mut self.trace);
            self.tell();
        }
    }

    /// The daemon has left the connection, or has said that it sends nothing more.
    pub fn left(&mut self, line: u64) {
        if let Some(line) = self.lines.get_mut(&line) {
            line.left();
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, line: u64) {
        self.lines.remove(&line);
    }

    /// Called at least twice a second.
    pub fn tick(&mut self, now: Instant) {
        let away = now.saturating_duration_since(self.last) > AWAY;
        self.last = now;
        for line in self.lines.values_mut() {
            if away {
                line.excuse(now);
            }
            line.check_heartbeat(now, &mut self.book);
        }
        self.tell();
    }

    /// What a connection is for, as far as it has shown.
    pub fn role(&self, line: u64) -> Role {
        self.lines.get(&line).map_or(Role::Unknown, Line::role)
    }

    fn tell(&mut self) {
        if let (None, Some(first)) = (&self.first, self.book.violations.first()) {
            self.first = Some(format!("{first}\n--- the last frames before it\n{}", self.trace));
        }
    }

    /// The figures, or what the daemon did wrong.
    pub fn verdict(&mut self) -> Result<Tally, String> {
        let Some(first) = &self.first else { return Ok(self.book.tally) };
        self.told = self.book.violations.len();
        let others = &self.book.violations[1..];
        Err(format!("the tap has seen {} violations: {first}--- and then\n{}", others.len() + 1, others.join("\n")))
    }

    /// What the daemon did wrong, where nobody was told all of it.
    pub fn untold(&mut self) -> Option<String> {
        if self.book.violations.len() > self.told { self.verdict().err() } else { None }
    }
}
