//! Durations and sizes as text: `"500ms"`, `"14d"`, `"64KiB"`.

use std::time::Duration;

/// Longest duration that is read: a hundred years. Times stay far from every overflow downstream.
pub const LONGEST: Duration = days(36_500);

/// So many milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many days of 86,400 seconds.
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

/// The units of a duration, from the largest, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Other spellings of those units that people try.
const DURATION_SPELLINGS: [(&str, &[&str]); 5] = [
    ("d", &["day", "days", "D"]),
    ("h", &["hr", "hrs", "hour", "hours", "H"]),
    ("m", &["min", "mins", "minute", "minutes", "M"]),
    ("s", &["sec", "secs", "second", "seconds", "S"]),
    ("ms", &["msec", "msecs", "millis", "millisecond", "milliseconds", "MS"]),
];

/// The units of a size, in bytes.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Other spellings of those units that people try; they may mean either kilo, so they are asked, not guessed.
const SIZE_SPELLINGS: [(&str, &[&str]); 4] = [
    ("B", &["b", "bytes", "byte"]),
    ("KiB", &["K", "k", "Ki", "KB", "kb", "kib"]),
    ("MiB", &["M", "m", "Mi", "mb", "mib"]),
    ("GiB", &["G", "g", "Gi", "gb", "gib"]),
];

/// Reads a duration: a whole number and a unit. The error is the mend.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let allowed = "a whole number and one of ms, s, m, h, d, such as \"500ms\" or \"30s\"";
    let value = whole_number(text, number, unit, "s", allowed)?;
    let Some(&(_, scale)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(mend(number, unit, &DURATION_SPELLINGS, allowed));
    };
    let total = value.checked_mul(scale).map(Duration::from_millis);
    total.filter(|total| *total <= LONGEST).ok_or_else(|| format!("at most \"{}\"", show_duration(LONGEST)))
}

/// Reads a size: a whole number and a unit. The error is the mend.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let allowed = "a whole number and one of B, KiB, MiB, GiB (or kB, MB, GB: powers of 1000), such as \"64KiB\"";
    let value = whole_number(text, number, unit, "B", allowed)?;
    let Some(&(_, scale)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(mend(number, unit, &SIZE_SPELLINGS, allowed));
    };
    let total = value.checked_mul(scale).filter(|total| i64::try_from(*total).is_ok());
    total.ok_or_else(|| "a smaller size: this one does not fit 63 bits".to_owned())
}

/// A duration in its largest whole unit, as the configuration writes it.
pub fn show_duration(duration: Duration) -> String {
    let total = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = DURATION_UNITS.iter().find(|(_, scale)| total.is_multiple_of(*scale) && total >= *scale);
    let (name, scale) = unit.copied().unwrap_or(("s", 1_000));
    format!("{}{name}", total / scale)
}

/// A size in its largest whole unit of powers of 1024, as the configuration writes it.
pub fn show_size(size: u64) -> String {
    let binary = SIZE_UNITS[..4].iter().rev();
    let unit = binary.into_iter().find(|(_, scale)| size.is_multiple_of(*scale) && size >= *scale);
    let (name, scale) = unit.copied().unwrap_or(("B", 1));
    format!("{}{name}", size / scale)
}

/// Splits the leading digits from the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The number before the unit; the error says what is allowed, or which unit to add.
fn whole_number(text: &str, number: &str, unit: &str, likely: &str, allowed: &str) -> Result<u64, String> {
    if number.is_empty() {
        return Err(allowed.to_owned());
    }
    if unit.is_empty() {
        return Err(format!("add the unit: \"{text}{likely}\""));
    }
    if unit.starts_with(['.', ',']) {
        return Err(format!("{allowed}; fractions are written in the next smaller unit"));
    }
    number.parse().map_err(|_| format!("a smaller number; {allowed}"))
}

/// The mend for a unit that is not known.
fn mend(number: &str, unit: &str, spellings: &[(&str, &[&str])], allowed: &str) -> String {
    let unit = unit.trim_start();
    let meant = spellings.iter().find(|(name, others)| *name == unit || others.contains(&unit));
    match meant {
        Some((name, _)) => format!("did you mean \"{number}{name}\"?"),
        None => format!("write {allowed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let check = |text: &str, expect: Duration| assert_eq!(parse_duration(text), Ok(expect), "{text}");
        check("500ms", millis(500));
        check("0s", Duration::ZERO);
        check("30s", secs(30));
        check("5m", secs(300));
        check("2h", secs(7_200));
        check("14d", days(14));
        check("36500d", LONGEST);
        check("007s", secs(7));
    }

    #[test]
    fn says_how_to_write_a_duration() {
        let check = |text: &str, part: &str| {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        };
        check("30", "add the unit: \"30s\"");
        check("5min", "did you mean \"5m\"?");
        check("5 s", "did you mean \"5s\"?");
        check("2hours", "did you mean \"2h\"?");
        check("", "a whole number and one of");
        check("s", "a whole number and one of");
        check("-5s", "a whole number and one of");
        check("1.5h", "next smaller unit");
        check("1h30m", "a whole number and one of");
        check("10us", "a whole number and one of");
        check("99999999999999999999s", "a smaller number");
        check("18446744073709551615d", "at most \"36500d\"");
        check("36501d", "at most \"36500d\"");
    }

    #[test]
    fn reads_sizes() {
        let check = |text: &str, expect: u64| assert_eq!(parse_size(text), Ok(expect), "{text}");
        check("512B", 512);
        check("64KiB", 65_536);
        check("16MiB", 16 << 20);
        check("1GiB", 1 << 30);
        check("10kB", 10_000);
        check("10MB", 10_000_000);
        check("2GB", 2_000_000_000);
    }

    #[test]
    fn says_how_to_write_a_size() {
        let check = |text: &str, part: &str| {
            let error = parse_size(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        };
        check("64", "add the unit: \"64B\"");
        check("64K", "did you mean \"64KiB\"?");
        check("64KB", "did you mean \"64KiB\"?");
        check("16 MiB", "did you mean \"16MiB\"?");
        check("1.5MiB", "next smaller unit");
        check("many", "a whole number and one of");
        check("9999999999GiB", "63 bits");
    }

    #[test]
    fn shows_durations_as_they_are_written() {
        for text in ["500ms", "30s", "5m", "2h", "14d", "1500ms", "90m", "0s", "36500d"] {
            let duration = parse_duration(text).expect("a good duration");
            assert_eq!(show_duration(duration), text);
        }
    }

    #[test]
    fn shows_sizes_as_they_are_written() {
        for text in ["1B", "1023B", "64KiB", "1536KiB", "16MiB", "3GiB", "0B"] {
            assert_eq!(show_size(parse_size(text).expect("a good size")), text);
        }
        assert_eq!(show_size(10_000), "10000B");
    }

    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn any_text_is_read_or_mended(text in prop_oneof![any::<String>(), "[0-9]{1,25}.{0,6}", "[0-9]{1,20} ?[a-zA-Z]{0,4}"]) {
                if let Ok(duration) = parse_duration(&text) {
                    prop_assert!(duration <= LONGEST);
                    prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
                }
                if let Ok(size) = parse_size(&text) {
                    prop_assert!(i64::try_from(size).is_ok());
                }
            }
        }
    }
}
