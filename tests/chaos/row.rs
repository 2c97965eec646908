//! One row: a fault, and what was measured of it.

use std::process::Command;
use std::time::Duration;

use crate::support::scene::Verdict;

/// A fault that is injected again and again.
#[derive(Clone, Copy)]
pub struct Row {
    /// As `ROWS` selects it.
    pub name: &'static str,
    /// How it is injected: one sentence.
    pub fault: &'static str,
    /// The promises that it holds to: `"P1 P3"`.
    pub promises: &'static str,
    /// Faults in the short form; none leaves the row out of it.
    pub short: usize,
    /// Faults in the long form.
    pub long: usize,
    /// What the long form takes here, for each fault, in seconds.
    pub seconds: f64,
    pub run: Run,
}

/// How a row runs.
#[derive(Clone, Copy)]
pub enum Run {
    /// Injects the faults, lets the daemon finish, judges. It may panic: that fails the row.
    Here(fn(&Trial) -> Figures),
    /// A test of tests/it, whose long form is asked for by a variable: with this value, or that of the faults. It prints one
    /// line of figures, such as `200 messages, 5 kills, 0 lost, 3 ran again`.
    Test { name: &'static str, variable: &'static str, value: Option<&'static str> },
}

impl Run {
    /// Runs it to its end.
    pub fn run(self, trial: &Trial) -> Figures {
        match self {
            Self::Here(run) => run(trial),
            Self::Test { name, variable, value } => {
                let mut cargo = Command::new(env!("CARGO"));
                cargo.args(["test", "--locked", "--test", "it"]);
                if !cfg!(debug_assertions) {
                    cargo.arg("--release");
                }
                let value = value.map_or_else(|| trial.count.to_string(), str::to_owned);
                cargo.args(["--", "--exact", name, "--nocapture"]).env(variable, value);
                let output = cargo.output().expect("cargo runs this program too");
                let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && text.contains("1 passed"), "{name}\n{text}");
                Figures::read(&text)
            }
        }
    }
}

/// What a row is to do.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Faults to inject.
    pub count: usize,
    /// Whether there is time for longer faults.
    pub long: bool,
    /// Its random choices come from this; `fastrand` of its thread is seeded with it.
    pub seed: u64,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Figures {
    /// Faults that were injected.
    pub faults: usize,
    /// Messages that were published and confirmed.
    pub messages: usize,
    /// Those that are neither done nor dead nor queued.
    pub lost: Option<usize>,
    /// Runs that a world without faults would have spared; each is explained by one.
    pub again: usize,
    /// Dead letters that lie twice in their queue.
    pub doubled: usize,
    /// The longest time from the end of a fault, or the start after it, to the next run.
    pub slowest: Option<Duration>,
    /// What else is worth a word in the table.
    pub note: String,
    /// One sentence for each thing that is not as it must be.
    pub wrong: Vec<String>,
    /// This machine does not let the fault be injected; `note` says why. Nothing is known then, good or bad.
    pub not_tried: bool,
}

impl Figures {
    /// Those of a row whose fault cannot be injected here.
    pub fn not_tried(why: &str) -> Self {
        Self { note: format!("not tried: {why}"), not_tried: true, ..Self::default() }
    }

    /// Those of a scene.
    pub fn of(faults: usize, verdict: Verdict) -> Self {
        Self {
            faults,
            messages: verdict.messages,
            lost: Some(verdict.lost),
            again: verdict.extra_runs,
            doubled: verdict.doubled,
            slowest: Some(verdict.slowest).filter(|time| !time.is_zero()),
            note: String::new(),
            wrong: verdict.wrong,
            not_tried: false,
        }
    }

    /// Those that a test printed. What it did not print is unknown.
    fn read(text: &str) -> Self {
        let line = text.lines().rfind(|line| line.contains(" messages, ")).unwrap_or_default();
        // Entries are `NUMBER WORDS`; `1 resets in 3 s; 20 messages, 0 crashes` are three of them.
        let number = |words: &str| {
            let entry = line.split([',', ';']).map(str::trim).find(|entry| entry.contains(words))?;
            entry.split(' ').next()?.parse::<usize>().ok()
        };
        Self {
            faults: [" resets", " kills", " losses", " reloads"].into_iter().find_map(number).unwrap_or_default(),
            messages: number(" messages").unwrap_or_default(),
            lost: number(" lost"),
            again: number(" ran again").or_else(|| number(" of them again")).unwrap_or_default(),
            doubled: number(" of them twice").unwrap_or_default(),
            ..Self::default()
        }
    }

    /// A row that injected nothing has shown nothing.
    pub fn checked(mut self) -> Self {
        if self.faults == 0 && !self.not_tried {
            self.wrong.push("no fault was injected".to_owned());
        }
        self
    }

    /// Those of two halves of a row.
    pub fn and(self, other: Self) -> Self {
        Self {
            faults: self.faults + other.faults,
            messages: self.messages + other.messages,
            lost: self.lost.zip(other.lost).map(|(one, two)| one + two),
            again: self.again + other.again,
            doubled: self.doubled + other.doubled,
            slowest: self.slowest.max(other.slowest),
            note: [self.note, other.note].concat(),
            wrong: [self.wrong, other.wrong].concat(),
            not_tried: self.not_tried || other.not_tried,
        }
    }
}

/// What a row has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Faults were injected, nothing was lost, and nothing else is wrong.
    Ok,
    /// It says nothing, and is no failure.
    NotTried,
    Failed,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::NotTried => "not tried",
            Self::Failed => "FAILED",
        })
    }
}

/// How a row ended.
pub struct Ended {
    /// Nothing where it panicked.
    pub figures: Option<Figures>,
    /// What its panic said.
    pub panic: Option<String>,
    pub trial: Trial,
    pub took: Duration,
}

impl Ended {
    /// One sentence for each thing that is not as it must be.
    pub fn wrong(&self) -> impl Iterator<Item = &String> {
        self.figures.iter().flat_map(|figures| &figures.wrong).chain(&self.panic)
    }

    pub fn result(&self) -> Outcome {
        let Some(figures) = &self.figures else { return Outcome::Failed };
        if figures.not_tried {
            return Outcome::NotTried;
        }
        if figures.lost == Some(0) && figures.wrong.is_empty() { Outcome::Ok } else { Outcome::Failed }
    }
}
