//! What the keys and the columns mean.

use crate::cli::status::jobs;
use crate::cli::status::line::{Line, Tone};
use crate::cli::status::screen::Paper;

/// The keys of the list of jobs.
const KEYS: [(&str, &str); 6] = [
    ("up, down", "choose a job"),
    ("p", "pause it, also over a restart: running handlers finish"),
    ("r", "let it go on"),
    ("d, Enter", "its dead letters; Esc goes back"),
    ("?", "this page"),
    ("q", "end"),
];

/// The page.
pub fn lines(paper: Paper) -> Vec<Line> {
    let item = |(what, means): (&'static str, &'static str)| {
        Line::of(Tone::Command, format!("  {what:<9} ")).text(means).cut(paper.width, paper.glyphs)
    };
    let mut lines = vec![Line::of(Tone::Head, "Keys")];
    lines.extend(KEYS.map(item));
    lines.push(Line::of(Tone::Head, "Columns").and(Tone::Quiet, " (a narrow terminal shows fewer)"));
    lines.extend(jobs::HELP.map(item));
    lines.push(item(("ACTIVITY", "messages done between two looks, the newest to the right")));
    let height = paper.height.unwrap_or(usize::MAX);
    lines.truncate(height.saturating_sub(1));
    lines.push(Line::of(Tone::Quiet, "any key goes back"));
    lines
}
