//! All rows, in the order of the table. A file for each kind of fault, and one for a fault that takes many words.

mod broker;
mod cluster;
mod daemon;
mod dead_letters;
mod handlers;
mod machine;
mod rights;
mod store;
mod tests;

use crate::row::Row;

/// Every row.
pub fn all() -> Vec<Row> {
    let broker = [broker::rows(), rights::rows(), cluster::rows()].concat();
    [daemon::rows(), handlers::rows(), broker, machine::rows(), store::rows(), tests::rows()].concat()
}
