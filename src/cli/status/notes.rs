//! What a row has no room for: dead letters and how to look at them, the last error, several queues, and what else happened.

use super::line::{Line, Tone};
use super::text::{Glyphs, ago, counted, cut, number, short, width};
use crate::logging::clean;
use crate::report::{Job, Status};

/// The names stand in a column of at most this width.
const WIDEST_NAME: usize = 12;

/// One line about a job.
pub struct Note {
    /// The higher, the later it is left out.
    rank: u8,
    text: Line,
}

impl Note {
    fn new(rank: u8, text: impl Into<String>) -> Self {
        Self { rank, text: Line::plain(text) }
    }

    /// What it says.
    pub fn line(self) -> Line {
        self.text
    }
}

/// The notes of all these jobs, in their order, the least important ones left out where there are more than `most`.
pub fn lines(jobs: &[(&str, &Job)], now_ms: i64, columns: usize, most: usize, glyphs: Glyphs) -> Vec<Line> {
    let mut notes: Vec<(usize, Note)> = Vec::new();
    for (index, (name, job)) in jobs.iter().enumerate() {
        notes.extend(of_job(name, job, now_ms).into_iter().map(|note| (index, note)));
    }
    let left_out = notes.len().saturating_sub(most);
    if left_out > 0 {
        // Stable: of equal ones those of the first jobs stay.
        notes.sort_by_key(|(_, note)| std::cmp::Reverse(note.rank));
        notes.truncate(most);
        notes.sort_by_key(|(index, note)| (*index, std::cmp::Reverse(note.rank)));
    }
    let names = notes.iter().map(|(index, _)| width(jobs[*index].0)).max().unwrap_or(0).min(WIDEST_NAME);
    let mut lines = Vec::new();
    let mut last = None;
    for (index, note) in notes {
        let name = if last == Some(index) { String::new() } else { cut(jobs[index].0, names, glyphs) };
        last = Some(index);
        let pad = " ".repeat(names - width(&name) + 2);
        let mut line = Line::of(Tone::Head, name).text(pad);
        line.0.extend(note.text.0);
        lines.push(line.cut(columns, glyphs));
    }
    lines
}

/// The same for one job, the most important first.
pub fn of_job(name: &str, job: &Job, now_ms: i64) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Some(ready @ 1..) = job.dead_letter.ready {
        let what = counted(ready.into(), "dead letter", "dead letters");
        // The command before the queue: where there is no room for both, it is the one that helps.
        let text = Line::plain(format!("{what}: ")).and(Tone::Command, format!("warrend dead list {name}"));
        notes.push(Note { rank: 9, text: text.and(Tone::Quiet, format!(" (in {})", clean(&job.dead_letter.queue))) });
    }
    if let Some(error) = &job.last_error {
        let when = job.last_error_ms.map_or_else(String::new, |at| format!(", {}", ago(now_ms, at)));
        notes.push(Note::new(8, format!("last error{when}: {}", clean(error))));
    }
    if job.in_doubt > 0 {
        let what = counted(job.in_doubt as u64, "attempt was", "attempts were");
        notes.push(Note::new(7, format!("{what} in doubt when the daemon started")));
    }
    if job.queues.len() > 1 {
        let queue = |(queue, counts): (&String, &crate::report::Queue)| {
            let ready = counts.ready.map_or_else(|| "-".to_owned(), |n| short(n.into()));
            format!("{} {ready} ready", clean(queue))
        };
        notes.push(Note::new(5, job.queues.iter().map(queue).collect::<Vec<_>>().join(", ")));
    }
    if job.stalls > 0 {
        let times = if job.stalls == 1 { "once".to_owned() } else { format!("{} times", number(job.stalls)) };
        notes.push(Note::new(4, format!("connected anew {times} because a queue delivered nothing")));
    }
    let restarts: u64 = job.worker_restarts.values().sum();
    if restarts > 0 {
        let reasons = job.worker_restarts.iter().filter(|(_, count)| **count > 0);
        let reasons: Vec<_> = reasons.map(|(reason, count)| format!("{} {}", clean(reason), number(*count))).collect();
        let what = counted(restarts, "worker process was", "worker processes were");
        notes.push(Note::new(3, format!("{what} replaced: {}", reasons.join(", "))));
    }
    if job.prefetch_auto {
        notes.push(Note::new(1, format!("prefetch {} by measurement", number(job.prefetch.into()))));
    }
    notes
}

/// Whether there is anything to note.
pub fn any(status: &Status) -> bool {
    status.jobs.iter().any(|(name, job)| !of_job(name, job, 0).is_empty())
}
