//! A walk over everything that a store knows, key by key.
//!
//! Each generation and the table of failures are in the order of their keys, so they are merged as they are: no table of
//! all keys is made, in memory or on the disk, whatever the size of the store.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::{Row, Rows, Statement, Transaction};

use super::recent::Outcome;

/// What stands where about one attempt: job, key, attempt, and which of the sources says it.
type Head = Reverse<(i64, Vec<u8>, u32, usize)>;

/// One attempt of a key.
#[derive(Debug, Default)]
pub struct Seen {
    pub attempt: u32,
    /// Its records, each with the time of its end, Unix milliseconds. `None`: the number of no outcome.
    pub records: Vec<(Option<Outcome>, i64)>,
    /// What is known of its failure: whether it was for good.
    pub failure: Option<bool>,
}

/// The rows of one generation.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted {
    pub generation: i64,
    /// What `generations` says.
    pub rows: i64,
    /// What is there.
    pub found: i64,
}

const GENERATION: &str =
    "SELECT job, key, attempt, outcome, at FROM records WHERE generation = ?1 ORDER BY job, key, attempt";
/// What no generation has taken in; few enough to be sorted.
const YOUNG: &str = "SELECT job, key, attempt, outcome, at FROM recent
                     WHERE seq > (SELECT coalesce(max(through), 0) FROM generations) AND ?1 ORDER BY job, key, attempt";
const FAILURES: &str = "SELECT job, key, attempt, delay_s IS NULL FROM failures WHERE ?1 ORDER BY job, key, attempt";

/// Is given a job's number, a key, and what stands where about its attempts, in their order.
pub type Visit<'v> = dyn FnMut(i64, &[u8], &[Seen]) + 'v;

/// Visits each key once, with its attempts in order, in the caller's transaction, so that all is as of one moment. Returns
/// what each generation has.
pub fn walk(snapshot: &Transaction<'_>, visit: &mut Visit<'_>) -> rusqlite::Result<Vec<Counted>> {
    let mut select = snapshot.prepare("SELECT id, rows FROM generations ORDER BY id")?;
    let counted = select.query_map([], |row| Ok(Counted { generation: row.get(0)?, rows: row.get(1)?, found: 0 }))?;
    let mut counted = counted.collect::<rusqlite::Result<Vec<_>>>()?;
    // The generations in their order, then the young ones, then the failures.
    let (young, failures) = (counted.len(), counted.len() + 1);
    let mut statements = Vec::new();
    for _ in &counted {
        statements.push(snapshot.prepare(GENERATION)?);
    }
    statements.extend([snapshot.prepare(YOUNG)?, snapshot.prepare(FAILURES)?]);
    let mut sources = Vec::new();
    for (index, statement) in statements.iter_mut().enumerate() {
        let generation = counted.get(index).map_or(1, |counted| counted.generation);
        sources.push(start(statement, generation)?);
    }
    let mut heads = BinaryHeap::new();
    for (index, source) in sources.iter_mut().enumerate() {
        heads.extend(head(source.next()?, index)?);
    }
    let mut key: (i64, Vec<u8>) = (0, Vec::new());
    let mut attempts: Vec<Seen> = Vec::new();
    while let Some(Reverse((job, bytes, attempt, index))) = heads.pop() {
        if (key.0, &key.1) != (job, &bytes) {
            if !attempts.is_empty() {
                visit(key.0, &key.1, &attempts);
            }
            attempts.clear();
            key = (job, bytes);
        }
        if attempts.last().is_none_or(|last| last.attempt != attempt) {
            attempts.push(Seen { attempt, ..Seen::default() });
        }
        let source = &mut sources[index];
        if let (Some(seen), Some(row)) = (attempts.last_mut(), source.get()) {
            if index == failures {
                seen.failure = Some(row.get(3)?);
            } else {
                seen.records.push((Outcome::from_code(row.get(3)?), row.get(4)?));
            }
        }
        if index < young {
            counted[index].found += 1;
        }
        heads.extend(head(source.next()?, index)?);
    }
    if !attempts.is_empty() {
        visit(key.0, &key.1, &attempts);
    }
    Ok(counted)
}

fn start<'s>(statement: &'s mut Statement<'_>, generation: i64) -> rusqlite::Result<Rows<'s>> {
    statement.query([generation])
}

fn head(row: Option<&Row<'_>>, index: usize) -> rusqlite::Result<Option<Head>> {
    let head = |row: &Row<'_>| Ok(Reverse((row.get(0)?, row.get_ref(1)?.as_blob()?.to_vec(), row.get(2)?, index)));
    row.map(head).transpose()
}
