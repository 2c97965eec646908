//! The list of jobs, with the one under the cursor told in full.

use std::time::{Duration, Instant};

use super::feeds::Ask;
use super::letters::Letters;
use super::rates::LOOKS;
use super::{Effect, Key, View, Watch, moved, window};
use crate::cli::status::line::{Line, Tone};
use crate::cli::status::screen::{self, Paper};
use crate::cli::status::table::{self, Column};
use crate::cli::status::text::span;
use crate::cli::status::{jobs, notes, problems};
use crate::report::{Job, Status};
use crate::task::UnixMillis;

/// Lines of a problem, without its command.
const LONGEST_PROBLEM: usize = 2;
/// Lines for the notes on the job under the cursor, at most.
const MOST_NOTES: usize = 4;
/// Jobs that a page key passes.
const PAGE: usize = 10;
/// An answer that is older than this is old news.
const OLD: Duration = Duration::from_secs(4);
/// Where the bars stand among the columns.
const ACTIVITY: usize = 5;

impl Watch {
    /// The whole screen.
    pub(super) fn overview(&self, paper: Paper, now: Instant) -> Vec<Line> {
        let height = paper.height.unwrap_or(usize::MAX);
        let space = (height / 6).min(MOST_NOTES);
        let Some((status, at)) = &self.status else {
            let mut lines = vec![self.waiting()];
            lines.resize_with(height.saturating_sub(1), Line::default);
            lines.push(Line::of(Tone::Quiet, "q end"));
            return lines;
        };
        let mut lines = self.head(status, *at, paper, now);
        lines.push(Line::default());
        let all = jobs::in_order(status, false);
        let selected = all.iter().position(|(name, _)| Some(*name) == self.selected.as_deref()).unwrap_or(0);
        let notes = all.get(selected).map_or_else(Vec::new, |(name, job)| about(name, job, space, paper));
        // The heading, a blank line, the notes and the keys.
        let room = height.saturating_sub(lines.len() + 1 + 1 + space + 1);
        lines.extend(self.table(&all, selected, room, paper));
        // The notes have their place, so that nothing jumps while the cursor moves.
        lines.resize_with(height.saturating_sub(space + 1), Line::default);
        lines.extend(notes);
        lines.resize_with(height.saturating_sub(1), Line::default);
        lines.push(self.foot(now).cut(paper.width, paper.glyphs));
        lines
    }

    /// Before there was an answer.
    fn waiting(&self) -> Line {
        match &self.trouble {
            None => Line::plain(format!("asking {} ...", self.socket)),
            Some(why) => Line::of(Tone::Bad, "!  ").text(why.clone()).and(Tone::Quiet, "; asking again"),
        }
    }

    fn head(&self, status: &Status, at: Instant, paper: Paper, now: Instant) -> Vec<Line> {
        let mut lines = screen::head(status, paper);
        let age = now.saturating_duration_since(at);
        let mut blocks = Vec::new();
        if self.trouble.is_some() {
            // Whatever it said of its health is no longer known.
            lines[0] = Line::of(Tone::Head, format!("warrend {}", status.version)).and(Tone::Bad, "   no answer");
        }
        if self.trouble.is_some() || age > OLD + self.interval {
            let why = self.trouble.clone().unwrap_or_else(|| "the daemon has not answered yet".to_owned());
            let told = format!("{why}; asking again. Below is its last answer, of {} ago", span(age.as_secs()));
            let wrapped = crate::cli::status::text::wrap(&told, paper.width.saturating_sub(3));
            let mark = |index| if index == 0 { "!  " } else { "   " };
            blocks.push(
                wrapped
                    .into_iter()
                    .enumerate()
                    .map(|(index, text)| Line::of(Tone::Bad, mark(index)).text(text))
                    .collect(),
            );
        }
        blocks.extend(problems::blocks(status, paper.width, LONGEST_PROBLEM));
        let most = (paper.height.unwrap_or(usize::MAX) / 3).max(4);
        lines.splice(1..1, screen::problem_lines(blocks, most));
        lines.into_iter().map(|line| line.cut(paper.width, paper.glyphs)).collect()
    }

