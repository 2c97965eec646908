//! A disk that fails on order below a daemon: `baddisk.c`, compiled once and preloaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::daemon::Daemon;
use super::script;

/// What a call does to the store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Write,
    Sync,
    Read,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Read => "read",
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Only this one.
    Once,
    /// This one and every later one of its kind.
    On,
    /// Of syncs: only this one, and what it should have kept is gone.
    Lose,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::On => "on",
            Self::Lose => "lose",
        }
    }
}

/// The disk below the store of one daemon; in force from the daemon's next start.
pub struct BadDisk {
    folder: PathBuf,
}

const VARIABLES: [&str; 9] = [
    "LD_PRELOAD",
    "BADDISK_FOLDER",
    "BADDISK_COUNTS",
    "BADDISK_FAIL",
    "BADDISK_FULL",
    "BADDISK_READONLY",
    "BADDISK_MOUNTS",
    "BADDISK_ONLY",
    "BADDISK_WHILE",
];

impl BadDisk {
    /// Puts it below a daemon's store. So far nothing fails.
    pub fn below(daemon: &mut Daemon) -> Self {
        let disk = Self { folder: daemon.folder().to_owned() };
        daemon.env("LD_PRELOAD", &library().display().to_string());
        // Everything whose path begins as the store's: its log, its lock, its journal.
        daemon.env("BADDISK_FOLDER", &daemon.store_path().display().to_string());
        daemon.env("BADDISK_COUNTS", &disk.file("counts").display().to_string());
        daemon.env("BADDISK_FULL", &disk.file("full").display().to_string());
        disk
    }

    /// Takes it away: the next start has the disk as it is.
    pub fn away(&self, daemon: &mut Daemon) {
        for variable in VARIABLES {
            daemon.env_remove(variable);
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("baddisk-{name}"))
    }

    /// The next start's `number`-th call of that kind fails.
    pub fn fail(&self, daemon: &mut Daemon, call: Call, number: u64, how: How) {
        daemon.env("BADDISK_FAIL", &format!("{}:{number}:{}", call.name(), how.name()));
    }

    /// Only calls on this file of the store count, and can fail.
    pub fn only(&self, daemon: &mut Daemon, name: &str) {
        daemon.env("BADDISK_ONLY", name);
    }

    /// Calls count, and can fail, only after [`Self::arm`].
    pub fn disarm(&self, daemon: &mut Daemon) {
        daemon.env("BADDISK_WHILE", &self.file("armed").display().to_string());
        // It may have been armed before.
        let _ = fs::remove_file(self.file("armed"));
    }

    /// From now on they do.
    pub fn arm(&self) {
        fs::write(self.file("armed"), "").expect("a test's folder is writable");
    }

    /// The next start finds everything read-only.
    pub fn read_only(&self, daemon: &mut Daemon) {
        daemon.env("BADDISK_READONLY", "yes");
    }

    /// The next start takes this for the list of mounts.
    pub fn mounts(&self, daemon: &mut Daemon, lines: &str) {
        let file = self.file("mounts");
        fs::write(&file, lines).expect("a test's folder is writable");
        daemon.env("BADDISK_MOUNTS", &file.display().to_string());
    }

    /// From now on nothing grows.
    pub fn fill(&self) {
        fs::write(self.file("full"), "").expect("a test's folder is writable");
    }

    /// There is room again.
    pub fn make_room(&self) {
        fs::remove_file(self.file("full")).expect("the disk was filled");
    }

    /// How many calls there were since [`Self::take_calls`].
    pub fn calls_so_far(&self) -> usize {
        fs::read_to_string(self.file("counts")).unwrap_or_default().lines().count()
    }

    /// How many of them were syncs of this file of the store.
    pub fn syncs_of(&self, name: &str) -> usize {
        let text = fs::read_to_string(self.file("counts")).unwrap_or_default();
        let is_one = |line: &&str| line.starts_with(Call::Sync.name()) && line.ends_with(&format!(" {name}"));
        text.lines().filter(is_one).count()
    }

    /// What happened since this was last asked. Not while the daemon runs: it would go on writing to what is taken.
    pub fn take_calls(&self) -> Calls {
        let file = self.file("counts");
        let text = fs::read_to_string(&file).unwrap_or_default();
        // It may not be there: a start that failed early.
        let _ = fs::remove_file(&file);
        let mut calls = Calls { counts: BTreeMap::new(), failed: false, changes_after: Vec::new() };
        for line in text.lines() {
            let kind = line.split(' ').next().unwrap_or_default();
            *calls.counts.entry(kind.to_owned()).or_default() += 1;
            if calls.failed && kind != Call::Read.name() {
                calls.changes_after.push(line.to_owned());
            }
            calls.failed |= line.ends_with(" fails");
        }
        calls
    }
}

/// What a daemon did to the files of its store.
pub struct Calls {
    /// By kind.
    pub counts: BTreeMap<String, u64>,
    /// Whether one of them was made to fail.
    pub failed: bool,
    /// Writes and syncs after that one.
    pub changes_after: Vec<String>,
}

/// The compiled library. Its source needs the C compiler that SQLite's needs too.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let made = folder.join(format!("baddisk-{}.so", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
        let output = cc.arg(&made).arg(script("baddisk.c")).arg("-ldl").output().expect("there is a C compiler");
        assert!(output.status.success(), "baddisk.c: {}", String::from_utf8_lossy(&output.stderr));
        // One file for all processes of the tests, put in its place whole.
        let library = folder.join("baddisk.so");
        fs::rename(&made, &library).expect("both are in one folder");
        library
    })
}
