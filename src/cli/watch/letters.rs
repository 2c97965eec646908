//! The dead letters of a job: what they died of, which they are, and one of them whole. Read only: the commands that bring
//! them back are told, so that whoever does it sees what it takes.

use std::time::Instant;

use super::overview::keys;
use super::{Effect, Key, moved, window};
use crate::cli::dead::{Failure, read_letter, read_letters};
use crate::cli::status::line::{Line, Tone};
use crate::cli::status::screen::Paper;
use crate::cli::status::table::{self, Column, Row};
use crate::cli::status::text::{ago, counted, number, or_dash, short, span};
use crate::config::Config;
use crate::deadletters::{Entry, Fingerprint, Glance};

/// Lines that a page key passes.
const PAGE: usize = 10;

/// What is to be read. The number tells an answer from one that is no longer waited for.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// All letters of a job, in short.
    All(u64, String),
    /// One of them whole.
    One(u64, String, Which),
}

/// How a letter is found again: by its id, or where it has none, by its place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The key or message id.
    Id(String),
    /// From 1.
    Index(u64),
}

/// What was read.
pub struct Answer {
    number: u64,
    read: Result<Found, String>,
}

enum Found {
    All(Glance),
    One(String),
}

/// Reads, however long it takes.
pub fn carry_out(config: &Config, read: Read) -> Answer {
    let told = |failure: Failure| failure.text;
    match read {
        Read::All(number, job) => Answer { number, read: read_letters(config, &job).map(Found::All).map_err(told) },
        Read::One(number, job, which) => {
            let (id, index) = match &which {
                Which::Id(id) => (Some(id.as_str()), None),
                Which::Index(index) => (None, Some(*index)),
            };
            Answer { number, read: read_letter(config, &job, id, index).map(Found::One).map_err(told) }
        }
    }
}

/// The page of one job.
pub struct Letters {
    job: String,
    /// Of the question whose answer is waited for; what was asked before is of no interest.
    number: u64,
    since: Option<Instant>,
    trouble: Option<String>,
    glance: Option<Glance>,
    level: Level,
    /// The cursor among the kinds, and among the letters of a kind.
    kind: usize,
    letter: usize,
}

enum Level {
    /// What they died of.
    Kinds,
    /// The letters of the kind under the cursor.
    Entries,
    /// One letter: its lines, and the first of them that is shown.
    Whole(Vec<String>, usize),
}

impl Letters {
    /// Of that job; and what must be read for it.
    pub fn of(job: String) -> (Self, Read) {
        let number = 1;
        let read = Read::All(number, job.clone());
        let letters = Self {
            job,
            number,
            since: Some(Instant::now()),
            trouble: None,
            glance: None,
            level: Level::Kinds,
            kind: 0,
            letter: 0,
        };
        (letters, read)
    }

    /// What was asked for has come.
    pub fn on_answer(&mut self, Answer { number, read }: Answer) {
        if number != self.number || self.since.is_none() {
            return;
        }
        self.since = None;
        self.trouble = None;
        match read {
            Ok(Found::All(glance)) => self.glance = Some(glance),
            Ok(Found::One(text)) => self.level = Level::Whole(text.lines().map(str::to_owned).collect(), 0),
            Err(why) => self.trouble = Some(why),
        }
    }

    /// Whether the page stays open, and what is to be done.
    pub(super) fn on_key(&mut self, key: Key) -> (bool, Effect) {
        if matches!(key, Key::Back | Key::Char('d')) {
            return (self.back(), Effect::Nothing);
        }
        let (kinds, entries) = (self.kinds().len(), self.entries().len());
        let effect = match &mut self.level {
            Level::Kinds if key == Key::Char('g') => self.ask(Read::All),
            Level::Kinds if key == Key::Enter && kinds > 0 => {
                (self.level, self.letter) = (Level::Entries, 0);
                Effect::Nothing
            }
            Level::Entries if key == Key::Enter && entries > 0 => {
                let entry = self.entries()[self.letter.min(entries - 1)];
                let which = entry.id.clone().map_or(Which::Index(entry.index), Which::Id);
                self.ask(|number, job| Read::One(number, job, which))
            }
            Level::Kinds => {
                self.kind = moved(key, self.kind, kinds, PAGE).unwrap_or(self.kind);
                Effect::Nothing
            }
            Level::Entries => {
                self.letter = moved(key, self.letter, entries, PAGE).unwrap_or(self.letter);
                Effect::Nothing
            }
            Level::Whole(lines, first) => {
                *first = moved(key, *first, lines.len(), PAGE).unwrap_or(*first);
                Effect::Nothing
            }
        };
        (true, effect)
    }

