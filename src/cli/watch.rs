//! `warrend status --watch` on a terminal: the screen of `status` refreshed in place, with keys.
//!
//! One thread owns all that is shown: it waits for one [`Event`] at a time, changes the [`Watch`] by it, carries out the
//! [`Effect`] that this returns, and draws. Other threads (`feeds`) read keys, ask the daemon and read dead letters, and do
//! nothing but send events. So a daemon that hangs, or a dead-letter queue that is long, keeps no key waiting.
//!
//! Absent: state of its own about the daemon. What stands on the screen is the daemon's last answer; where that is old, the
//! screen says so.

mod feeds;
mod help;
mod letters;
mod overview;
mod rates;
mod terminal;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::status::line::{Line, Tone};
use crate::cli::status::screen::Paper;
use crate::cli::status::{glyphs, jobs};
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::failpoint;
use crate::report::Status;
use crate::task::UnixMillis;
use feeds::{Ask, Feeds};
use letters::{Letters, Read};
use rates::Rates;
use terminal::Screen;

/// How long a notice stands in the last line.
const NOTICE: Duration = Duration::from_secs(6);

/// The keys that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Enter, or the arrow to the right.
    Enter,
    /// Escape, or the arrow to the left.
    Back,
    /// Of text.
    Char(char),
    /// Ctrl-C
    Interrupt,
    /// Ctrl-Z
    Suspend,
}

/// What the watching thread waits for.
enum Event {
    /// A key was pressed.
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// The daemon answered the question for its status, or could not be asked.
    Status(Result<Box<Status>, String>),
    /// The daemon did what it was told, or not: a sentence.
    Told(Result<String, String>),
    /// Dead letters were read.
    Letters(letters::Answer),
    /// The process is to end, or the terminal is gone.
    End,
}

/// What the watch wants done; at most one thing at a time.
#[derive(Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing but to draw.
    Nothing,
    /// Ask or tell the daemon.
    Ask(Ask),
    /// Read dead letters.
    Read(Read),
    /// Give the terminal back to the shell until it says to go on.
    Suspend,
    /// End.
    Quit,
}

