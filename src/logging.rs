//! The log: one line on stderr for each event; and how text of others is printed.
//!
//! Whoever has something to tell uses the macros of `log`: a sentence, and for programs the fields `job`, `queue`, `key`,
//! `attempt`, `class` and the like. Text has them in its sentence alone, logfmt and JSON have both. `line` writes a line,
//! `repeats` thins out what says the same over and over, `panics` has a panic
//! told on one line.
//!
//! Never in it: bodies, passwords, and the records of the libraries. At `debug` the AMQP library prints the login with the
//! password, and at `warn` whole messages; those of HTTP and TLS print addresses that may be secrets. What matters of them is
//! told in our own words.

mod line;
mod panics;
mod repeats;

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use log::kv::{self, Key, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

use crate::config::{self, LogFormat};
use crate::system::journal;
use crate::who::ACTS;
use line::{Event, Fields, Style};
use repeats::{Kind, More, Repeats};

/// The one that [`start`] made.
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Decides what is told, and writes it.
struct Logger {
    /// What `RUST_LOG` and `log.level` let through; its own lines, which know neither fields nor the journal, are not used.
    filter: env_logger::Logger,
    style: Style,
    /// The only state that all threads share: they write to one stream anyway. Held for a look-up. Absent where whoever asked for
    /// `debug` wants all of it.
    repeats: Option<Mutex<Repeats>>,
}

impl Logger {
    /// `directives`: what `RUST_LOG` says. Returns what is wrong with it too.
    fn new(config: &config::Log, directives: Option<&str>, style: Style) -> (Self, Option<String>) {
        let mut builder = env_logger::Builder::new();
        builder.filter_level(config.level);
        let mut wrong = None;
        if let Some(directives) = directives.filter(|directives| !directives.is_empty()) {
            match env_filter::Builder::new().try_parse(directives) {
                Ok(_) => {
                    builder = env_logger::Builder::new();
                    builder.parse_filters(directives);
                }
                Err(error) => {
                    wrong = Some(format!(
                        "RUST_LOG is not understood ({error}), and log.level holds: write RUST_LOG=debug"
                    ));
                }
            }
        }
        let filter = builder.build();
        let repeats = (filter.filter() < LevelFilter::Debug).then(|| Mutex::new(Repeats::default()));
        (Self { filter, style, repeats }, wrong)
    }

    /// A thread that panicked while it counted has spoiled nothing.
    fn repeats(&self) -> Option<MutexGuard<'_, Repeats>> {
        Some(self.repeats.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, event: &Event<'_>) {
        // One call, so that no line stands within another. With stderr gone there is nobody left to tell.
        let _ = std::io::stderr().write_all(self.style.line(event).as_bytes());
    }

    /// What was held back, in a line for each kind.
    fn tell(&self, held_back: Vec<More>) {
        for more in held_back {
            let count = more.count.into();
            let mut fields = more.kind.fields();
            fields.extend([("repeated".to_owned(), count), ("within_s".to_owned(), more.within.as_secs().into())]);
            let text = more.to_string();
            let at = Timestamp::now();
            self.write(&Event { at, level: more.kind.level, thread: None, text: &text, fields: &fields });
        }
    }
}

/// Whether what repeats is held back there.
fn is_thinned(target: &str) -> bool {
    ![panics::BACKTRACE, ACTS].contains(&target)
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix("warrend").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_ours(metadata.target()) && self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !is_ours(record.target()) || !self.filter.matches(record) {
            return;
        }
        let fields = fields(record.key_values());
        let thread = std::thread::current();
        let thread = thread.name();
        // Before the lock is taken: what is formatted may be anybody's, and may log or panic.
        let text = record.args().to_string();
        let repeats = if is_thinned(record.target()) { self.repeats() } else { None };
        let (due, is_told) = repeats.map_or((Vec::new(), true), |mut repeats| {
            repeats.judge(Instant::now(), Kind::new(record, thread, &fields), || text.clone())
        });
        self.tell(due);
        if is_told {
            self.write(&Event { at: Timestamp::now(), level: record.level(), thread, text: &text, fields: &fields });
        }
    }

    /// Tells what was held back and whose time is over: the main thread calls it now and then.
    fn flush(&self) {
        let due = self.repeats().map(|mut repeats| repeats.due(Instant::now()));
        self.tell(due.unwrap_or_default());
    }
}

/// The fields of a record.
fn fields(source: &dyn kv::Source) -> Fields {
    struct Collect(Fields);
    impl<'kvs> VisitSource<'kvs> for Collect {
        fn visit_pair(&mut self, key: Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
            let mut json = line::ToJson::default();
            value.visit(&mut json)?;
            self.0.push((key.as_str().to_owned(), json.0));
            Ok(())
        }
    }
    let mut collect = Collect(Fields::new());
    // The collector gives no errors.
    let _ = source.visit(&mut collect);
    collect.0
}

