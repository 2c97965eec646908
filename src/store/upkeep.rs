//! What the recorder does on demand, done by a process that has the store to itself: no daemon runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::audit::{Act, Deed};
use super::ledger::Ledger;
use super::{Store, StoreError};
use crate::config;
use crate::task::{MessageKey, UnixMillis};
use crate::who::Who;

/// Forgets what is over, by the retention of these jobs, and gives the room back. Returns records and bytes.
pub fn prune(config: &config::Store, retention: &[(&str, Duration)]) -> Result<(u64, u64), StoreError> {
    let mut ledger = open(config, retention)?;
    let noted = ledger.note(&Deed::new(Who::here(), Act::Pruned));
    noted.map_err(StoreError::while_forgetting)?;
    let given_back = finish(&mut ledger)?;
    let forgotten = ledger.forgotten();
    ledger.close()?;
    Ok((forgotten, given_back))
}

/// Forgets a key, or with none everything that the job has recorded. Returns the records.
pub fn forget(config: &config::Store, job: &str, key: Option<&MessageKey>) -> Result<u64, StoreError> {
    let mut ledger = open(config, &[])?;
    let Some(id) = ledger.find_job(job)? else {
        ledger.close()?;
        return Ok(0);
    };
    let deed = Deed::forgot(Who::here(), job, key);
    let forgotten = match key {
        Some(key) => ledger.forget_key(id, key, &deed).map_err(StoreError::while_forgetting)?,
        None => {
            ledger.forget_all(id, &deed).map_err(StoreError::while_forgetting)?;
            finish(&mut ledger)?;
            ledger.forgotten()
        }
    };
    ledger.close()?;
    Ok(forgotten)
}

/// Writes into the audit trail what somebody did elsewhere.
pub fn note(config: &config::Store, deed: &Deed) -> Result<(), StoreError> {
    let ledger = open(config, &[])?;
    ledger.note(deed)?;
    ledger.close()
}

/// A store that is there, with no job's retention but these.
fn open(config: &config::Store, retention: &[(&str, Duration)]) -> Result<Ledger, StoreError> {
    // Makes sure that it is one, and makes none.
    super::look::open(&config.path)?;
    let store = Store::open(config)?;
    let mut kept = BTreeMap::new();
    for (name, retention) in retention {
        if let Some(job) = store.find_job(name)? {
            kept.insert(job, *retention);
        }
    }
    let mut ledger = Ledger::on_behalf(store, kept)?;
    ledger.hurry();
    Ok(ledger)
}

/// Deletes all that is over, and gives the room back. Returns the bytes.
fn finish(ledger: &mut Ledger) -> Result<u64, StoreError> {
    while ledger.tend(UnixMillis::now()).map_err(StoreError::while_forgetting)? {}
    let mut given_back = 0;
    loop {
        match ledger.give_back()? {
            0 => return Ok(given_back),
            bytes => given_back += bytes,
        }
    }
}
