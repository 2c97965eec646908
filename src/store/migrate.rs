//! Brings a store to the newest schema, in one transaction.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// In order; the position is the schema version that a step leads to. Never edited once released.
const MIGRATIONS: [&str; 2] =
    [include_str!("../../migrations/0001_initial.sql"), include_str!("../../migrations/0002_audit.sql")];

/// Refuses the schema of a newer version.
pub fn judge(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let known = MIGRATIONS.len() as i64;
    let found = version(connection).map_err(|error| failed(path, &error))?;
    if (0..=known).contains(&found) {
        return Ok(());
    }
    Err(StoreError::TooNew { path: path.to_owned(), found, known })
}

/// Whether it lacks no step.
pub fn is_current(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(version(connection)? == MIGRATIONS.len() as i64)
}

/// Applies the steps that the file lacks, after [`judge`]. All of them and `user_version` are one transaction, so a crash
/// leaves either the old schema or the new one.
///
/// Where none is lacking the version is written all the same: a disk that takes no writes is found by the start, before
/// any handler runs.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let apply = |connection: &mut Connection| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = usize::try_from(version(&transaction)?).unwrap_or(usize::MAX);
        for step in MIGRATIONS.iter().skip(done) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        transaction.commit()
    };
    apply(connection).map_err(|error| failed(path, &error))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    StoreError::sqlite(&format!("bring {} to this version's schema", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Synchronous};
    use crate::store::Store;

    fn open(folder: &tempfile::TempDir) -> Result<Store, StoreError> {
        Store::open(&config::Store {
            path: folder.path().join("warrend.db"),
            synchronous: Synchronous::Full,
            retention: std::time::Duration::from_secs(60),
        })
    }

    /// What a warrend that knew so many steps left behind.
    fn left_by_version(folder: &tempfile::TempDir, version: usize) -> Connection {
        let connection = Connection::open(folder.path().join("warrend.db")).unwrap();
        for step in &MIGRATIONS[..version] {
            connection.execute_batch(step).unwrap();
        }
        connection.pragma_update(None, "user_version", version as i64).unwrap();
        connection
    }

    #[test]
    fn a_store_of_every_older_version_is_brought_up_to_date_and_keeps_what_it_has() {
        for older in 0..=MIGRATIONS.len() {
            let folder = tempfile::tempdir().unwrap();
            let connection = left_by_version(&folder, older);
            if older > 0 {
                connection.execute("INSERT INTO jobs (id, name) VALUES (7, 'mail')", []).unwrap();
            }
            drop(connection);
            let store = open(&folder).unwrap();
            assert_eq!(version(&store.connection).unwrap(), MIGRATIONS.len() as i64);
            let job = store.job_id("mail").unwrap();
            assert!(older == 0 || job == super::super::JobId(7), "{job:?}");
            store.close().unwrap();
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_schema_whole() {
        // From each older version each step that is lacking fails, halfway through its list: there is such a table already.
        for (older, taken) in [(0, "failures"), (0, "audit_ends"), (1, "audit_ends")] {
            let folder = tempfile::tempdir().unwrap();
            let before = left_by_version(&folder, older);
            before.execute_batch(&format!("CREATE TABLE {taken} (x)")).unwrap();
            let schema = schema(&before);
            drop(before);
            let refused = open(&folder).unwrap_err().to_string();
            assert!(refused.contains("to this version's schema"), "{refused}");
            let after = Connection::open(folder.path().join("warrend.db")).unwrap();
            assert_eq!((self::schema(&after), version(&after).unwrap()), (schema, older as i64), "{taken}");
        }
    }

    fn schema(connection: &Connection) -> Vec<(String, Option<String>)> {
        let mut select = connection.prepare("SELECT name, sql FROM sqlite_master ORDER BY name").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        left_by_version(&folder, MIGRATIONS.len()).pragma_update(None, "user_version", 99).unwrap();
        for _ in 0..2 {
            assert!(matches!(open(&folder), Err(StoreError::TooNew { found: 99, .. })));
        }
    }
}
