//! Thins out what says the same over and over: a handler that fails for each of a million messages must not fill the disk,
//! nor hide what else is told.
//!
//! A kind of event is told ten times within a minute. The rest of that minute it is only counted, and then told in one line.
//! Errors, warnings and notices of another place in the code, another job, queue or class are another kind: the first of them is
//! always told. No clock and no output: the caller has both.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use log::{Level, Record};
use serde_json::Value;

use super::line::Fields;

/// How often a kind is told within a window.
const TOLD: u32 = 10;
/// How long a kind is counted, from its first event.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds that are counted at one time. Jobs, queues and classes are few; what goes beyond it is told.
const MOST: usize = 4096;
/// How often the windows are looked through.
const LOOK: Duration = Duration::from_secs(1);
/// The fields that make a kind of its own; their values come from the configuration or from us, never from messages.
const TELLING: [&str; 4] = ["job", "queue", "class", "alert"];

/// What counts as the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// How grave it is.
    pub level: Level,
    place: (&'static str, u32),
    /// Whoever tells it, where that is not in `telling`.
    thread: String,
    /// Those of [`TELLING`] that it has.
    telling: Vec<(&'static str, String)>,
}

impl Kind {
    /// The kind of a record.
    pub fn new(record: &Record<'_>, thread: Option<&str>, fields: &Fields) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| text(value));
        let telling: Vec<_> = TELLING.into_iter().filter_map(|name| Some((name, value(name)?))).collect();
        let thread = if telling.is_empty() { thread.unwrap_or_default().to_owned() } else { String::new() };
        let place = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
        Self { level: record.level(), place, thread, telling }
    }

    /// What all events of the kind have in common.
    pub fn fields(&self) -> Fields {
        self.telling.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect()
    }
}

/// What was held back of a kind.
#[derive(Debug)]
pub struct More {
    /// Of which.
    pub kind: Kind,
    /// How many, above zero.
    pub count: u64,
    /// Within which time.
    pub within: Duration,
    /// The last that was told.
    example: String,
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} … and {} more like it in {} s", self.example, self.count, self.within.as_secs())
    }
}

/// The kinds of the last minute.
#[derive(Debug, Default)]
pub struct Repeats {
    windows: BTreeMap<Kind, Window>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    held_back: u64,
    example: String,
}

impl Repeats {
    /// What is due when an event comes, and whether the event is told. What is due is to be told either way: it is given once.
    pub fn judge(&mut self, now: Instant, kind: Kind, text: impl FnOnce() -> String) -> (Vec<More>, bool) {
        let due = self.due(now);
        (due, self.is_told(now, kind, text))
    }

    /// Whether an event is told; counts it. `text` is asked for the last one that is.
    fn is_told(&mut self, now: Instant, kind: Kind, text: impl FnOnce() -> String) -> bool {
        if self.windows.len() >= MOST && !self.windows.contains_key(&kind) {
            return true;
        }
        let window = self.windows.entry(kind).or_insert_with(|| Window {
            since: now,
            told: 0,
            held_back: 0,
            example: String::new(),
        });
        if window.told == TOLD {
            window.held_back += 1;
            return false;
        }
        window.told += 1;
        if window.told == TOLD {
            window.example = text();
        }
        true
    }

