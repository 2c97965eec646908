//! Named places where a test can end the process or a thread, one in each crash window of a message.
//!
//! `WARREND_FAILPOINT=NAME` or `NAME:N` aborts the process when the place is passed for the first or `N`-th time, as a
//! power cut would: nothing is flushed, nothing is closed. `NAME:N:panic` has the thread that passes it panic, as a bug
//! would. Without the variable a place costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Failpoint {
    name: String,
    left: AtomicU64,
    panics: bool,
}

static FAILPOINT: OnceLock<Option<Failpoint>> = OnceLock::new();

/// Reads the environment; called once by `main` before any thread starts.
pub fn arm(setting: Option<&str>) {
    let failpoint = setting.filter(|setting| !setting.is_empty()).map(|setting| {
        let mut parts = setting.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let left = parts.next().and_then(|count| count.parse().ok()).unwrap_or(1);
        Failpoint { name, left: AtomicU64::new(left), panics: parts.next() == Some("panic") }
    });
    // A second call changes nothing.
    let _ = FAILPOINT.set(failpoint);
}

/// Passes the place `name`.
pub fn hit(name: &str) {
    let Some(Some(failpoint)) = FAILPOINT.get() else {
        return;
    };
    if failpoint.name == name && failpoint.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        assert!(!failpoint.panics, "the failpoint {name} was told to panic");
        std::process::abort();
    }
}
