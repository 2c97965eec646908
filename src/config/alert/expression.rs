//! What stands in `when`: a quantity, and for a number `<` or `>` and what it is compared with.
//!
//! There is nothing else on purpose: no `and`, no arithmetic. Two alerts say what one with `or` would, and what takes more is
//! a question for Prometheus.

use std::ops::Range;

use crate::config::shape::nearest;
use crate::config::value::{parse_duration, parse_size};

/// What an alert looks at. What each is measured by stands in `policy/alerts/measure.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Messages that wait in the queues of a job.
    Ready,
    /// Messages in its dead-letter queue.
    DeadReady,
    /// Tasks that it completes.
    Rate,
    /// Attempts that fail and are tried again.
    RetriedRate,
    /// Messages that it dead-letters.
    DeadRate,
    /// Attempts that failed, of those that ended.
    ErrorRatio,
    /// How long the oldest message has waited that came here and has not begun.
    OldestWait,
    /// The job is paused, by hand or by itself.
    Paused,
    /// One of its queues delivers nothing although it should.
    Stalled,
    /// One of its queues has no consumer.
    NoConsumers,
    /// A connection of the daemon is gone.
    Disconnected,
    /// RabbitMQ takes no messages.
    Blocked,
    /// `status` tells of a problem that is no alert.
    Degraded,
    /// What is left on the file system of the store.
    DiskFree,
    /// The store's file and its log.
    StoreBytes,
}

/// What a quantity is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A whole number.
    Count,
    /// So many in a time.
    Rate,
    /// From 0 to 1.
    Ratio,
    /// A time.
    Duration,
    /// Bytes.
    Size,
    /// Nothing: it is so, or not.
    State,
}

/// On which side of its bound a quantity sets an alert off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `>`
    Above,
    /// `<`
    Below,
}

/// What a number is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Where it sets the alert off.
    pub side: Side,
    /// Counts, events a second, a ratio, seconds, or bytes.
    pub value: f64,
    /// Of a rate: the time that it was written with, in seconds. 1 for all others.
    pub per: u32,
}

/// `when`, as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub quantity: Quantity,
    /// Absent for what is so or not.
    pub bound: Option<Bound>,
    /// In one form, however it was written: `ready > 1000`.
    pub text: String,
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The bytes that are wrong.
    pub at: Range<usize>,
    /// In one lowercase sentence.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl Quantity {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 15] = [
        Self::Ready,
        Self::DeadReady,
        Self::Rate,
        Self::RetriedRate,
        Self::DeadRate,
        Self::ErrorRatio,
        Self::OldestWait,
        Self::Paused,
        Self::Stalled,
        Self::NoConsumers,
        Self::Disconnected,
        Self::Blocked,
        Self::Degraded,
        Self::DiskFree,
        Self::StoreBytes,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::DeadReady => "dead_ready",
            Self::Rate => "rate",
            Self::RetriedRate => "retried_rate",
            Self::DeadRate => "dead_rate",
            Self::ErrorRatio => "error_ratio",
            Self::OldestWait => "oldest_wait",
            Self::Paused => "paused",
            Self::Stalled => "stalled",
            Self::NoConsumers => "no_consumers",
            Self::Disconnected => "disconnected",
            Self::Blocked => "blocked",
            Self::Degraded => "degraded",
            Self::DiskFree => "disk_free",
            Self::StoreBytes => "store_bytes",
        }
    }

    /// What it is compared with.
    pub fn unit(self) -> Unit {
        match self {
            Self::Ready | Self::DeadReady => Unit::Count,
            Self::Rate | Self::RetriedRate | Self::DeadRate => Unit::Rate,
            Self::ErrorRatio => Unit::Ratio,
            Self::OldestWait => Unit::Duration,
            Self::DiskFree | Self::StoreBytes => Unit::Size,
            Self::Paused | Self::Stalled | Self::NoConsumers | Self::Disconnected | Self::Blocked | Self::Degraded => {
                Unit::State
            }
        }
    }

    /// Whether each job has one of its own.
    pub fn is_of_jobs(self) -> bool {
        match self {
            Self::Ready
            | Self::DeadReady
            | Self::Rate
            | Self::RetriedRate
            | Self::DeadRate
            | Self::ErrorRatio
            | Self::OldestWait
            | Self::Paused
            | Self::Stalled
            | Self::NoConsumers => true,
            Self::Disconnected | Self::Blocked | Self::Degraded | Self::DiskFree | Self::StoreBytes => false,
        }
    }

    /// Whether it is counted over a time.
    pub fn is_counted(self) -> bool {
        matches!(self.unit(), Unit::Rate | Unit::Ratio)
    }

    /// How it may be written.
    fn example(self) -> &'static str {
        match self {
            Self::Ready => "ready > 1000",
            Self::DeadReady => "dead_ready > 0",
            Self::Rate => "rate < 1/m",
            Self::RetriedRate => "retried_rate > 10/m",
            Self::DeadRate => "dead_rate > 1/m",
            Self::ErrorRatio => "error_ratio > 0.2",
            Self::OldestWait => "oldest_wait > 5m",
            Self::DiskFree => "disk_free < 1GiB",
            Self::StoreBytes => "store_bytes > 10GiB",
            Self::Paused | Self::Stalled | Self::NoConsumers | Self::Disconnected | Self::Blocked | Self::Degraded => {
                self.as_str()
            }
        }
    }
}

