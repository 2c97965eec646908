//! What the integration tests, the chaos suite and the benchmark need around the real binary: a broker, a vhost, a daemon, a journal.
//!
//! Nothing here is a stand-in: the broker is RabbitMQ, the daemon is the built binary, handlers are processes.
//! `make test` starts a private node and says in the environment where it is.

pub mod baddisk;
pub mod broker;
pub mod certificates;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod journal;
pub mod management;
pub mod node;
pub mod proxy;
pub mod raw;
pub mod records;
pub mod scene;
pub mod slow;
pub mod tap;
pub mod terminal;
pub mod web;

use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; fails the test with `what` after `timeout`.
pub fn wait_until(what: &str, timeout: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(timeout, condition), "not within {timeout:?}: {what}");
}

/// Whether `condition` came to hold within `timeout`. It is looked at once more at the very end.
pub fn holds_within(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Says that a check is left out as this program is not here. Where CI is set it must be here.
pub fn skip(program: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "{program} is not here, and CI is set");
    // Not by a macro: what tests that pass print with one is not shown.
    let _ = writeln!(std::io::stderr(), "skipped: no {program}");
}

/// A file of this folder.
pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name)
}

/// A number from the environment, for the long form of a test.
pub fn number_from(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

/// A UUIDv4, as publishers like it for message ids. Not of the generator that a test may have seeded: vhosts have their
/// names from here, and two tests with one seed must not share one.
pub fn random_uuid() -> uuid::Uuid {
    // Its keys come from the operating system, and each one that is made differs.
    let random = || u128::from(RandomState::new().hash_one(0));
    uuid::Builder::from_random_bytes((random() << 64 | random()).to_be_bytes()).into_uuid()
}
