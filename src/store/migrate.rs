//! Brings a store to the newest schema, one transaction for each step.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// In order; the position is the schema version that a step leads to. Never edited once released.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/0001_initial.sql")];

/// Applies the steps that the file lacks. `user_version` changes in the same transaction as the schema, so a crash
/// leaves either the old schema or the new one.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error: &rusqlite::Error| StoreError::sqlite(&format!("migrate {}", path.display()), error);
    let known = MIGRATIONS.len();
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| failed(&error))?;
    let Some(done) = usize::try_from(found).ok().filter(|found| *found <= known) else {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known: known as i64 });
    };
    for (index, step) in MIGRATIONS.iter().enumerate().skip(done) {
        let apply = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", index as i64 + 1)?;
            transaction.commit()
        };
        apply(connection).map_err(|error| failed(&error))?;
    }
    Ok(())
}