    fn ask(&mut self, read: impl FnOnce(u64, String) -> Read) -> Effect {
        self.number += 1;
        self.since = Some(Instant::now());
        Effect::Read(read(self.number, self.job.clone()))
    }

    /// One level up; false where that is out. What is still being read is no longer waited for.
    fn back(&mut self) -> bool {
        self.trouble = None;
        let waits = self.since.take().is_some();
        match self.level {
            Level::Whole(..) => self.level = Level::Entries,
            Level::Entries if waits => {}
            Level::Entries => self.level = Level::Kinds,
            Level::Kinds => return false,
        }
        true
    }

    /// The largest first.
    fn kinds(&self) -> Vec<(&Fingerprint, u64)> {
        let groups = self.glance.iter().flat_map(|glance| &glance.survey.groups);
        let mut kinds: Vec<_> = groups.map(|(fingerprint, group)| (fingerprint, group.count)).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    fn entries(&self) -> Vec<&Entry> {
        let kinds = self.kinds();
        let Some((fingerprint, _)) = kinds.get(self.kind) else { return Vec::new() };
        let entries = self.glance.iter().flat_map(|glance| &glance.entries);
        entries.filter(|entry| entry.fingerprint == **fingerprint).collect()
    }

    /// The whole screen.
    pub fn lines(&self, paper: Paper, now: Instant, now_ms: i64) -> Vec<Line> {
        let height = paper.height.unwrap_or(usize::MAX);
        let mut lines = vec![self.title()];
        if let Some(why) = &self.trouble {
            let wrapped = crate::cli::status::text::wrap(why, paper.width.saturating_sub(3));
            lines.extend(wrapped.into_iter().map(|text| Line::of(Tone::Bad, "!  ").text(text)));
        }
        if let Some(since) = self.since {
            let age = span(now.saturating_duration_since(since).as_secs());
            lines.push(Line::of(Tone::Quiet, format!("reading the queue ... {age}")));
        }
        lines.push(Line::default());
        // The command that goes with it, and the keys.
        let room = height.saturating_sub(lines.len() + 3);
        match &self.level {
            Level::Kinds => lines.extend(self.kind_lines(room, paper, now_ms)),
            Level::Entries => {
                if let Some((kind, _)) = self.kinds().get(self.kind) {
                    // In the place of the blank line.
                    lines.pop();
                    let class = or_dash(Some(&kind.class));
                    lines.push(Line::plain(format!("{class}: {}", or_dash(Some(&kind.error)))));
                }
                lines.extend(self.entry_lines(room, paper, now_ms));
            }
            Level::Whole(text, first) => {
                lines.extend(text.iter().skip(*first).take(room).map(|text| Line::plain(text.replace('\t', "    "))));
            }
        }
        lines.resize_with(height.saturating_sub(2), Line::default);
        lines.push(self.command());
        lines.push(self.foot());
        lines.into_iter().map(|line| line.cut(paper.width, paper.glyphs)).collect()
    }

    fn title(&self) -> Line {
        let line = Line::of(Tone::Head, format!("dead letters of job {}", self.job));
        let Some(Glance { survey, queue, lies, .. }) = &self.glance else { return line };
        let line = line.text(format!(": {} in {}", counted(*lies, "letter", "letters"), or_dash(Some(queue))));
        if survey.lay < *lies { line.text(format!(", of which {} are read", number(survey.lay))) } else { line }
    }

    fn kind_lines(&self, room: usize, paper: Paper, now_ms: i64) -> Vec<Line> {
        let kinds = self.kinds();
        if kinds.is_empty() {
            let empty = self.glance.is_some();
            return if empty { vec![Line::of(Tone::Good, "none: nothing failed for good")] } else { Vec::new() };
        }
        let columns = [
            Column { head: "COUNT", rank: 9, left: false },
            Column { head: "CLASS", rank: 8, left: true },
            Column { head: "NEWEST", rank: 7, left: false },
        ];
        let newest = |fingerprint: &Fingerprint| {
            let group = self.glance.as_ref().and_then(|glance| glance.survey.groups.get(fingerprint));
            group.and_then(|group| group.span.newest).map_or_else(|| "-".to_owned(), |at| ago(now_ms, at.0))
        };
        let row = |(index, (fingerprint, count)): (usize, &(&Fingerprint, u64))| {
            let mark = if index == self.kind { "> " } else { "  " };
            let cells = [short(*count), or_dash(Some(&fingerprint.class)), newest(fingerprint)];
            Row { name: (Tone::Plain, mark.to_owned()), cells: cells.map(|text| (Tone::Plain, text)).to_vec() }
        };
        let rows: Vec<Row> = kinds.iter().enumerate().map(row).collect();
        let errors = kinds.iter().map(|(fingerprint, _)| or_dash(Some(&fingerprint.error)));
        listed(&columns, &rows, "ERROR", errors, self.kind, room, paper)
    }

    fn entry_lines(&self, room: usize, paper: Paper, now_ms: i64) -> Vec<Line> {
        let entries = self.entries();
        let columns = [
            Column { head: "PLACE", rank: 9, left: false },
            Column { head: "FAILED", rank: 8, left: false },
            Column { head: "ATTEMPTS", rank: 7, left: false },
            Column { head: "BYTES", rank: 6, left: false },
        ];
        let row = |(index, entry): (usize, &&Entry)| {
            let mark = if index == self.letter { "> " } else { "  " };
            let cells = [
                number(entry.index),
                entry.failed_at.map_or_else(|| "-".to_owned(), |at| ago(now_ms, at.0)),
                entry.attempts.map_or_else(|| "-".to_owned(), |n| n.to_string()),
                short(entry.bytes as u64),
            ];
            Row { name: (Tone::Plain, mark.to_owned()), cells: cells.map(|text| (Tone::Plain, text)).to_vec() }
        };
        let rows: Vec<Row> = entries.iter().enumerate().map(row).collect();
        let ids = entries.iter().map(|entry| or_dash(entry.id.as_deref()));
        listed(&columns, &rows, "ID", ids, self.letter, room, paper)
    }

    /// What can be typed elsewhere to bring letters back.
    fn command(&self) -> Line {
        let job = &self.job;
        let command = match &self.level {
            Level::Kinds => format!("warrend dead replay {job}"),
            Level::Entries | Level::Whole(..) => {
                let entries = self.entries();
                match entries.get(self.letter).and_then(|entry| entry.id.as_deref()) {
                    Some(id) => format!("warrend dead replay {job} --id {}", shell_word(id)),
                    None => format!("warrend dead replay {job}"),
                }
            }
        };
        Line::of(Tone::Quiet, "to bring back: ").and(Tone::Command, command)
    }

    fn foot(&self) -> Line {
        match self.level {
            Level::Kinds => keys(&[("Enter", "letters of a kind"), ("g", "read again"), ("Esc", "back"), ("q", "end")]),
            Level::Entries => keys(&[("Enter", "one letter whole"), ("Esc", "back"), ("q", "end")]),
            Level::Whole(..) => keys(&[("up, down", "scroll"), ("Esc", "back"), ("q", "end")]),
        }
    }
}

/// Rows with a last column of text, which gets what is left of the line.
fn listed(
    columns: &[Column],
    rows: &[Row],
    head: &'static str,
    texts: impl Iterator<Item = String>,
    selected: usize,
    room: usize,
    paper: Paper,
) -> Vec<Line> {
    let lines = table::lines("", columns, rows, paper.width / 2, false, paper.glyphs);
    let texts = std::iter::once(head.to_owned()).chain(texts);
    let tone = |index: usize| if index == 0 { Tone::Head } else { Tone::Plain };
    let lines =
        lines.into_iter().zip(texts).enumerate().map(|(index, (line, text))| line.text("  ").and(tone(index), text));
    let mut lines: Vec<Line> = lines.map(|line| line.cut(paper.width, paper.glyphs)).collect();
    let body = lines.split_off(1);
    let range = window(body.len(), selected, room.saturating_sub(1));
    for (index, line) in body.into_iter().enumerate().skip(range.start).take(range.len()) {
        lines.push(if index == selected { line.chosen(paper.width) } else { line });
    }
    lines
}

/// As a shell takes it for one word. What a terminal would obey stands as bash reads it in `$'…'`.
fn shell_word(text: &str) -> String {
    if crate::logging::clean(text) == text {
        return crate::shell::word(text);
    }
    let byte = |byte: &u8| {
        if (b' '..=b'~').contains(byte) && !matches!(byte, b'\'' | b'\\') {
            char::from(*byte).to_string()
        } else {
            format!("\\x{byte:02x}")
        }
    };
    format!("$'{}'", text.as_bytes().iter().map(byte).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_word_of_a_shell() {
        let told = [("01c8f0de-7", "01c8f0de-7"), ("it's", r"'it'\''s'"), ("a\n'\u{1b}", r"$'a\x0a\x27\x1b'")];
        for (id, word) in told {
            assert_eq!(shell_word(id), word);
        }
    }
}
