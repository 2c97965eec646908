//! The screen: health and problems, broker, store, a line for each job, and notes, in as many lines as there are.

use super::line::{Line, Tone};
use super::text::{Glyphs, counted, cut_front, number, or_dash, size, span};
use super::{jobs, notes, problems, table};
use crate::logging::clean;
use crate::report::Status;

/// What there is to print on.
#[derive(Debug, Clone, Copy)]
pub struct Paper {
    /// Columns.
    pub width: usize,
    /// Lines; where absent, everything is told.
    pub height: Option<usize>,
    /// Whether it is a pipe. Names and sentences are whole there, each on its line: somebody may search for them.
    pub piped: bool,
    /// What it can show.
    pub glyphs: Glyphs,
}

/// Lines of a problem, without its command, where room is short.
const SHORT_PROBLEM: usize = 3;
/// Lines for notes that even many jobs leave.
const SOME_NOTES: usize = 4;

/// The whole screen.
pub fn compose(status: &Status, now_ms: i64, paper: Paper) -> Vec<Line> {
    let mut lines = head(status, paper);
    let longest = if paper.height.is_some() { SHORT_PROBLEM } else { usize::MAX };
    let blocks = problems::blocks(status, if paper.piped { usize::MAX } else { paper.width }, longest);
    let plan = Plan::of(status, &blocks, paper);
    lines.splice(1..1, problem_lines(blocks, plan.problems));
    lines.push(Line::default());
    if status.jobs.is_empty() {
        lines.push(Line::plain("no job is enabled"));
        return lines;
    }
    let all = jobs::in_order(status, plan.jobs < status.jobs.len());
    let rows: Vec<_> = all[..plan.jobs].iter().map(|(name, job)| jobs::row(name, job)).collect();
    lines.extend(table::lines("JOB", &jobs::COLUMNS, &rows, paper.width, paper.piped, paper.glyphs));
    let more = all.len() - plan.jobs;
    if more > 0 {
        lines.push(Line::plain(format!("and {more} more: ")).and(Tone::Command, "warrend status --all"));
    }
    let columns = if paper.piped { usize::MAX } else { paper.width };
    let told = notes::lines(&all[..plan.jobs], now_ms, columns, plan.notes, paper.glyphs);
    if !told.is_empty() {
        lines.push(Line::default());
        lines.extend(told);
    }
    lines
}

/// Health, broker and store: three lines.
pub fn head(status: &Status, paper: Paper) -> Vec<Line> {
    vec![health(status), broker(status), store(status, paper)]
        .into_iter()
        .map(|line| if paper.piped { line } else { line.cut(paper.width, paper.glyphs) })
        .collect()
}

fn health(status: &Status) -> Line {
    let line = Line::of(Tone::Head, format!("warrend {}", status.version)).text("   ");
    let line = if status.healthy {
        line.and(Tone::Good, "healthy")
    } else {
        let count = counted(status.problems.len() as u64, "problem", "problems");
        line.and(Tone::Bad, "degraded").text(format!(" ({count})"))
    };
    line.text(format!(", {}   up {}   pid {}", status.state, span(status.uptime_s), status.pid))
}

fn broker(status: &Status) -> Line {
    let broker = &status.broker;
    let reconnects = counted(broker.reconnects, "reconnect", "reconnects");
    let line = Line::of(Tone::Head, "broker").text("  ");
    let Some(host) = &broker.host else {
        return line.and(Tone::Bad, "not connected").text(format!(", {reconnects}"));
    };
    let tls = broker.tls.as_deref().map_or_else(String::new, |tls| format!(", {}", clean(tls)));
    let (server, vhost) = (or_dash(broker.server.as_deref()), or_dash(broker.vhost.as_deref()));
    let line = line.text(format!("{server} at {}, vhost {vhost}{tls}: ", clean(host)));
    let line = match (broker.connected, broker.blocked) {
        (true, false) => line.text("connected"),
        (true, true) => line.and(Tone::Bad, "takes no messages"),
        (false, _) => line.and(Tone::Bad, "not all jobs are connected"),
    };
    line.text(format!(", {reconnects}"))
}

fn store(status: &Status, paper: Paper) -> Line {
    let store = &status.store;
    let records = store.records.and_then(|n| u64::try_from(n).ok()).map_or_else(|| "-".to_owned(), number);
    let size = store.bytes.map_or_else(|| "-".to_owned(), |bytes| size(bytes + store.wal_bytes.unwrap_or(0)));
    let commit = store.last_commit_ms.map_or_else(|| "-".to_owned(), super::text::millis);
    let rest = format!(": {records} records, {size}, last commit {commit}");
    let room = paper.width.saturating_sub("store   ".len() + rest.len());
    let path = clean(&store.path);
    let path = if paper.height.is_some() { cut_front(&path, room.max(12), paper.glyphs) } else { path };
    Line::of(Tone::Head, "store").text(format!("   {path}{rest}"))
}

/// How many lines each part gets.
struct Plan {
    /// Of the problems, with the line that counts the rest.
    problems: usize,
    /// Of jobs.
    jobs: usize,
    /// Of notes.
    notes: usize,
}

impl Plan {
    fn of(status: &Status, blocks: &[Vec<Line>], paper: Paper) -> Self {
        let all = status.jobs.len();
        let wanted: usize = blocks.iter().map(Vec::len).sum();
        let Some(height) = paper.height else {
            return Self { problems: usize::MAX, jobs: all, notes: usize::MAX };
        };
        // Three of the head, a blank one, and the head of the table.
        let mut left = height.saturating_sub(5);
        // Problems leave room for some jobs, and jobs for some notes.
        let problems = wanted.min((left / 2).max(left.saturating_sub(all + 1)));
        left -= problems;
        let spared = if notes::any(status) { SOME_NOTES.min(left / 3) } else { 0 };
        let jobs = if all <= left { all } else { left.saturating_sub(1 + spared).max(1) };
        left = left.saturating_sub(jobs + usize::from(jobs < all));
        Self { problems, jobs, notes: left.saturating_sub(1) }
    }
}

/// As many whole problems as fit into so many lines, and how many there are besides.
pub fn problem_lines(blocks: Vec<Vec<Line>>, most: usize) -> Vec<Line> {
    let wanted: usize = blocks.iter().map(Vec::len).sum();
    if wanted <= most {
        return blocks.into_iter().flatten().collect();
    }
    let (mut lines, mut left_out) = (Vec::new(), 0_u64);
    for block in blocks {
        // What is left out is always the last.
        if left_out == 0 && lines.len() + block.len() < most {
            lines.extend(block);
        } else {
            left_out += 1;
        }
    }
    let what = counted(left_out, "more problem", "more problems");
    lines.push(Line::of(Tone::Bad, "!  ").text(format!("{what}: ")).and(Tone::Command, "warrend status --all"));
    lines
}