impl Condition {
    /// Over what time a rate or ratio is counted, where nothing else is said: the time that a rate is written with, at least a
    /// minute. In seconds.
    pub fn natural_window(&self) -> u32 {
        self.bound.map_or(60, |bound| bound.per.max(60))
    }
}

/// Reads an expression.
pub fn parse(text: &str) -> Result<Condition, Fault> {
    let begin = text.len() - text.trim_start().len();
    let whole = begin..text.trim_end().len().max(begin);
    let name_end = text[begin..].find(|c: char| c.is_whitespace() || "<>=!".contains(c));
    let name_end = name_end.map_or(whole.end, |length| begin + length);
    let quantity = quantity(&text[begin..name_end], begin..name_end)?;
    let name = quantity.as_str();
    let after = text.get(name_end..whole.end).unwrap_or_default();
    let rest = whole.end - after.trim_start().len()..whole.end;
    if quantity.unit() == Unit::State {
        if rest.is_empty() {
            return Ok(Condition { quantity, bound: None, text: name.to_owned() });
        }
        let message = format!("`{name}` is so or not: it is compared with nothing");
        return Err(Fault { at: rest, message, help: format!("write \"{name}\"") });
    }
    let example = quantity.example();
    if rest.is_empty() {
        let message = format!("`{name}` is compared with nothing");
        return Err(Fault { at: begin..name_end, message, help: format!("write it as in \"{example}\"") });
    }
    let (side, operator_end) = operator(text, &rest, example)?;
    let value = text[operator_end..whole.end].trim_start();
    let at = whole.end - value.len()..whole.end;
    if value.is_empty() {
        let message = "nothing stands after the comparison".to_owned();
        return Err(Fault { at: rest.start..operator_end, message, help: format!("write it as in \"{example}\"") });
    }
    let wrong = |(message, help)| Fault { at: at.clone(), message, help };
    let (number, per) = bound(quantity, value).map_err(wrong)?;
    if number == 0.0 && side == Side::Below {
        let message = format!("`{name}` is never below zero");
        return Err(Fault { at: rest, message, help: "give a bound above zero, or compare with >".to_owned() });
    }
    let sign = if side == Side::Above { '>' } else { '<' };
    let bound = Some(Bound { side, value: number, per });
    Ok(Condition { quantity, bound, text: format!("{name} {sign} {value}") })
}

fn quantity(name: &str, at: Range<usize>) -> Result<Quantity, Fault> {
    if let Some(quantity) = Quantity::ALL.into_iter().find(|quantity| quantity.as_str() == name) {
        return Ok(quantity);
    }
    let names = Quantity::ALL.map(Quantity::as_str);
    let meant = nearest(name, &names).map_or_else(String::new, |meant| format!("did you mean `{meant}`? "));
    let message = if name.is_empty() { "this expression names no quantity" } else { "there is no such quantity" };
    Err(Fault { at, message: message.to_owned(), help: format!("{meant}allowed: {}", names.join(", ")) })
}

