//! The log: lines on stderr, `info` and above unless `RUST_LOG` says otherwise.

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
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
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
    fn the_library_that_prints_passwords_is_never_heard() {
        let logger = env_logger::Builder::new().filter_level(LevelFilter::Trace).build();
        let logger = Discreet(logger);
        let enabled = |target| logger.enabled(&Metadata::builder().target(target).level(log::Level::Error).build());
        assert!(!enabled("amiquip"));
        assert!(!enabled("amiquip::io_loop::handshake_state"));
        assert!(enabled("warrend::job"));
    }
}
