//! What was meant to be reached, beside what was measured. A goal that is missed is shown and fails nothing: a figure
//! depends on the machine.

use std::collections::BTreeMap;

use crate::measure::{Measured, median};

/// What the sections found; `None` and missing rows were not measured.
#[derive(Debug, Default)]
pub struct Figures {
    /// The rounds of each contestant, in their order.
    pub rows: BTreeMap<&'static str, Vec<Measured>>,
    /// 99th percentile from publishing to the start of the handler, milliseconds.
    pub latency_p99: Option<f64>,
    /// The longest wait of an urgent message, in multiples of the handler's time.
    pub priority: Option<f64>,
    /// The rate with ten million stored keys, as a part of that with none.
    pub stored: Option<f64>,
    /// The most that the daemon itself had resident with a long queue, MiB.
    pub waiting_mib: Option<f64>,
    /// What a hundred idle jobs cost, percent of one core.
    pub idle_percent: Option<f64>,
    /// 99th percentile of `warrend status` with fifty jobs, milliseconds.
    pub status_p99: Option<f64>,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const CELERY: [&str; 2] = ["celery-prefork", "celery-threads"];

/// The table `measured / goal / met`, without what was not measured.
pub fn print(figures: &Figures) {
    use Bound::{AtLeast, AtMost};
    let rate = |row: &Measured| row.rate;
    let cpu = |row: &Measured| row.cpu;
    let ratio = |ours, theirs: &[&str], figure| figures.ratio(ours, theirs, figure);
    let goals = [
        ("discard (v4), rate to bare", ratio("discard-v4", &["bare"], rate), AtLeast(0.95)),
        ("discard (v7), rate to bare", ratio("discard-v7", &["bare"], rate), AtLeast(0.95)),
        ("discard (v7), CPU to bare", ratio("discard-v7", &["bare"], cpu), AtMost(2.5)),
        ("discard (v4), CPU to bare", ratio("discard-v4", &["bare"], cpu), AtMost(3.5)),
        ("discard (v7), rate to the other build", ratio("discard-v7", &["baseline-v7"], rate), AtLeast(0.97)),
        ("discard (v4), rate to the other build", ratio("discard-v4", &["baseline-v4"], rate), AtLeast(0.97)),
        ("discard (v7), CPU to the other build", ratio("discard-v7", &["baseline-v7"], cpu), AtMost(1.03)),
        ("discard (v4), CPU to the other build", ratio("discard-v4", &["baseline-v4"], cpu), AtMost(1.03)),
        ("worker, batch 50, rate to Celery's best", ratio("worker-50", &CELERY, rate), AtLeast(8.0)),
        ("worker, batch 50, rate to Dramatiq", ratio("worker-50", &["dramatiq-default"], rate), AtLeast(4.0)),
        ("worker, batch 50, rate to Dramatiq, tuned", ratio("worker-50", &["dramatiq"], rate), AtLeast(4.0)),
        ("worker, batch 50, rate to pika", ratio("worker-50", &["pika"], rate), AtLeast(1.3)),
        ("worker, batch 1, rate to Celery's best", ratio("worker-1", &CELERY, rate), AtLeast(4.0)),
        (
            "command, empty bodies, rate to amqp-consume",
            ratio("command-empty", &["amqp-consume-empty"], rate),
            AtLeast(1.6),
        ),
        (
            "command, empty bodies, CPU to amqp-consume",
            ratio("command-empty", &["amqp-consume-empty"], cpu),
            AtMost(1.1),
        ),
        ("command, 256 bytes, rate to amqp-consume", ratio("command-body", &["amqp-consume-body"], rate), AtLeast(1.6)),
        ("command, 256 bytes, CPU to amqp-consume", ratio("command-body", &["amqp-consume-body"], cpu), AtMost(1.1)),
        ("latency to the Python worker, p99, ms", figures.latency_p99, AtMost(5.0)),
        ("priority 9 behind 20,000, times the handler", figures.priority, AtMost(2.0)),
        ("10 M stored keys, rate to none", figures.stored, AtLeast(0.9)),
        ("a long queue, peak MiB of the daemon", figures.waiting_mib, AtMost(30.0)),
        ("100 idle jobs, percent of a core", figures.idle_percent, AtMost(1.0)),
        ("status of 50 jobs, p99, ms", figures.status_p99, AtMost(50.0)),
    ];
    println!("\n{:46}  {:>8}  {:>8}  met", "goal (medians over the rounds)", "measured", "goal");
    for (what, measured, bound) in goals {
        let Some(measured) = measured else { continue };
        let (sign, goal, met) = match bound {
            AtLeast(goal) => (">=", goal, measured >= goal),
            AtMost(goal) => ("<=", goal, measured <= goal),
        };
        println!("{what:46}  {measured:>8.2}  {:>8}  {}", format!("{sign} {goal}"), if met { "yes" } else { "NO" });
    }
}

impl Figures {
    /// The median over the rounds of our figure to the greatest of theirs in the same round.
    fn ratio(&self, ours: &str, theirs: &[&str], figure: fn(&Measured) -> f64) -> Option<f64> {
        let theirs = theirs.iter().map(|name| self.rows.get(name)).collect::<Option<Vec<_>>>()?;
        let rounds = self.rows.get(ours)?.iter().enumerate().map(|(round, row)| {
            let best = theirs.iter().map(|rows| figure(&rows[round])).fold(0.0, f64::max);
            figure(row) / best
        });
        Some(median(rounds.collect()))
    }
}
