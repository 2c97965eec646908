//! `make chaos`: faults, each injected again and again while the daemon works, and what was lost (nothing).
//!
//! Every row of the table is a [`Row`]: a name, how its fault is injected, how often, and a function that does it and has an
//! oracle judge the end. For most that oracle is `support::scene`, which compares three witnesses: what was published and
//! confirmed is done, dead or still queued, each message in one of these places only; nothing that was recorded ran again;
//! what ran twice is explained by a crash; and no queue holds what does not belong there.
//!
//! It has two forms. The short one is part of `cargo test`: a few faults a row, and several rows at a time. The long one
//! (`LONG=1`, which `make chaos` sets) runs one row after the other, so that its times mean something.
//!
//! With `SOAK` in the environment it is `make soak` instead, of `soak.rs`.
//!
//! The environment changes what runs: `ROWS` (names or their beginnings), `COUNTS` (`daemon-kill=50,sigterm=20`: faults of a
//! row), `SEED` (of every random choice), `MARKDOWN` (a file for the table). Words on the command line select rows as they
//! select tests elsewhere.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this program is for")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod support;

mod plan;
mod row;
mod rows;
mod soak;
mod table;

use std::process::ExitCode;

use plan::Plan;
use row::Outcome;

fn main() -> ExitCode {
    if plan::text_from("SOAK").is_some() {
        return soak::run();
    }
    let plan = match Plan::new(rows::all(), std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("chaos: {why}");
            return ExitCode::from(2);
        }
    };
    if plan.only_list {
        for row in &plan.rows {
            println!("{}: test", row.name);
        }
        return ExitCode::SUCCESS;
    }
    let results = plan.run();
    table::print(&plan, &results);
    let failed = results.values().any(|(_, ended)| ended.result() == Outcome::Failed);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
