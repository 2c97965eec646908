//! What a reload changes, and where it stands.

use serde::{Deserialize, Serialize};

/// Where a reload stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloading {
    /// Counted from 1 since the start.
    pub number: u64,
    /// When it was asked for, Unix milliseconds.
    pub at_ms: i64,
    /// Who asked: a user, or `SIGHUP`.
    pub by: String,
    /// `under way`, `done` or `failed`. One that failed at its judgement has changed nothing.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// Jobs that have not ended or not started yet.
    pub waits_for: Vec<String>,
}

/// The answer to a request to reload, or to say what that would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reload {
    /// [`SCHEMA`](super::SCHEMA)
    pub schema: u32,
    /// `accepted`, `unchanged`, `refused` (sound, but needs a restart) or `bad` (faulty): the last two change nothing.
    pub verdict: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The file that the daemon reads.
    pub file: String,
    /// Key by key.
    pub changes: Vec<Change>,
    /// What `warrend check` finds in the files: as `check --format json` has it, and as text.
    pub findings: serde_json::Value,
    /// The same as text.
    pub findings_text: String,
    /// How long running handlers are waited for before it goes on behind the caller's back.
    pub patience_ms: u64,
    /// Where it stands; absent where nothing was to be changed, or only asked.
    pub reload: Option<Reloading>,
}

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Such as `jobs.mail.concurrency`.
    pub key: String,
    /// What is in force; absent where it is not set.
    pub old: Option<String>,
    /// What the files say.
    pub new: Option<String>,
    /// What differs is secret: both values are absent.
    pub hidden: bool,
    /// What it takes: `job restarts`, `at once`, …
    pub effect: String,
}

impl std::fmt::Display for Change {
    /// `jobs.mail.concurrency: 4 -> 8 (job restarts)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, old, new, hidden, effect } = self;
        match (hidden, old, new) {
            (true, ..) => write!(f, "{key}: changed, not shown ({effect})"),
            (false, None, None) => write!(f, "{key} ({effect})"),
            (false, old, new) => {
                let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
                write!(f, "{key}: {} -> {} ({effect})", show(old), show(new))
            }
        }
    }
}
