//! All rows, in the order of the table. A file for each kind of fault.

mod daemon;
mod handlers;
mod machine;
mod store;
mod tests;

use crate::row::Row;

/// Every row.
pub fn all() -> Vec<Row> {
    [daemon::rows(), handlers::rows(), machine::rows(), store::rows(), tests::rows()].concat()
}
