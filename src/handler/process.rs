//! Processes: what the handlers that run programs have in common.
//!
//! `spawn` finds a program and says what is wrong when it does not start, `exec` starts it, `group` ends it and all that
//! it started, `output` turns what it writes into log lines and error text, `stream` reads one of its pipes.

pub mod exec;
pub mod group;
pub mod output;
pub mod spawn;
pub mod stream;

use std::process::ExitStatus;

use signal_hook::low_level::signal_name;

/// Exit status: the program cannot work (`EX_CONFIG` of sysexits.h).
pub const BROKEN: i32 = 78;
/// Why a run that the daemon ended says nothing of its message.
pub const STOPPED: &str = "the handler was ended when the daemon stopped";

/// The signal that ended a process, for people.
pub fn killed_by(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    let number = status.signal().unwrap_or_default();
    let name = signal_name(number).unwrap_or("a signal");
    let note = if status.core_dumped() {
        ", core dumped"
    } else if number == libc::SIGKILL {
        ", not by warrend; the machine may have run out of memory"
    } else {
        ""
    };
    format!("killed by {name} (signal {number}){note}")
}

/// What happened, and what the program wrote to stderr, where it wrote something.
pub fn with_stderr(what: &str, stderr: &str) -> String {
    if stderr.is_empty() { what.to_owned() } else { format!("{what}: {stderr}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_core_dump_is_noted() {
        // 0x80 of a wait status is the core's bit.
        assert_eq!(killed_by(ExitStatus::from_raw(11 | 0x80)), "killed by SIGSEGV (signal 11), core dumped");
    }
}