/// The comparison at the begin of `rest`, and where it ends.
fn operator(text: &str, rest: &Range<usize>, example: &str) -> Result<(Side, usize), Fault> {
    let signs = text[rest.clone()].find(|c: char| !"<>=!".contains(c)).unwrap_or(rest.len());
    let at = rest.start..rest.start + signs;
    match &text[at.clone()] {
        ">" => Ok((Side::Above, at.end)),
        "<" => Ok((Side::Below, at.end)),
        "" => {
            let word = text[rest.clone()].find(char::is_whitespace).unwrap_or(rest.len());
            let at = rest.start..rest.start + word;
            let message = "a comparison is missing here".to_owned();
            Err(Fault { at, message, help: format!("allowed: < and >, as in \"{example}\"") })
        }
        _ => {
            let message = "an alert compares with < or > alone".to_owned();
            Err(Fault { at, message, help: format!("write it as in \"{example}\"") })
        }
    }
}

/// A message and its mend.
type Wrong = (String, String);

/// The number, and the seconds of a rate's unit.
fn bound(quantity: Quantity, text: &str) -> Result<(f64, u32), Wrong> {
    let name = quantity.as_str();
    let as_in = |what: &str| (format!("`{name}` is {what}"), format!("write it as in \"{}\"", quantity.example()));
    match quantity.unit() {
        Unit::Count => {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u32>().ok().filter(|_| digits);
            number.map(|number| (f64::from(number), 1)).ok_or_else(|| as_in("compared with a whole number"))
        }
        Unit::Rate => rate(quantity, text),
        Unit::Ratio => {
            let ratio = match text.strip_suffix('%') {
                Some(percent) => number(percent.trim_end()).map(|percent| percent / 100.0),
                None => number(text),
            };
            let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.map(|ratio| (ratio, 1)).ok_or_else(|| as_in("compared with a number from 0 to 1, or with percents"))
        }
        Unit::Duration => match parse_duration(text) {
            Ok(duration) => Ok((duration.as_secs_f64(), 1)),
            Err(mend) => Err((format!("`{name}` is compared with a duration"), mend)),
        },
        Unit::Size => match parse_size(text) {
            Ok(size) => Ok((size as f64, 1)),
            Err(mend) => Err((format!("`{name}` is compared with a size"), mend)),
        },
        Unit::State => Err(as_in("compared with nothing")),
    }
}

/// The units of a rate, other spellings that people try, and their seconds.
const TIMES: [(&str, &[&str], u32); 3] =
    [("s", &["sec", "second", "1s"], 1), ("m", &["min", "minute", "1m"], 60), ("h", &["hr", "hour", "1h"], 3600)];

/// Events in a time, given back as events a second.
fn rate(quantity: Quantity, text: &str) -> Result<(f64, u32), Wrong> {
    let message = format!("`{}` is compared with a rate", quantity.as_str());
    let example = quantity.example();
    let Some((count, time)) = text.split_once('/') else {
        let help = match number(text) {
            Some(_) => format!("add the time: \"{text}/s\", \"{text}/m\" or \"{text}/h\""),
            None => format!("write it as in \"{example}\""),
        };
        return Err((message, help));
    };
    let (count, time) = (count.trim_end(), time.trim_start());
    let Some(number) = number(count) else {
        return Err((message, format!("write it as in \"{example}\"")));
    };
    match TIMES.iter().find(|(unit, ..)| *unit == time) {
        Some((_, _, seconds)) => Ok((number / f64::from(*seconds), *seconds)),
        None => {
            let meant = TIMES.iter().find(|(_, others, _)| others.contains(&time));
            let meant = meant.map_or_else(String::new, |(unit, ..)| format!("did you mean \"{count}/{unit}\"? "));
            Err((message, format!("{meant}allowed: /s, /m and /h")))
        }
    }
}

