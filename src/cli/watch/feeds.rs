//! The threads that bring events: keys, signals, the daemon's answers, dead letters.
//!
//! Each does one thing at a time and waits for as long as it takes. None of them is joined: they own nothing that the end of
//! the process would harm.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::letters::{self, Read};
use super::{Event, Key};
use crate::cli::client::{ask_status, tell};
use crate::config::Config;
use crate::control::Request;

/// Keys that may wait while a screen is drawn; more than anybody types in that time.
const EVENTS: usize = 64;
/// What the daemon may be asked besides its status while it has not answered yet.
const ASKED: usize = 2;

/// What is asked of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// How it is.
    Status,
    /// To pause a job.
    Pause(String),
    /// To let it go on.
    Resume(String),
}

/// A thread that panics ends the watch: the terminal is given back by then, and nothing must be drawn on it any more.
struct LastWord(Sender<Event>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Where nobody listens, it has ended.
            let _ = self.0.send(Event::End);
        }
    }
}

/// The ends of all channels.
pub struct Feeds {
    events: Receiver<Event>,
    asks: Sender<Ask>,
    reads: Sender<Read>,
}

impl Feeds {
    /// Starts the threads.
    pub fn start(config: Arc<Config>) -> io::Result<Self> {
        let (send, events) = bounded(EVENTS);
        let (asks, asked) = bounded(ASKED);
        // One is read at a time, and only the last one that was asked for is of interest.
        let (reads, to_read) = bounded(1);
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let last = LastWord(send.clone());
            let body = move || {
                let _last = last;
                body();
            };
            std::thread::Builder::new().name(name.to_owned()).spawn(body).map(|_| ())
        };
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        let to = send.clone();
        spawn(
            "signals",
            Box::new(move || {
                for _ in signals.forever() {
                    if to.send(Event::End).is_err() {
                        return;
                    }
                }
            }),
        )?;
        let to = send.clone();
        spawn("keys", Box::new(move || read_keys(&to)))?;
        let (to, socket) = (send.clone(), config.control.socket.clone());
        spawn(
            "daemon",
            Box::new(move || {
                for question in asked {
                    if to.send(put(&socket, question)).is_err() {
                        return;
                    }
                }
            }),
        )?;
        let to = send.clone();
        spawn(
            "letters",
            Box::new(move || {
                for read in to_read {
                    if to.send(Event::Letters(letters::carry_out(&config, read))).is_err() {
                        return;
                    }
                }
            }),
        )?;
        Ok(Self { events, asks, reads })
    }

    /// The next event, if there is one before that time.
    pub fn next(&self, until: Instant) -> Option<Event> {
        match self.events.recv_deadline(until) {
            Ok(event) => Some(event),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => None,
            // All threads have died: nothing more can be shown.
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Some(Event::End),
        }
    }

    /// Has it asked; false where earlier questions still wait.
    pub fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }

    /// Has it read. Where something else is being read, that is waited for, in the thread that reads.
    pub fn read(&self, read: Read) {
        // The view that asked says what it waits for; a reader that is behind by more than one is asked again by a key.
        let _ = self.reads.try_send(read);
    }
}

fn read_keys(to: &Sender<Event>) {
    loop {
        // A poll in between, so that nothing of crossterm's is locked for long.
        let read = match event::poll(Duration::from_millis(500)) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let event = match read {
            Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => match meaning(key) {
                Some(key) => Event::Key(key),
                None => continue,
            },
            Ok(event::Event::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            // The terminal is gone.
            Err(_) => Event::End,
        };
        let ends = matches!(event, Event::End);
        if to.send(event).is_err() || ends {
            return;
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a keyboard has more keys than are of use here")]
fn meaning(key: KeyEvent) -> Option<Key> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char('z') if control => Key::Suspend,
        KeyCode::Char(c) if !control => Key::Char(c),
        KeyCode::F(1) => Key::Char('?'),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter | KeyCode::Right => Key::Enter,
        KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => Key::Back,
        _ => return None,
    })
}

fn put(socket: &std::path::Path, question: Ask) -> Event {
    let told = |request: &Request, done: String| {
        Event::Told(tell(socket, request).map(|()| done).map_err(|failure| failure.text))
    };
    match question {
        Ask::Status => Event::Status(ask_status(socket).map_err(|failure| failure.text)),
        Ask::Pause(job) => {
            let request = Request::Pause { job: job.clone(), reason: None };
            told(&request, format!("{job} is paused; r lets it go on"))
        }
        Ask::Resume(job) => told(&Request::Resume { job: job.clone() }, format!("{job} goes on")),
    }
}
