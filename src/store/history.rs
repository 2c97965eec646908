//! What the store knows about one key, for `warrend explain`. Read from outside, whether or not a daemon runs.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use super::recent::{self, Outcome};
use super::{JobId, StoreError, look};
use crate::task::{Exit, MessageKey, UnixMillis};

/// A store that is only looked at.
#[derive(Debug)]
pub struct History {
    connection: Connection,
}

/// One attempt of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub attempt: u32,
    /// When it ended.
    pub at: UnixMillis,
    /// How long it ran; zero where the handler was not started.
    pub ran: Duration,
    /// How its process ended, where one ended.
    pub exit: Option<Exit>,
    /// Where it ran.
    pub host: String,
    /// Why it failed; `None`: it is done.
    pub failure: Option<Told>,
}

/// A failure as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its class, as in `x-warrend-error-class`.
    pub class: String,
    /// The handler's last words, the exit status before them.
    pub error: String,
    /// How long until the next attempt; `None` = dead.
    pub delay: Option<Duration>,
    /// Whether the broker has confirmed the copy.
    pub confirmed: bool,
    /// When the message was first seen by any worker.
    pub first_seen: UnixMillis,
}

/// Everything about one key in one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// In order.
    pub ended: Vec<Ended>,
    /// With `in_doubt = "dead"`: the attempt whose handler may be running.
    pub started: Option<(u32, UnixMillis)>,
}

impl History {
    /// Opens the store for reading; it must exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: look::open(path)? })
    }

    /// The names of all jobs that ever ran with this store.
    pub fn jobs(&self) -> Result<Vec<String>, StoreError> {
        let names = || {
            let mut select = self.connection.prepare("SELECT name FROM jobs ORDER BY name")?;
            select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
        };
        names().map_err(|error| StoreError::sqlite("list its jobs", &error))
    }

    /// What is known of a key in a job; `None` where the job has never run with this store.
    pub fn life(&self, job: &str, key: &MessageKey) -> Result<Option<Life>, StoreError> {
        let life = || {
            let id = self.connection.query_row("SELECT id FROM jobs WHERE name = ?1", [job], |row| row.get(0));
            let Some(id) = id.optional()?.map(JobId) else {
                return Ok(None);
            };
            let started = "SELECT attempt, at FROM starts WHERE job = ?1 AND key = ?2 ORDER BY attempt DESC LIMIT 1";
            let started = self
                .connection
                .query_row(started, (id.0, key.as_bytes()), |row| Ok((row.get(0)?, UnixMillis(row.get(1)?))));
            Ok(Some(Life { ended: self.ended(id, key)?, started: started.optional()? }))
        };
        life().map_err(|error| StoreError::sqlite("read the history of a key", &error))
    }

    fn ended(&self, job: JobId, key: &MessageKey) -> rusqlite::Result<Vec<Ended>> {
        let mut select = self.connection.prepare(
            "SELECT attempt, outcome, at, ran, class, error, delay_s, first_seen, exit,
                    (SELECT name FROM hosts WHERE since <= at ORDER BY since DESC LIMIT 1)
             FROM (SELECT attempt, max(outcome) AS outcome, min(at) AS at, max(ran) AS ran, max(exit) AS exit
                   FROM outcomes WHERE job = ?1 AND key = ?2 GROUP BY attempt)
             LEFT JOIN (SELECT * FROM failures WHERE job = ?1 AND key = ?2) USING (attempt)
             ORDER BY attempt",
        )?;
        let rows = select.query_map((job.0, key.as_bytes()), |row| {
            let outcome = Outcome::from_code(row.get(1)?);
            let failed = outcome != Some(Outcome::Done);
            let class: Option<String> = row.get(4)?;
            let failure = class.filter(|_| failed).map(|class| -> rusqlite::Result<Told> {
                Ok(Told {
                    class,
                    error: row.get(5)?,
                    delay: row.get::<_, Option<u32>>(6)?.map(|seconds| Duration::from_secs(seconds.into())),
                    confirmed: outcome == Some(Outcome::Forwarded),
                    first_seen: UnixMillis(row.get(7)?),
                })
            });
            Ok(Ended {
                attempt: row.get(0)?,
                at: UnixMillis(row.get(2)?),
                ran: Duration::from_millis(row.get::<_, u32>(3)?.into()),
                exit: recent::Ended::from_column(row.get(8)?).exit(),
                // Only a clock that was set back leaves a record without one.
                host: row.get::<_, Option<String>>(9)?.unwrap_or_else(|| "-".to_owned()),
                failure: failure.transpose()?,
            })
        })?;
        rows.collect()
    }
}
