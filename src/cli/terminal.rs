//! Questions and progress, for those who sit at a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::cli::{Exit, Failure};

/// How often the line of progress is drawn.
const DRAW: Duration = Duration::from_millis(100);

/// Whether there is somebody to ask. `instead` says what to do without.
pub fn check_terminal(instead: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("there is no terminal to ask on: {instead}")))
}

/// Asks; anything but yes is a no.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stdin().read_line(&mut answer));
    asked.map_err(|error| Failure::new(Exit::Failed, format!("cannot ask: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A line on stderr that is written over again; nothing where stderr is no terminal.
pub struct Bar {
    drawn: Option<Instant>,
    shown: bool,
}

impl Bar {
    /// Nothing is drawn yet.
    pub fn new() -> Self {
        Self { drawn: None, shown: io::stderr().is_terminal() }
    }

    /// Draws, unless it was drawn just now.
    pub fn draw(&mut self, done: u64, of: u64, what: &str) {
        let now = Instant::now();
        if !self.shown || self.drawn.is_some_and(|at| now.duration_since(at) < DRAW) {
            return;
        }
        self.drawn = Some(now);
        const WIDTH: u64 = 30;
        let filled = (done * WIDTH).checked_div(of).unwrap_or(WIDTH).min(WIDTH);
        let bar: String = (0..WIDTH).map(|cell| if cell < filled { '#' } else { '.' }).collect();
        // With stderr gone there is nobody left to tell.
        let _ = write!(io::stderr(), "\r\x1b[K[{bar}] {done} of {of} read, {what}");
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.drawn.is_some() {
            // With stderr gone there is nobody left to tell.
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
