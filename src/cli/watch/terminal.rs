//! The terminal: taken over, drawn on, and given back as it was, whatever happens in between.

use std::io::{self, Write};
use std::sync::Once;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Drawn, Span, Text};
use ratatui::{Terminal, TerminalOptions, Viewport};
use rustix::process::{Signal, getpid, kill_process};

use crate::cli::status::line::{Line, Tone};
use crate::cli::status::screen::Paper;

/// The terminal while it is ours.
pub struct Screen<W: Write> {
    terminal: Terminal<CrosstermBackend<W>>,
    color: bool,
}

impl<W: Write> Screen<W> {
    /// Takes it over: another screen, no cursor, keys one by one.
    pub fn enter(out: W, color: bool) -> io::Result<Self> {
        restore_on_panic();
        enable_raw_mode()?;
        let mut backend = CrosstermBackend::new(out);
        let entered = execute!(backend, EnterAlternateScreen, Hide);
        let options = TerminalOptions { viewport: Viewport::Fullscreen };
        match entered.and_then(|()| Terminal::with_options(backend, options)) {
            Ok(terminal) => Ok(Self { terminal, color }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws the lines that fit this size; only what changed is sent.
    pub fn draw(&mut self, lines: impl FnOnce(Paper) -> Vec<Line>) -> io::Result<()> {
        let color = self.color;
        self.terminal.draw(|frame| {
            let area = frame.area();
            let lines = lines(super::paper(area.width, area.height));
            frame.render_widget(Text::from_iter(lines.into_iter().map(|line| drawn(line, color))), area);
        })?;
        Ok(())
    }

    /// What Ctrl-Z does elsewhere. Comes back when the shell says so.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        kill_process(getpid(), Signal::TSTP)?;
        enable_raw_mode()?;
        execute!(self.terminal.backend_mut(), EnterAlternateScreen, Hide)?;
        self.terminal.clear()
    }

    /// Gives it back.
    pub fn leave(mut self) {
        // Where it is gone there is nothing to give back.
        let _ = execute!(self.terminal.backend_mut(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Past everything that may be locked or half written: a panic comes here too.
fn give_back() {
    let _ = disable_raw_mode();
    // LeaveAlternateScreen and Show, as crossterm writes them.
    let _ = rustix::io::write(io::stdout(), b"\x1b[?1049l\x1b[?25h");
}

/// The message of a panic is to be read, on a terminal that obeys again; whichever thread it is, the watch is over.
fn restore_on_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            default(panic);
        }));
    });
}

fn drawn(line: Line, color: bool) -> Drawn<'static> {
    Drawn::from_iter(line.0.into_iter().map(|(tone, text)| Span::styled(text, style(tone, color))))
}

fn style(tone: Tone, color: bool) -> Style {
    let plain = Style::new();
    let in_color = |color_of: Color| if color { plain.fg(color_of) } else { plain };
    match tone {
        Tone::Plain => plain,
        Tone::Good => in_color(Color::Green).add_modifier(Modifier::BOLD),
        Tone::Bad => in_color(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Odd => in_color(Color::Yellow),
        Tone::Head => plain.add_modifier(Modifier::BOLD),
        Tone::Quiet => plain.add_modifier(Modifier::DIM),
        Tone::Command => in_color(Color::Cyan),
        Tone::Chosen => plain.add_modifier(Modifier::REVERSED),
    }
}