/// Watches until somebody has seen enough.
pub fn watch(config: &Config, interval: Duration, color: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let feeds = Feeds::start(Arc::new(config.clone()))
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start a thread: {error}")))?;
    let mut screen = Screen::enter(out, color).map_err(|error| Failure::print(&error))?;
    let mut watch = Watch::new(config, interval);
    let ended = watch.run(&mut screen, &feeds);
    screen.leave();
    ended.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// What is shown over the list of jobs, if anything.
enum View {
    /// The jobs themselves.
    Jobs,
    /// What the keys and columns mean.
    Help,
    /// The dead letters of a job.
    Letters(Box<Letters>),
}

/// All that is shown.
struct Watch {
    interval: Duration,
    /// The socket, for the sentence that nobody answers on it.
    socket: String,
    view: View,
    /// The last answer, and when it came.
    status: Option<(Box<Status>, Instant)>,
    /// Why the last question has no answer.
    trouble: Option<String>,
    /// Whether a question is on its way, and when the next one is due.
    asking: bool,
    due: Instant,
    rates: Rates,
    /// The name of the job under the cursor.
    selected: Option<String>,
    /// What is asked before it is done: a sentence, and what yes means.
    question: Option<(String, Ask)>,
    /// What was done last: shown until then.
    notice: Option<(Tone, String, Instant)>,
}

impl Watch {
    fn new(config: &Config, interval: Duration) -> Self {
        Self {
            interval,
            socket: config.control.socket.display().to_string(),
            view: View::Jobs,
            status: None,
            trouble: None,
            asking: false,
            due: Instant::now(),
            rates: Rates::default(),
            selected: None,
            question: None,
            notice: None,
        }
    }

    fn run(&mut self, screen: &mut Screen<impl Write>, feeds: &Feeds) -> std::io::Result<()> {
        loop {
            let now = Instant::now();
            if !self.asking && self.due <= now {
                self.asking = feeds.ask(Ask::Status);
                self.due = now + self.interval;
            }
            screen.draw(|paper| self.lines(paper, Instant::now()))?;
            failpoint::hit("watch-drawn");
            let Some(event) = feeds.next(self.deadline(now)) else { continue };
            match self.on_event(event) {
                Effect::Nothing => {}
                Effect::Ask(ask) => {
                    if !feeds.ask(ask) {
                        self.notify(Tone::Bad, "the daemon has not answered yet: try again".to_owned());
                    }
                }
                Effect::Read(read) => feeds.read(read),
                Effect::Suspend => screen.suspend()?,
                Effect::Quit => return Ok(()),
            }
        }
    }

    /// When there is something to draw or to ask without an event. Ages are told in seconds.
    fn deadline(&self, now: Instant) -> Instant {
        let second = now + Duration::from_secs(1);
        if self.asking { second } else { self.due.min(second) }
    }

    fn on_event(&mut self, event: Event) -> Effect {
        match event {
            Event::Key(key) => return self.on_key(key),
            Event::Resized => {}
            Event::Status(answer) => self.on_status(answer),
            Event::Told(Ok(done)) => {
                self.notify(Tone::Good, done);
                // What it did is to be seen at once.
                self.due = Instant::now();
            }
            Event::Told(Err(why)) => self.notify(Tone::Bad, why),
            Event::Letters(answer) => {
                if let View::Letters(letters) = &mut self.view {
                    letters.on_answer(answer);
                }
            }
            Event::End => return Effect::Quit,
        }
        Effect::Nothing
    }

    fn on_status(&mut self, answer: Result<Box<Status>, String>) {
        self.asking = false;
        match answer {
            Ok(status) => {
                let now = Instant::now();
                self.rates.add(&status, now);
                if self.selected.as_ref().is_none_or(|name| !status.jobs.contains_key(name)) {
                    self.selected = jobs::in_order(&status, false).first().map(|(name, _)| (*name).to_owned());
                }
                self.status = Some((status, now));
                self.trouble = None;
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    fn notify(&mut self, tone: Tone, text: String) {
        self.notice = Some((tone, text, Instant::now() + NOTICE));
    }

    fn on_key(&mut self, key: Key) -> Effect {
        if key == Key::Interrupt {
            return Effect::Quit;
        }
        if key == Key::Suspend {
            return Effect::Suspend;
        }
        if let Some((_, ask)) = self.question.take() {
            return if matches!(key, Key::Char('y' | 'Y')) { Effect::Ask(ask) } else { Effect::Nothing };
        }
        if key == Key::Char('q') {
            return Effect::Quit;
        }
        match &mut self.view {
            View::Jobs => self.on_overview_key(key),
            View::Help => {
                self.view = View::Jobs;
                Effect::Nothing
            }
            View::Letters(letters) => {
                let (stays, effect) = letters.on_key(key);
                if !stays {
                    self.view = View::Jobs;
                }
                effect
            }
        }
    }

    fn lines(&self, paper: Paper, now: Instant) -> Vec<Line> {
        match &self.view {
            View::Jobs => self.overview(paper, now),
            View::Help => help::lines(paper),
            View::Letters(letters) => letters.lines(paper, now, UnixMillis::now().0),
        }
    }
}

/// What a terminal of that size can show.
fn paper(width: u16, height: u16) -> Paper {
    Paper { width: width.into(), height: Some(height.into()), piped: false, glyphs: glyphs() }
}

/// So many of the lines that the cursor is always among them, and the first of them.
fn window(all: usize, selected: usize, room: usize) -> std::ops::Range<usize> {
    let room = room.max(1);
    let first =
        (selected + 1).saturating_sub(room).max(selected.saturating_sub(room / 2).min(all.saturating_sub(room)));
    first..all.min(first + room)
}

/// Where the cursor is after a key that moves it, if it is one.
fn moved(key: Key, at: usize, all: usize, page: usize) -> Option<usize> {
    let last = all.saturating_sub(1);
    match key {
        Key::Up | Key::Char('k') => Some(at.saturating_sub(1)),
        Key::Down | Key::Char('j') => Some((at + 1).min(last)),
        Key::PageUp => Some(at.saturating_sub(page)),
        Key::PageDown => Some((at + page).min(last)),
        Key::Home => Some(0),
        Key::End => Some(last),
        Key::Enter | Key::Back | Key::Char(_) | Key::Interrupt | Key::Suspend => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_is_always_in_the_window() {
        for all in 0..12 {
            for room in 0..12 {
                for selected in 0..all {
                    let window = window(all, selected, room);
                    assert!(
                        window.contains(&selected) && window.len() == all.min(room.max(1)),
                        "{all} {selected} {room}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_cursor_stays_among_the_lines() {
        assert_eq!(moved(Key::Down, 3, 4, 10), Some(3));
        assert_eq!(moved(Key::PageUp, 3, 4, 10), Some(0));
        assert_eq!(moved(Key::End, 0, 0, 10), Some(0));
        assert_eq!(moved(Key::Char('x'), 0, 4, 10), None);
    }
}
