//! All rows, in the order of the table. A file for each kind of fault.

mod daemon;
mod handlers;
mod machine;
mod tests;

use crate::row::Row;

/// Every row.
pub fn all() -> Vec<Row> {
    [daemon::rows(), handlers::rows(), machine::rows(), tests::rows()].concat()
}