    fn table(&self, all: &[(&str, &Job)], selected: usize, room: usize, paper: Paper) -> Vec<Line> {
        if all.is_empty() {
            return vec![Line::plain("no job is enabled")];
        }
        let mut columns = jobs::COLUMNS.to_vec();
        columns.insert(ACTIVITY, Column { head: "ACTIVITY", rank: 84, left: true });
        let rows: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(index, (name, job))| {
                // Not by colour alone.
                let mark = if index == selected { "> " } else { "  " };
                let mut row = jobs::row(&format!("{mark}{name}"), job);
                row.cells.insert(ACTIVITY, (Tone::Good, self.rates.bars(name, paper.glyphs)));
                row
            })
            .collect();
        debug_assert!(rows.iter().all(|row| row.cells[ACTIVITY].1.chars().count() == LOOKS));
        let mut lines = table::lines("  JOB", &columns, &rows, paper.width, false, paper.glyphs);
        let body = lines.split_off(1);
        // One line of the room tells how many there are besides.
        let shown = if all.len() > room { room.saturating_sub(1) } else { room };
        let range = window(all.len(), selected, shown);
        let (first, last) = (range.start + 1, range.end);
        for (index, line) in body.into_iter().enumerate().skip(range.start).take(range.len()) {
            lines.push(if index == selected { line.chosen(paper.width) } else { line });
        }
        if all.len() > room {
            lines.push(Line::of(Tone::Quiet, format!("  {first} to {last} of {} jobs", all.len())));
        }
        lines
    }

    /// The last line: a question, what was done, or the keys.
    fn foot(&self, now: Instant) -> Line {
        if let Some((question, _)) = &self.question {
            return Line::of(Tone::Head, format!("{question} [y/N]"));
        }
        match &self.notice {
            Some((tone, text, until)) if *until > now => Line::of(*tone, text.clone()),
            Some(_) | None => {
                keys(&[("?", "help"), ("q", "end"), ("p", "pause"), ("r", "resume"), ("d", "dead letters")])
            }
        }
    }

    pub(super) fn on_overview_key(&mut self, key: Key) -> Effect {
        if matches!(key, Key::Char('?' | 'h')) {
            self.view = View::Help;
            return Effect::Nothing;
        }
        let Some((status, _)) = &self.status else { return Effect::Nothing };
        let all: Vec<&str> = jobs::in_order(status, false).into_iter().map(|(name, _)| name).collect();
        let selected = all.iter().position(|name| Some(*name) == self.selected.as_deref()).unwrap_or(0);
        let Some(name) = all.get(selected).map(|name| (*name).to_owned()) else { return Effect::Nothing };
        if let Some(to) = moved(key, selected, all.len(), PAGE) {
            self.selected = all.get(to).map(|name| (*name).to_owned());
            return Effect::Nothing;
        }
        match key {
            Key::Char('p') => {
                self.question = Some((format!("pause job {name}?"), Ask::Pause(name)));
                Effect::Nothing
            }
            Key::Char('r') => Effect::Ask(Ask::Resume(name)),
            Key::Char('d') | Key::Enter => {
                let (letters, read) = Letters::of(name);
                self.view = View::Letters(Box::new(letters));
                Effect::Read(read)
            }
            Key::Char(_) | Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => Effect::Nothing,
            Key::Back | Key::Interrupt | Key::Suspend => Effect::Nothing,
        }
    }
}

/// What there is to tell of one job.
fn about(name: &str, job: &Job, space: usize, paper: Paper) -> Vec<Line> {
    let mut lines = vec![Line::of(Tone::Head, name.to_owned())];
    let mut told: Vec<Line> =
        notes::of_job(name, job, UnixMillis::now().0).into_iter().map(notes::Note::line).collect();
    if told.is_empty() {
        told.push(Line::of(Tone::Quiet, "no error and no dead letter so far"));
    }
    lines.extend(told.into_iter().take(space.saturating_sub(1)).map(|mut line| {
        line.0.insert(0, (Tone::Plain, "  ".to_owned()));
        line
    }));
    lines.into_iter().map(|line| line.cut(paper.width, paper.glyphs)).collect()
}

/// Keys and what they do.
pub(super) fn keys(keys: &[(&'static str, &'static str)]) -> Line {
    keys.iter().fold(Line::default(), |line, (key, what)| {
        let gap = if line.0.is_empty() { "" } else { "   " };
        line.text(gap).and(Tone::Command, *key).text(format!(" {what}"))
    })
}
