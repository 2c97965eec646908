//! What a program writes: the end of stderr as error text, and both streams to the log line by line.

use std::fmt::Write as _;

use log::Level;

use crate::task::JobName;

/// The log target of what handlers write; `RUST_LOG=warrend::handler=debug` shows it.
const TARGET: &str = "warrend::handler";

/// Bytes of stderr that are kept as error text.
const MAX_TAIL: usize = 1024;
/// Bytes of one line that reach the log.
const MAX_LINE: usize = 4096;
/// Lines of one stream of one run that reach the log.
const MAX_LINES: u32 = 1000;

/// Whether the output of programs goes to the log at all.
pub fn is_logged() -> bool {
    log::log_enabled!(target: TARGET, Level::Debug)
}

/// Names what writes, in the log.
#[derive(Debug, Clone)]
pub struct Label {
    /// The job.
    pub job: JobName,
    /// What runs for it.
    pub source: Source,
}

/// What a line of the log is from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The run for a message with this key, or without one.
    Message(Option<String>),
    /// A worker process, by its id; which message made it print is not known.
    Worker(u32),
}

/// Writes one line of a program to the log.
pub fn log_line(Label { job, source }: &Label, stream: &str, line: &str) {
    let job = &**job;
    match source {
        Source::Message(key) => {
            let key = key.as_deref().unwrap_or("-");
            log::debug!(target: TARGET, job, key, stream; "job {job}, key {key}, {stream}: {line}");
        }
        Source::Worker(worker) => {
            log::debug!(target: TARGET, job, worker, stream; "job {job}, worker {worker}, {stream}: {line}");
        }
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    /// At most twice [`MAX_TAIL`], so that old bytes are moved out once in a while and not at every chunk.
    bytes: Vec<u8>,
    /// Whether bytes were let go.
    cut: bool,
}

impl Tail {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, chunk: &[u8]) {
        let fresh = &chunk[chunk.len().saturating_sub(MAX_TAIL)..];
        if self.bytes.len() + fresh.len() > 2 * MAX_TAIL {
            let kept = MAX_TAIL - fresh.len();
            self.bytes.drain(..self.bytes.len() - kept);
            self.cut = true;
        }
        self.cut |= fresh.len() < chunk.len();
        self.bytes.extend_from_slice(fresh);
    }

    /// The tail as text of at most about a kibibyte, for people: no control character but newline and tab, no
    /// whitespace at its end, `…` at its start where more was written. Empty where nothing was.
    pub fn text(&self) -> String {
        let start = self.bytes.len().saturating_sub(MAX_TAIL);
        // The cut may have gone through a character; its remains are no text.
        let torn = if start > 0 || self.cut {
            self.bytes[start..].iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count()
        } else {
            0
        };
        let lossy = String::from_utf8_lossy(&self.bytes[start + torn..]);
        let clean: String =
            lossy.chars().map(|char| if is_plain(char) { char } else { char::REPLACEMENT_CHARACTER }).collect();
        let clean = clean.trim_end();
        // Each replaced byte became three: cut again.
        let mut cut = clean.len().saturating_sub(MAX_TAIL);
        while !clean.is_char_boundary(cut) {
            cut += 1;
        }
        let more = !clean.is_empty() && (self.cut || start > 0 || cut > 0);
        format!("{}{}", if more { "…" } else { "" }, &clean[cut..])
    }
}

fn is_plain(char: char) -> bool {
    !char.is_control() || char == '\n' || char == '\t'
}

/// Cuts a stream into log lines, with a bound on each line and on their number.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    cut: bool,
    shown: u32,
    dropped: u64,
    /// Whether the stream stands within a dropped line.
    dropping: bool,
}

impl Lines {
    /// Takes the next bytes of the stream and gives each line that they end to `emit`, escaped.
    pub fn feed(&mut self, mut chunk: &[u8], mut emit: impl FnMut(&str)) {
        while !chunk.is_empty() {
            if self.shown >= MAX_LINES {
                self.dropped += chunk.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
                self.dropping = !chunk.ends_with(b"\n");
                return;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let piece = &chunk[..end.unwrap_or(chunk.len())];
            let room = MAX_LINE - self.line.len();
            self.cut |= piece.len() > room;
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            let Some(end) = end else { return };
            self.emit(&mut emit);
            chunk = &chunk[end + 1..];
        }
    }

    /// Allows as many lines again. For streams that live long: called once in a while.
    pub fn renew(&mut self, mut emit: impl FnMut(&str)) {
        if self.dropped > 0 {
            emit(&format!("… {} more lines dropped", self.dropped));
        }
        (self.shown, self.dropped) = (0, 0);
    }

    /// Gives what is left at the end of the stream: a last line without its end, and how many lines were dropped.
    pub fn finish(mut self, mut emit: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.emit(&mut emit);
        }
        let dropped = self.dropped + u64::from(self.dropping);
        if dropped > 0 {
            emit(&format!("… {dropped} more lines dropped"));
        }
    }

