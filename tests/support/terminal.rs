//! A pseudo-terminal with a command on it: what it shows, and keys for it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use vt100::{Color, Parser};

use super::holds_within;

/// How long a screen may take to show what it is to show.
const SHOWN: Duration = Duration::from_secs(20);

/// The terminal. Dropped, what runs on it is killed.
pub struct Terminal {
    master: File,
    /// Held open, so that what was written can be read after the command has ended.
    slave: File,
    parser: Parser,
    /// All bytes so far, for what the screen does not tell.
    written: Vec<u8>,
    child: Child,
}

impl Terminal {
    /// Starts the command with the terminal as its own, in a locale with UTF-8. Of the environment it gets what the
    /// command names, and a `TERM`.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal can be had");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name").into_string().expect("its name is plain");
        let slave = OpenOptions::new().read(true).write(true).open(name).expect("its other end can be opened");
        let flags = fcntl_getfl(&master).expect("a descriptor has flags");
        fcntl_setfl(&master, flags | OFlags::NONBLOCK).expect("they can be set");
        set_size(&slave, columns, rows);
        let end = || slave.try_clone().expect("a descriptor can be duplicated");
        // A session of its own, whose terminal this is: the kernel tells only that of a new size.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        session.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        for (name, value) in command.get_envs() {
            session.env(name, value.unwrap_or_default());
        }
        let child = session.stdin(end()).stdout(end()).stderr(end()).spawn().expect("util-linux has setsid");
        let parser = Parser::new(nonzero(rows), nonzero(columns), 0);
        Self { master: master.into(), slave, parser, written: Vec::new(), child }
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a few keys fit");
    }

    /// What the screen shows now, a line each, without trailing blanks.
    pub fn text(&mut self) -> String {
        let mut bytes = [0; 4096];
        loop {
            match self.master.read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => {
                    self.written.extend_from_slice(&bytes[..read]);
                    self.parser.process(&bytes[..read]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing more for now.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the terminal cannot be read: {error}"),
            }
        }
        let columns = self.parser.screen().size().1;
        let rows = self.parser.screen().rows(0, columns.get());
        rows.map(|row| row.trim_end().to_owned() + "\n").collect()
    }

    /// Waits until the screen is as it is to be, and gives its text.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&str) -> bool) -> String {
        let mut text = String::new();
        let held = holds_within(SHOWN, || {
            text = self.text();
            condition(&text)
        });
        assert!(held, "not within {SHOWN:?}: {what}\n--- the screen\n{text}---");
        text
    }

    /// Waits until these words stand on the screen.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        self.wait_until(words, |text| text.contains(words))
    }

    /// Makes the window larger or smaller.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.text();
        set_size(&self.slave, columns, rows);
        self.parser.screen_mut().set_size(nonzero(rows), nonzero(columns));
    }

    /// Whether anything on the screen has a colour.
    pub fn is_coloured(&self) -> bool {
        let screen = self.parser.screen();
        let (rows, columns) = screen.size();
        let mut cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
        cells.any(|(row, column)| screen.cell(row, column).is_some_and(|cell| cell.fgcolor() != Color::Default))
    }

    /// All bytes that were written so far.
    pub fn written(&mut self) -> String {
        self.text();
        String::from_utf8_lossy(&self.written).into_owned()
    }

    /// Fails unless the terminal is as a shell wants it: the screen that was there before, a cursor, echo, whole lines.
    #[track_caller]
    pub fn assert_given_back(&mut self) {
        let text = self.text();
        let screen = self.parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{text}");
        let modes = tcgetattr(&self.slave).expect("it is a terminal").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child that was not waited for can be signalled");
    }

    /// The process on it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the command.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = holds_within(SHOWN, || {
            // A terminal that nobody reads stops whoever writes to it.
            self.text();
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        assert!(ended, "the command does not end\n--- the screen\n{}---", self.text());
        status.expect("the wait above ended with one")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that ended by itself is as dead.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nonzero(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("a terminal has a size")
}

fn set_size(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a pseudo-terminal takes any size");
}