/// Starts logging; called once, by the daemon. `color`: whether stderr is a terminal that wants it.
pub fn start(config: &config::Log, color: bool) {
    let journal = journal::reads_stderr();
    let style = Style { format: config.format, journal, color: color && !journal };
    let directives = std::env::var("RUST_LOG").ok();
    let (logger, wrong) = Logger::new(config, directives.as_deref(), style);
    let level = logger.filter.filter();
    if LOGGER.set(logger).is_ok()
        && let Some(logger) = LOGGER.get()
        && log::set_logger(logger).is_ok()
    {
        log::set_max_level(level);
        panics::catch();
    }
    if let Some(wrong) = wrong {
        log::warn!("{wrong}");
    }
}

/// Whether a person reads stderr as it is: what takes several lines may take them, and needs no time and no level.
pub fn is_for_people() -> bool {
    LOGGER.get().is_none_or(|logger| logger.style.format == LogFormat::Text && !logger.style.journal)
}

/// Tells all that was held back, whether its time is over or not; called at the end.
pub fn finish() {
    if let Some(logger) = LOGGER.get() {
        let rest = logger.repeats().map(|mut repeats| repeats.rest(Instant::now()));
        logger.tell(rest.unwrap_or_default());
    }
}

/// Whether a terminal would obey it, or a line would end or turn around there.
fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

/// JSON on one line, which a terminal can show: of what it would obey, JSON itself escapes only a part.
pub fn write_json(out: &mut (impl std::io::Write + ?Sized), value: &impl serde::Serialize) -> std::io::Result<()> {
    writeln!(out, "{}", json_line(value)?)
}

fn json_line(value: &impl serde::Serialize) -> serde_json::Result<String> {
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
    Ok(line)
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

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(clean("Straße = \"x\" 漢"), "Straße = \"x\" 漢");
        assert_eq!(clean("a\n\t\u{1b}[31m\u{9b}\u{7f}\u{202e}b"), r"a\n\t\u{1b}[31m\u{9b}\u{7f}\u{202e}b");
        assert_eq!(clean("a\u{200f}\u{61c}b"), r"a\u{200f}\u{61c}b");
    }

    fn logger(level: LevelFilter, directives: Option<&str>) -> (Logger, Option<String>) {
        let config = config::Log { format: LogFormat::Text, level };
        Logger::new(&config, directives, Style { format: LogFormat::Text, journal: false, color: false })
    }

    #[test]
    fn libraries_that_print_passwords_are_never_heard() {
        let (logger, wrong) = logger(LevelFilter::Info, Some("trace"));
        assert_eq!(wrong, None);
        let enabled = |target| logger.enabled(&Metadata::builder().target(target).level(Level::Error).build());
        for quiet in ["amiquip", "amiquip::io_loop::handshake_state", "ureq::run", "rustls", "mio::poll", "warrendx"] {
            assert!(!enabled(quiet), "{quiet}");
        }
        assert!(enabled("warrend") && enabled("warrend::job"));
    }

    #[test]
    fn the_environment_wins_over_the_configuration_where_it_is_understood() {
        let enabled = |(logger, _): &(Logger, Option<String>), target: &str, level| {
            logger.enabled(&Metadata::builder().target(target).level(level).build())
        };
        let configured = logger(LevelFilter::Warn, None);
        assert!(
            enabled(&configured, "warrend::job", Level::Warn) && !enabled(&configured, "warrend::job", Level::Info)
        );
        for nothing in [None, Some("")] {
            assert_eq!(logger(LevelFilter::Warn, nothing).0.filter.filter(), LevelFilter::Warn);
        }
        let asked = logger(LevelFilter::Warn, Some("warrend::handler=debug,error"));
        assert!(enabled(&asked, "warrend::handler", Level::Debug) && !enabled(&asked, "warrend::job", Level::Warn));
        let faulty = logger(LevelFilter::Warn, Some("warrend=loud"));
        assert!(faulty.1.is_some_and(|wrong| wrong.contains("RUST_LOG")));
        assert_eq!(faulty.0.filter.filter(), LevelFilter::Warn);
    }

    #[test]
    fn acts_of_people_are_never_held_back() {
        assert!(!is_thinned(ACTS) && is_ours(ACTS));
        assert!(is_thinned("warrend::job") && is_thinned("warrend"));
    }

    #[test]
    fn whoever_debugs_sees_every_line() {
        assert!(logger(LevelFilter::Info, None).0.repeats.is_some());
        assert!(logger(LevelFilter::Debug, None).0.repeats.is_none());
        assert!(logger(LevelFilter::Info, Some("warrend::job=trace")).0.repeats.is_none());
    }

    #[test]
    fn fields_keep_their_kinds_and_their_order() {
        let key = "k\"1";
        let source: [(&str, kv::Value<'_>); 6] = [
            ("key", kv::Value::from(key)),
            ("attempt", kv::Value::from(3_u32)),
            ("off", kv::Value::from(-1)),
            ("rate", kv::Value::from(0.5)),
            ("nan", kv::Value::from(f64::NAN)),
            ("last", kv::Value::from(true)),
        ];
        let fields: Vec<String> = fields(&source).iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(fields, ["key=\"k\\\"1\"", "attempt=3", "off=-1", "rate=0.5", "nan=\"NaN\"", "last=true"]);
    }
}
