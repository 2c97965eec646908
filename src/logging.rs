//! The log: lines on stderr, `info` and above unless `RUST_LOG` says otherwise; and how text of others is printed.

use log::{LevelFilter, Log, Metadata, Record};

/// Lets everything through but the AMQP library's own records: at `debug` it prints the login with the password, and at
/// `warn` whole messages. What matters of them is told in our own words.
struct Discreet(env_logger::Logger);

impl Discreet {
    fn is_quiet(target: &str) -> bool {
        target == "amiquip" || target.starts_with("amiquip::")
    }
}

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !Self::is_quiet(metadata.target()) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // One record is one line, whatever names, ids and errors of others stand in it.
        let text = clean(&record.args().to_string());
        self.0.log(&Record::builder().metadata(record.metadata().clone()).args(format_args!("{text}")).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Whether a terminal would obey it, or a line would end or turn around there.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON on one line, which a terminal can show: of what it would obey, JSON itself escapes only a part.
pub fn write_json(out: &mut (impl std::io::Write + ?Sized), value: &impl serde::Serialize) -> std::io::Result<()> {
    use std::fmt::Write as _;
    let json = serde_json::to_string(value)?;
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) {
            // They are all of the basic plane, and stand nowhere but in strings.
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    writeln!(out, "{line}")
}

/// Text of others on one line, without what a terminal would obey.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Starts logging; called once.
pub fn start() {
    let env = env_logger::Env::default().default_filter_or("info");
    let mut builder = env_logger::Builder::from_env(env);
    builder.format_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal has its own clock.
        builder.format_timestamp(None);
    } else {
        builder.format_timestamp_millis();
    }
    let logger = builder.build();
    let level: LevelFilter = logger.filter();
    if log::set_boxed_logger(Box::new(Discreet(logger))).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(clean("Straße = \"x\" 漢"), "Straße = \"x\" 漢");
        assert_eq!(clean("a\n\t\u{1b}[31m\u{9b}\u{7f}\u{202e}b"), r"a\n\t\u{1b}[31m\u{9b}\u{7f}\u{202e}b");
    }

    #[test]
    fn the_library_that_prints_passwords_is_never_heard() {
        let logger = env_logger::Builder::new().filter_level(LevelFilter::Trace).build();
        let logger = Discreet(logger);
        let enabled = |target| logger.enabled(&Metadata::builder().target(target).level(log::Level::Error).build());
        assert!(!enabled("amiquip"));
        assert!(!enabled("amiquip::io_loop::handshake_state"));
        assert!(enabled("warrend::job"));
    }
}
