//! A handler program that writes down every run of itself: the tests' own witness, apart from what the daemon says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One run of the handler, as it saw itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `WARREND_ATTEMPT`
    pub attempt: u32,
    /// Its process id.
    pub pid: u32,
}

/// The file that the handlers append to.
pub struct Journal {
    script: PathBuf,
    file: PathBuf,
}

impl Journal {
    /// Writes the handler into `folder`. It appends its line first (one write with `O_APPEND`, so lines never mix), then
    /// does what `then` says in shell: `exit 75`, `[ "$WARREND_ATTEMPT" -gt 1 ]`, `sleep 5`, or nothing.
    pub fn new(folder: &Path, then: &str) -> Self {
        let journal = Self { script: folder.join("handler.sh"), file: folder.join("journal") };
        let program = format!(
            "printf '%s %s %s\\n' \"$WARREND_KEY\" \"$WARREND_ATTEMPT\" \"$$\" >>'{}'\n{then}\n",
            journal.file.display()
        );
        fs::write(&journal.script, program).expect("the handler can be written");
        journal
    }

    /// What stands after `command =` in the configuration.
    pub fn command(&self) -> String {
        format!("[\"/bin/sh\", {:?}]", self.script)
    }

    /// Every run with its message key, in order. A key may hold spaces, not newlines.
    pub fn lines(&self) -> Vec<(String, Run)> {
        let text = fs::read(&self.file).unwrap_or_default();
        let parse_or_fail = |line| parse(line).unwrap_or_else(|| panic!("a line of the journal is broken: {line:?}"));
        String::from_utf8_lossy(&text).lines().map(parse_or_fail).collect()
    }

    /// Every run by message key, in the order of the journal.
    pub fn runs(&self) -> BTreeMap<String, Vec<Run>> {
        let mut runs: BTreeMap<String, Vec<Run>> = BTreeMap::new();
        for (key, run) in self.lines() {
            runs.entry(key).or_default().push(run);
        }
        runs
    }

    /// Its length in bytes: grows with each run, and costs less to ask than the runs.
    pub fn bytes(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    /// The attempt numbers of one key, in the order of its runs.
    pub fn attempts(&self, key: &str) -> Vec<u32> {
        let runs = self.lines().into_iter();
        runs.filter(|(of, _)| of == key).map(|(_, run)| run.attempt).collect()
    }

    /// How many runs there were.
    pub fn len(&self) -> usize {
        fs::read(&self.file).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
    }
}

/// From the right: a key may hold spaces.
fn parse(line: &str) -> Option<(String, Run)> {
    let mut parts = line.rsplitn(3, ' ');
    let pid = parts.next()?.parse().ok()?;
    let attempt = parts.next()?.parse().ok()?;
    Some((parts.next()?.to_owned(), Run { attempt, pid }))
}
