//! Numbers, times and names as `status` prints them: short, and as wide as they are said to be.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

pub use crate::cli::figures::{number, size, span};
use crate::logging::clean;

/// The signs that a terminal can show, by its locale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyphs {
    /// For what was cut off.
    pub ellipsis: &'static str,
    /// For a look at which nothing had been done.
    pub nothing: &'static str,
    /// Eight heights.
    pub bars: [&'static str; 8],
}

impl Glyphs {
    /// Of Unicode.
    pub const UNICODE: Self =
        Self { ellipsis: "…", nothing: "·", bars: ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"] };
    /// Of terminals that show nothing else.
    pub const ASCII: Self = Self { ellipsis: "..", nothing: ".", bars: ["-", "-", ":", ":", "+", "+", "#", "#"] };

    /// By the variables that setlocale(3) reads, in its order.
    pub fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default().to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { Self::UNICODE } else { Self::ASCII }
    }
}

/// Columns on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// At most so many columns of it; what is cut off is told.
pub fn cut(text: &str, most: usize, glyphs: Glyphs) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(width(glyphs.ellipsis));
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    let kept: String = text.chars().take_while(fits).collect();
    if most < width(glyphs.ellipsis) { kept } else { kept + glyphs.ellipsis }
}

/// The same from the front: of a path the end tells most.
pub fn cut_front(text: &str, most: usize, glyphs: Glyphs) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let backwards: String = text.chars().rev().collect();
    let kept = cut(&backwards, most.saturating_sub(width(glyphs.ellipsis)), Glyphs { ellipsis: "", ..glyphs });
    format!("{}{}", glyphs.ellipsis, kept.chars().rev().collect::<String>())
}

/// Words in lines of at most so many columns; a word that is longer is broken.
pub fn wrap(text: &str, most: usize) -> Vec<String> {
    let most = most.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && width(line) + 1 + width(word) <= most {
            line.push(' ');
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(String::new());
        }
        for c in word.chars() {
            let line = lines.last_mut().expect("there is always one");
            if !line.is_empty() && width(line) + c.width().unwrap_or(0) > most {
                lines.push(String::new());
            }
            lines.last_mut().expect("there is always one").push(c);
        }
    }
    lines
}

/// A name of somebody else's on one line, or a dash where it is not known.
pub fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), clean)
}

/// A count in at most five columns: `9999`, `12.3k`, `4.5M`.
pub fn short(n: u64) -> String {
    const UNITS: [(&str, u64); 5] =
        [("k", 1000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000), ("P", 1_000_000_000_000_000)];
    if n < 10_000 {
        return n.to_string();
    }
    // The first unit of which there are fewer than a thousand, as they are shown.
    let unit = UNITS.iter().find(|(_, unit)| n < 1000 * unit - unit / 2);
    let (sign, unit) = unit.unwrap_or(&UNITS[UNITS.len() - 1]);
    let tenths = (u128::from(n) * 10 + u128::from(unit / 2)) / u128::from(*unit);
    if tenths < 1000 {
        format!("{}.{}{sign}", tenths / 10, tenths % 10)
    } else {
        format!("{}{sign}", (u128::from(n) + u128::from(unit / 2)) / u128::from(*unit))
    }
}

/// The same for what is counted each second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        _ if per_second < 99.95 => format!("{per_second:.1}"),
        _ => short(per_second.round() as u64),
    }
}

/// `1 retry`, `2 retries`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// Milliseconds, or a longer time where they are many.
pub fn millis(ms: f64) -> String {
    match ms {
        _ if ms < 9.95 => format!("{ms:.1}ms"),
        _ if ms < 999.5 => format!("{ms:.0}ms"),
        _ if ms < 99_950.0 => format!("{:.1}s", ms / 1000.0),
        _ if ms < 5_970_000.0 => format!("{:.0}m", ms / 60_000.0),
        _ => format!("{:.0}h", ms / 3_600_000.0),
    }
}

/// How long ago, in its largest unit.
pub fn ago(now_ms: i64, at_ms: i64) -> String {
    let seconds = u64::try_from(now_ms.saturating_sub(at_ms) / 1000).unwrap_or(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short_and_right() {
        let told = [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (12_349, "12.3k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (4_500_000, "4.5M"),
            (123_456_789_012, "123G"),
        ];
        for (n, text) in told {
            assert_eq!(short(n), text, "{n}");
        }
        let mut n = 1_u64;
        while n < u64::MAX / 3 {
            assert!(width(&short(n)) <= 5, "{n}: {}", short(n));
            n = n * 3 + 1;
        }
        assert_eq!((rate(0.04), rate(99.96), rate(12_345.0)), ("0.0".to_owned(), "100".to_owned(), "12.3k".to_owned()));
    }

    #[test]
    fn what_is_cut_fits_whatever_it_was() {
        for (text, most) in [("thumbnails", 10), ("thumbnails", 9), ("漢字漢字", 5), ("", 0), ("abc", 0), ("abc", 1)]
        {
            for glyphs in [Glyphs::UNICODE, Glyphs::ASCII] {
                assert!(width(&cut(text, most, glyphs)) <= most, "{text} {most}");
            }
        }
        assert_eq!(cut("thumbnails", 9, Glyphs::UNICODE), "thumbnai…");
        assert_eq!(cut("漢字漢字", 6, Glyphs::UNICODE), "漢字…");
        assert_eq!(cut_front("/var/lib/warrend.db", 10, Glyphs::ASCII), "..rrend.db");
    }

    #[test]
    fn lines_are_wrapped_between_words_and_within_long_ones() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("aaaaaaaaaa b", 4), ["aaaa", "aaaa", "aa b"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn times_are_told_in_units_that_fit() {
        let told = [(1.25, "1.2ms"), (12.0, "12ms"), (1250.0, "1.2s"), (120_000.0, "2m"), (7_200_000.0, "2h")];
        for (ms, text) in told {
            assert_eq!(millis(ms), text);
        }
        assert_eq!((ago(90_000, 0), ago(0, 5)), ("1 min ago".to_owned(), "0 s ago".to_owned()));
    }

    #[test]
    fn signs_follow_the_locale() {
        let of = |name: &'static str, value: &'static str| {
            Glyphs::of_locale(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(of("LANG", "de_DE.UTF-8"), Glyphs::UNICODE);
        assert_eq!(of("LC_CTYPE", "C.utf8"), Glyphs::UNICODE);
        assert_eq!(of("LC_ALL", "C"), Glyphs::ASCII);
        assert_eq!(Glyphs::of_locale(|_| None), Glyphs::ASCII);
    }
}
