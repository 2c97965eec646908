//! A handler program that writes down every run of itself: the tests' own witness, apart from what the daemon says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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
    /// How far its lines were counted, in bytes, and how many those were.
    counted: Mutex<(u64, usize)>,
}

impl Journal {
    /// Writes the handler into `folder`. It appends its line first (one write with `O_APPEND`, so lines never mix), then
    /// does what `then` says in shell: `exit 75`, `[ "$WARREND_ATTEMPT" -gt 1 ]`, `sleep 5`, or nothing.
    pub fn new(folder: &Path, then: &str) -> Self {
        let journal =
            Self { script: folder.join("handler.sh"), file: folder.join("journal"), counted: Mutex::default() };
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
        self.lines_after(0).0
    }

    /// The runs after that many bytes, and how long the journal was then. The last line is whole: it was one write.
    pub fn lines_after(&self, bytes: u64) -> (Vec<(String, Run)>, u64) {
        let text = self.text_after(bytes);
        let parse_or_fail = |line| parse(line).unwrap_or_else(|| panic!("a line of the journal is broken: {line:?}"));
        let lines = String::from_utf8_lossy(&text).lines().map(parse_or_fail).collect();
        (lines, bytes + text.len() as u64)
    }

    fn text_after(&self, bytes: u64) -> Vec<u8> {
        let mut text = Vec::new();
        // Before the first run there is no file.
        if let Ok(mut file) = File::open(&self.file) {
            file.seek(SeekFrom::Start(bytes)).expect("a file can be sought");
            file.read_to_end(&mut text).expect("the journal can be read");
        }
        text
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

    /// How many runs there were. Reads only what was not counted yet.
    pub fn len(&self) -> usize {
        let mut counted = self.counted.lock().expect("no thread panics with it");
        let text = self.text_after(counted.0);
        counted.0 += text.len() as u64;
        counted.1 += text.iter().filter(|byte| **byte == b'\n').count();
        counted.1
    }
}

/// From the right: a key may hold spaces.
fn parse(line: &str) -> Option<(String, Run)> {
    let mut parts = line.rsplitn(3, ' ');
    let pid = parts.next()?.parse().ok()?;
    let attempt = parts.next()?.parse().ok()?;
    Some((parts.next()?.to_owned(), Run { attempt, pid }))
}