/// Digits, and a fraction where there is one: neither a sign nor an exponent.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain && text.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_quantity_in_one_form() {
        for quantity in Quantity::ALL {
            let read = parse(quantity.example()).unwrap();
            assert_eq!((read.quantity, read.text.as_str()), (quantity, quantity.example()));
            assert_eq!(read.bound.is_none(), quantity.unit() == Unit::State);
        }
        let check = |text: &str, form: &str, side: Side, value: f64, per: u32| {
            let read = parse(text).unwrap();
            assert_eq!((read.text.as_str(), read.bound), (form, Some(Bound { side, value, per })), "{text}");
        };
        check("  ready>1000 ", "ready > 1000", Side::Above, 1000.0, 1);
        check("rate < 90/m", "rate < 90/m", Side::Below, 1.5, 60);
        check("rate > 0.5/s", "rate > 0.5/s", Side::Above, 0.5, 1);
        check("dead_rate>36/h", "dead_rate > 36/h", Side::Above, 0.01, 3600);
        check("error_ratio > 25%", "error_ratio > 25%", Side::Above, 0.25, 1);
        check("oldest_wait\t>\t5m", "oldest_wait > 5m", Side::Above, 300.0, 1);
        check("disk_free < 1GiB", "disk_free < 1GiB", Side::Below, (1_u64 << 30) as f64, 1);
        assert_eq!(parse("dead_rate > 1/h").unwrap().natural_window(), 3600);
        assert_eq!(parse("rate > 1/s").unwrap().natural_window(), 60);
    }

    /// What is marked, and a part of the message or its mend.
    #[test]
    fn says_what_is_wrong_and_where() {
        let check = |text: &str, marked: &str, part: &str| {
            let fault = parse(text).expect_err(text);
            let said = format!("{} | {}", fault.message, fault.help);
            assert_eq!(&text[fault.at], marked, "{text}: {said}");
            assert!(said.contains(part), "{text}: expected {part}\n{said}");
        };
        check("", "", "names no quantity");
        check("   ", "", "names no quantity");
        check("> 5", "", "names no quantity");
        check("redy > 5", "redy", "did you mean `ready`?");
        check("queue_depth > 5", "queue_depth", "allowed: ready, dead_ready, ");
        check("ready", "ready", "write it as in \"ready > 1000\"");
        check("ready >", ">", "nothing stands after");
        check("ready >= 5", ">=", "< or > alone");
        check("ready == 5", "==", "< or > alone");
        check("ready > > 5", "> 5", "a whole number");
        check("ready above 5", "above", "allowed: < and >");
        check("ready > -5", "-5", "a whole number");
        check("ready > 1.5", "1.5", "a whole number");
        check("ready > 1k", "1k", "a whole number");
        check("ready < 0", "< 0", "never below zero");
        check("ready > 5 and rate < 1/s", "5 and rate < 1/s", "a whole number");
        check("rate > 100", "100", "\"100/s\", \"100/m\" or \"100/h\"");
        check("rate > 1/min", "1/min", "did you mean \"1/m\"?");
        check("rate > 1/d", "1/d", "allowed: /s, /m and /h");
        check("rate > fast/s", "fast/s", "rate < 1/m");
        check("rate > 1e9/s", "1e9/s", "rate < 1/m");
        check("rate > inf/s", "inf/s", "rate < 1/m");
        check("error_ratio > 20", "20", "from 0 to 1");
        check("error_ratio > 120%", "120%", "from 0 to 1");
        check("oldest_wait > 5", "5", "add the unit: \"5s\"");
        check("oldest_wait > 5min", "5min", "did you mean \"5m\"?");
        check("disk_free < 1G", "1G", "did you mean \"1GiB\"?");
        check("disk_free < 10%", "10%", "a whole number and one of B");
        check("stalled > 1", "> 1", "write \"stalled\"");
        check("paused = true", "= true", "write \"paused\"");
    }

    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn any_text_is_read_or_marked(text in prop_oneof![
                any::<String>(),
                "[ ]{0,2}[a-z_]{1,12} ?[<>=!]{0,2} ?[0-9./a-zA-Z%é]{0,8}[ ]{0,2}",
                "(ready|rate|disk_free|stalled|error_ratio|oldest_wait) ?[<>] ?[0-9]{0,30}[./%a-zA-Z]{0,4}",
            ]) {
                match parse(&text) {
                    Ok(read) => prop_assert_eq!(parse(&read.text), Ok(read)),
                    Err(fault) => {
                        prop_assert!(text.get(fault.at.clone()).is_some(), "{:?} of {:?}", fault.at, text);
                        prop_assert!(!fault.message.is_empty() && !fault.help.is_empty());
                    }
                }
            }
        }
    }
}