    fn emit(&mut self, emit: &mut impl FnMut(&str)) {
        let mut line = escape(&String::from_utf8_lossy(&self.line));
        if self.cut {
            line.push('…');
        }
        emit(&line);
        self.line.clear();
        self.cut = false;
        self.shown += 1;
    }
}

/// What a program gave as text for people: no control character but newline and tab, cut after about a kibibyte.
pub fn short(text: &str) -> String {
    let text = text.trim_end();
    let mut cut = text.len().min(MAX_TAIL);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let clean = text[..cut].chars().map(|char| if is_plain(char) { char } else { char::REPLACEMENT_CHARACTER });
    clean.chain((cut < text.len()).then_some('…')).collect()
}

/// Text that stays one line and moves no cursor, whoever wrote it: control characters and line separators as `\u{..}`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() && char != '\t' || matches!(char, '\u{2028}' | '\u{2029}') {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "{}", char.escape_default());
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(chunks: &[&[u8]]) -> String {
        let mut tail = Tail::default();
        chunks.iter().for_each(|chunk| tail.feed(chunk));
        tail.text()
    }

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.feed(chunk, |line| found.push(line.to_owned()));
        }
        lines.finish(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn a_short_tail_is_whole_clean_and_trimmed() {
        assert_eq!(tail(&[]), "");
        assert_eq!(tail(&[b" \n\n"]), "");
        assert_eq!(tail(&[b"no ", b"such\tfile\n", b"again\n \n"]), "no such\tfile\nagain");
        assert_eq!(tail(&[b"\x1b[31mred\0\r\n\xff"]), "\u{fffd}[31mred\u{fffd}\u{fffd}\n\u{fffd}");
    }

    #[test]
    fn a_long_tail_keeps_its_end_whatever_the_chunks() {
        let text: Vec<u8> = (0..5000_u32).flat_map(|n| format!("{n} ").into_bytes()).collect();
        let whole = String::from_utf8(text.clone()).unwrap();
        // The last kibibyte ends with a space, which is trimmed.
        let expected = format!("…{}", &whole[whole.len() - MAX_TAIL..whole.len() - 1]);
        for size in [1, 7, 1000, 1024, 1025, 2048, 2049, 100_000] {
            assert_eq!(tail(&text.chunks(size).collect::<Vec<_>>()), expected, "chunks of {size}");
        }
    }

    #[test]
    fn a_tail_is_cut_between_characters_and_stays_short() {
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"€".repeat(1000);
            let tail = tail(&[text.as_bytes()]);
            assert!(tail.strip_prefix('…').unwrap().chars().all(|char| char == '€'), "{tail}");
            assert!(tail.len() > MAX_TAIL - 3);
        }
        let garbage = tail(&[&[0xff; 5000]]);
        assert!(garbage.len() <= MAX_TAIL + 3 && garbage.ends_with('\u{fffd}'), "{}", garbage.len());
    }

    #[test]
    fn a_log_line_is_one_line() {
        assert_eq!(
            lines(&[b"one\ntwo ", b"halves\n\n", b"a\x1b[2J\rb\tc\xe2\x80\xa8", b"\xff"]),
            ["one", "two halves", "", "a\\u{1b}[2J\\rb\tc\\u{2028}\u{fffd}"]
        );
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; MAX_LINE + 1];
        let expected = format!("{}…", "x".repeat(MAX_LINE));
        assert_eq!(lines(&[&long, b"y\nshort\n"]), [&expected, "short"]);
        assert_eq!(lines(&[&long[1..], b"\n"]), ["x".repeat(MAX_LINE)]);
    }

    #[test]
    fn a_stream_that_lives_long_gets_its_lines_again() {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        lines.feed(&b"line\n".repeat(MAX_LINES as usize + 3), |line| found.push(line.to_owned()));
        lines.renew(|line| found.push(line.to_owned()));
        lines.feed(b"again\n", |line| found.push(line.to_owned()));
        lines.finish(|line| found.push(line.to_owned()));
        assert_eq!(found[MAX_LINES as usize..], ["… 3 more lines dropped", "again"]);
    }

    #[test]
    fn what_is_given_as_text_is_short_and_plain() {
        assert_eq!(short("no\u{1b}[31m luck\n\n"), "no\u{fffd}[31m luck");
        let long = short(&"€".repeat(1000));
        assert!(long.len() < MAX_TAIL + 4 && long.ends_with("€…"), "{}", long.len());
    }

    #[test]
    fn many_lines_are_dropped_and_counted() {
        let many = b"line\n".repeat(MAX_LINES as usize + 3);
        for size in [1, 13, 100_000] {
            let chunks: Vec<&[u8]> = many.chunks(size).chain([&b"half"[..]]).collect();
            let found = lines(&chunks);
            assert_eq!(found.len(), MAX_LINES as usize + 1);
            assert_eq!(found.last().unwrap(), "… 4 more lines dropped");
        }
    }
}
