//! Whether a store is whole and says nothing that contradicts itself, for `warrend store verify`.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

use super::recent::Outcome;
use super::walk::{Seen, walk};
use super::{StoreError, check, look};
use crate::task::MessageKey;

/// Lines about the structure that are shown at most.
const MOST: u32 = 20;

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Verified {
    /// Messages that the store remembers.
    pub keys: u64,
    /// Their attempts.
    pub attempts: u64,
    /// One sentence each; none where all is well.
    pub findings: Vec<String>,
}

/// Reads all of a store, which may be in use, or a copy of one.
pub fn verify(path: &Path) -> Result<Verified, StoreError> {
    let connection = look::open(path)?;
    let failed = |error: &rusqlite::Error| StoreError::sqlite(&format!("verify {}", path.display()), error);
    let damage = check::damage(&connection, "integrity_check", MOST).map_err(|error| failed(&error))?;
    if !damage.is_empty() {
        // What contradicts itself in a damaged file says nothing more.
        let findings = damage.into_iter().map(|line| format!("the file is damaged: {line}")).collect();
        return Ok(Verified { findings, ..Verified::default() });
    }
    contradictions(&connection).map_err(|error| failed(&error))
}

/// How often each thing was found that must not be, and the first key of it.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    example: Option<String>,
}

impl Tally {
    fn add(&mut self, key: &[u8]) {
        self.count += 1;
        if self.example.is_none() {
            self.example = Some(MessageKey::from_bytes(key).to_text());
        }
    }

    fn say(&self, singular: &str, plural: &str) -> Option<String> {
        let example = self.example.as_ref()?.escape_debug();
        let what = if self.count == 1 { singular } else { plural };
        Some(format!("{} {what}, such as of {example}", self.count))
    }
}

#[derive(Debug, Default)]
struct Tallies {
    foreign: Tally,
    unknown: Tally,
    both: Tally,
    twice: Tally,
    bare: Tally,
    stray: Tally,
}

impl Tallies {
    fn add(&mut self, jobs: &BTreeSet<i64>, job: i64, key: &[u8], attempts: &[Seen]) {
        if !jobs.contains(&job) {
            self.foreign.add(key);
        }
        let mut done = 0;
        for seen in attempts {
            let outcomes = || seen.records.iter().map(|(outcome, _)| *outcome);
            let successes = outcomes().filter(|outcome| *outcome == Some(Outcome::Done)).count();
            done += successes;
            let greatest = outcomes().max();
            if outcomes().any(|outcome| outcome.is_none()) {
                self.unknown.add(key);
            }
            if successes > 0 && successes < seen.records.len() {
                self.both.add(key);
            }
            if greatest == Some(Some(Outcome::Failed)) && seen.failure.is_none() {
                self.bare.add(key);
            }
            if greatest.is_none() {
                self.stray.add(key);
            }
        }
        if done > 1 {
            self.twice.add(key);
        }
    }

    fn say(&self) -> impl Iterator<Item = String> {
        let Self { foreign, unknown, both, twice, bare, stray } = self;
        let said = [
            foreign.say(
                "key belongs to a job that the store does not know",
                "keys belong to jobs that the store does not know",
            ),
            unknown.say("attempt has an outcome that does not exist", "attempts have an outcome that does not exist"),
            both.say("attempt is recorded as done and as failed", "attempts are recorded as done and as failed"),
            twice.say("key is recorded as done more than once", "keys are recorded as done more than once"),
            bare.say(
                "failed attempt lacks what its copy is made of",
                "failed attempts lack what their copies are made of",
            ),
            stray.say("failure belongs to no attempt", "failures belong to no attempts"),
        ];
        said.into_iter().flatten()
    }
}

fn contradictions(connection: &Connection) -> rusqlite::Result<Verified> {
    let snapshot = connection.unchecked_transaction()?;
    let mut select = snapshot.prepare("SELECT id FROM jobs")?;
    let jobs = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<BTreeSet<i64>>>()?;
    let mut verified = Verified::default();
    let mut tallies = Tallies::default();
    let counted = walk(&snapshot, &mut |job, key, attempts| {
        verified.keys += 1;
        verified.attempts += attempts.len() as u64;
        tallies.add(&jobs, job, key, attempts);
    })?;
    verified.findings.extend(tallies.say());
    for counted in counted.iter().filter(|counted| counted.rows != counted.found) {
        let (generation, rows, found) = (counted.generation, counted.rows, counted.found);
        verified.findings.push(format!("generation {generation} should have {rows} records and has {found}"));
    }
    for (table, what) in [("starts", "attempts in doubt"), ("pauses", "pauses")] {
        let foreign = format!("SELECT count(*) FROM {table} WHERE job NOT IN (SELECT id FROM jobs)");
        let count: i64 = snapshot.query_row(&foreign, [], |row| row.get(0))?;
        if count > 0 {
            verified.findings.push(format!("{count} {what} belong to jobs that the store does not know"));
        }
    }
    let ended = "SELECT count(*) FROM starts WHERE EXISTS (SELECT 1 FROM outcomes
                 WHERE outcomes.job = starts.job AND outcomes.key = starts.key AND outcomes.attempt = starts.attempt)";
    let count: i64 = snapshot.query_row(ended, [], |row| row.get(0))?;
    if count > 0 {
        verified.findings.push(format!("{count} attempts are in doubt though they have ended"));
    }
    Ok(verified)
}
