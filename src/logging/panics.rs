//! A panic is told on one line, as everything else is, and without words that are not ours.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// The log target of the lines of a backtrace: they are many from one place, and all of them are told.
pub const BACKTRACE: &str = "warrend::backtrace";

/// From now on panics are told in the log. What becomes of the thread is the same as ever.
pub fn catch() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        log::error!("the thread {} panicked {}", thread.name().unwrap_or("-"), told(panic));
        // Taken where RUST_BACKTRACE asks for it.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            for line in backtrace.to_string().lines() {
                log::error!(target: BACKTRACE, "{}", line.trim_end());
            }
        }
    }));
}

fn told(panic: &PanicHookInfo<'_>) -> String {
    let words = panic.payload_as_str().unwrap_or("no words");
    panic.location().map_or_else(|| "at an unknown place".to_owned(), |place| at(place.file(), place.line(), words))
}

fn at(file: &str, line: u32, words: &str) -> String {
    if file.starts_with("src/") {
        return format!("at {file}:{line}: {words}");
    }
    // A library's words may hold what it had in hand: a login, or a message. Its name stands below that of a registry.
    let below = file.split_once("/registry/src/").and_then(|(_, file)| file.split_once('/'));
    format!("at {}:{line}", below.map_or(file, |(_, file)| file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_words_are_told_and_those_of_a_library_are_not() {
        assert_eq!(at("src/job.rs", 7, "ouch"), "at src/job.rs:7: ouch");
        let library = "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/amiquip-0.4.2/src/io_loop.rs";
        assert_eq!(at(library, 7, "Plain { password: \"hunter2\" }"), "at amiquip-0.4.2/src/io_loop.rs:7");
        assert_eq!(at("/rustc/0/library/core/src/option.rs", 7, "ouch"), "at /rustc/0/library/core/src/option.rs:7");
    }

    /// Cargo names our own files from the package's folder; were that to change, no words would be told.
    #[test]
    fn our_own_files_are_told_from_others() {
        assert!(std::panic::Location::caller().file().starts_with("src/"));
    }
}