    /// Ends the windows whose time is over, and gives what was held back in them.
    pub fn due(&mut self, now: Instant) -> Vec<More> {
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return Vec::new();
        }
        self.looked = Some(now);
        self.end(now, |window| now >= window.since + WINDOW)
    }

    /// Ends all windows.
    pub fn rest(&mut self, now: Instant) -> Vec<More> {
        self.end(now, |_| true)
    }

    fn end(&mut self, now: Instant, mut is_over: impl FnMut(&Window) -> bool) -> Vec<More> {
        let over = self.windows.extract_if(.., |_, window| is_over(window));
        let more = over.filter(|(_, window)| window.held_back > 0).map(|(kind, window)| More {
            kind,
            count: window.held_back,
            within: now - window.since,
            example: window.example,
        });
        more.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: u32, thread: &str, fields: &[(&str, &str)]) -> Kind {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        let record = Record::builder().level(Level::Warn).file_static(Some("src/a.rs")).line(Some(line)).build();
        Kind::new(&record, Some(thread), &fields)
    }

    /// How many of so many events are told.
    fn told(repeats: &mut Repeats, now: Instant, kind: &Kind, events: usize) -> usize {
        (0..events).filter(|n| repeats.is_told(now, kind.clone(), || format!("event {n}"))).count()
    }

    #[test]
    fn what_repeats_is_told_ten_times_a_minute_and_then_counted() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        let same = kind(1, "job:a", &[]);
        assert_eq!(told(&mut repeats, start, &same, 1244), 10);
        assert!(repeats.due(after(59)).is_empty());
        assert_eq!(told(&mut repeats, after(59), &same, 1), 0);
        let more = repeats.due(after(60));
        assert_eq!(more.iter().map(More::to_string).collect::<Vec<_>>(), ["event 9 … and 1235 more like it in 60 s"]);
        assert_eq!((more[0].count, more[0].kind.level), (1235, Level::Warn));
        assert_eq!(told(&mut repeats, after(61), &same, 12), 10, "a new minute");
        let rest = repeats.rest(after(65));
        assert_eq!(rest.iter().map(More::to_string).collect::<Vec<_>>(), ["event 9 … and 2 more like it in 4 s"]);
        assert!(repeats.rest(after(66)).is_empty());
    }

    #[test]
    fn what_was_told_whole_is_not_told_of_again() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(told(&mut repeats, start, &kind(1, "a", &[]), 10), 10);
        assert!(repeats.due(start + WINDOW).is_empty() && repeats.windows.is_empty());
    }

    #[test]
    fn the_first_of_another_kind_is_always_told() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        let first = kind(1, "work:a:0", &[("job", "a"), ("class", "failed"), ("key", "k1")]);
        assert_eq!(told(&mut repeats, now, &first, 100), 10);
        for other in [
            kind(2, "work:a:0", &[("job", "a"), ("class", "failed")]),
            kind(1, "work:a:0", &[("job", "b"), ("class", "failed")]),
            kind(1, "work:a:0", &[("job", "a"), ("class", "timeout")]),
            kind(1, "work:a:0", &[("job", "a"), ("class", "failed"), ("queue", "q")]),
            kind(1, "connect:a", &[]),
            kind(1, "connect:b", &[]),
        ] {
            assert_eq!(told(&mut repeats, now, &other, 1), 1, "{other:?}");
        }
        let alike = kind(1, "work:a:1", &[("job", "a"), ("class", "failed"), ("key", "k2")]);
        assert_eq!(told(&mut repeats, now, &alike, 1), 0, "another message and thread is no other kind");
        let fields = alike.fields();
        assert_eq!(fields, [("job".to_owned(), "a".into()), ("class".to_owned(), "failed".into())]);
    }

    #[test]
    fn what_is_counted_is_bounded_and_nothing_is_lost_for_it() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        for line in 0..MOST as u32 {
            assert_eq!(told(&mut repeats, now, &kind(line, "a", &[]), 1), 1);
        }
        assert_eq!(told(&mut repeats, now, &kind(u32::MAX, "a", &[]), 50), 50);
        assert_eq!(told(&mut repeats, now, &kind(0, "a", &[]), 50), 9);
        assert_eq!(repeats.windows.len(), MOST);
    }

    #[test]
    fn what_is_due_is_given_also_by_an_event_that_is_held_back() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        let (one, other) = (kind(1, "job:a", &[]), kind(2, "job:a", &[]));
        told(&mut repeats, start, &one, 12);
        told(&mut repeats, start + Duration::from_secs(30), &other, 10);
        let (due, is_told) = repeats.judge(start + Duration::from_secs(61), other, || "held back".to_owned());
        assert_eq!(due.iter().map(More::to_string).collect::<Vec<_>>(), ["event 9 … and 2 more like it in 61 s"]);
        assert!(!is_told);
    }
}
