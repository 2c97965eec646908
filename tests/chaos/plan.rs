//! Which rows run, how many faults each injects, and in what order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::row::{Ended, Row, Trial};
use crate::support::broker::Broker;
use crate::table;

/// Rows of the short form that run at one time: they mostly wait, for timeouts and for processes that start.
const AT_ONE_TIME: usize = 4;

/// The rows that have ended, by their place in the table.
pub type Results = BTreeMap<usize, (Row, Ended)>;

/// What was asked for.
pub struct Plan {
    /// The rows that are to run.
    pub rows: Vec<Row>,
    /// Rows that were not asked for.
    pub left_out: usize,
    pub long: bool,
    /// Only name them.
    pub only_list: bool,
    /// Faults of a row, where it is not the usual number.
    counts: BTreeMap<String, usize>,
    seed: u64,
}

impl Plan {
    /// From the environment, and from a command line like that of other tests. An error says what is wrong.
    pub fn new(all: Vec<Row>, mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wanted = Vec::new();
        let mut plan = Self {
            rows: Vec::new(),
            left_out: 0,
            long: text_from("LONG").is_some_and(|text| text != "0"),
            only_list: false,
            counts: BTreeMap::new(),
            seed: fastrand::u64(1..1_000_000_000),
        };
        let mut skipped = Vec::new();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => plan.only_list = true,
                "--skip" => skipped.extend(arguments.next()),
                // Flags of the usual harness have no meaning here, and must not fail a `cargo test` that has them.
                "--test-threads" | "--format" | "--color" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                _ => wanted.push(argument),
            }
        }
        if let Some(text) = text_from("SEED") {
            plan.seed = text.parse().map_err(|_| format!("SEED={text} is no whole number"))?;
        }
        let names: Vec<&str> = all.iter().map(|row| row.name).collect();
        let is_known = |word: &str| names.iter().any(|name| name.starts_with(word));
        let rows = words("ROWS");
        for entry in words("COUNTS") {
            let counted = entry.split_once('=').and_then(|(name, count)| Some((name, count.parse().ok()?)));
            let Some((name, count)) = counted.filter(|(name, _)| is_known(name)) else {
                return Err(format!("COUNTS={entry} is not NAME=NUMBER with one of {}", names.join(", ")));
            };
            plan.counts.insert(name.to_owned(), count);
        }
        if let Some(unknown) = rows.iter().find(|word| !is_known(word)) {
            return Err(format!("ROWS={unknown} is the beginning of none of {}", names.join(", ")));
        }
        let total = all.len();
        plan.rows = all;
        plan.rows.retain(|row| rows.is_empty() || rows.iter().any(|word| row.name.starts_with(word.as_str())));
        plan.rows.retain(|row| wanted.is_empty() || wanted.iter().any(|word| row.name.contains(word.as_str())));
        plan.rows.retain(|row| !skipped.iter().any(|word| row.name.contains(word.as_str())));
        let (long, counts) = (plan.long, plan.counts.clone());
        plan.rows.retain(|row| count(&counts, long, row) > 0);
        plan.left_out = total - plan.rows.len();
        Ok(plan)
    }

    fn trial(&self, row: &Row) -> Trial {
        Trial { count: count(&self.counts, self.long, row), long: self.long, seed: self.seed }
    }

    /// Runs every row, and says how each ended as soon as it did.
    pub fn run(&self) -> Results {
        if !self.rows.is_empty() {
            // Fails here, and once, where there is no broker.
            Broker::get();
        }
        println!("\nrunning {} tests", self.rows.len());
        let results = Mutex::new(Results::new());
        let waiting = Mutex::new(self.rows.iter().enumerate());
        std::thread::scope(|scope| {
            for _ in 0..if self.long { 1 } else { AT_ONE_TIME } {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().expect("no thread panics with it").next();
                        let Some((place, row)) = next else { return };
                        let ended = self.run_row(row);
                        let mut results = results.lock().expect("no thread panics with it");
                        results.insert(place, (*row, ended));
                        // A long run may be ended by hand: what is done by then is not to be lost.
                        table::keep(&results);
                    }
                });
            }
        });
        results.into_inner().expect("no thread panics with it")
    }

    fn run_row(&self, row: &Row) -> Ended {
        let trial = self.trial(row);
        if self.long {
            let expected = Duration::from_secs_f64(10.0 + row.seconds * trial.count as f64);
            println!("test {} runs: {} faults, about {}", row.name, trial.count, minutes(expected));
        }
        let started = Instant::now();
        fastrand::seed(trial.seed);
        let result = catch_unwind(AssertUnwindSafe(|| row.run.run(&trial)));
        let took = started.elapsed();
        let (figures, panic) = match result {
            Ok(figures) => (Some(figures.checked()), None),
            Err(panic) => (None, Some(text_of(panic.as_ref()))),
        };
        let ended = Ended { figures, panic, trial, took };
        println!("test {} ... {} ({:.1} s, seed {})", row.name, ended.result(), took.as_secs_f64(), trial.seed);
        if let Some(figures) = ended.figures.as_ref().filter(|figures| figures.not_tried) {
            println!("    {}", figures.note);
        }
        // A long run should not hide it until its end, where it is told once more.
        for wrong in ended.wrong() {
            println!("    {wrong}");
        }
        ended
    }
}

fn count(counts: &BTreeMap<String, usize>, long: bool, row: &Row) -> usize {
    let asked = counts.iter().find(|(name, _)| row.name.starts_with(name.as_str()));
    asked.map_or(if long { row.long } else { row.short }, |(_, count)| *count)
}

/// `45 s`, `12 min`.
pub fn minutes(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "-".to_owned())
}

/// What stands in the environment and is not empty.
pub fn text_from(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}

fn words(variable: &str) -> Vec<String> {
    let text = text_from(variable).unwrap_or_default();
    text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}
