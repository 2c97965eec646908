//! `[store]`, `[control]` and `[shutdown]`.

use std::path::PathBuf;

use super::item::{Item, Limits};
use super::section::{Got, Section};
use super::value::{LONGEST, days, millis, secs};
use super::{Control, Shutdown, Store, Synchronous};

/// Any duration above zero.
pub const ABOVE_ZERO: Limits = Limits::new(millis(1), LONGEST);
/// Any duration, zero too.
pub const ANY: Limits = Limits::new(secs(0), LONGEST);
/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last of which is zero.
const SOCKET_PATH: usize = 107;

/// Notes where the greatest of two durations is below the first.
pub fn at_least(
    section: &Section<'_>,
    (max_name, max): (&str, &Got<std::time::Duration>),
    (initial_name, initial): (&str, &Got<std::time::Duration>),
) {
    let Some(place) = max.at.or(initial.at) else {
        return;
    };
    if max.both(initial) && max.value < initial.value {
        let show = super::value::show_duration;
        section.reader().error(
            place,
            format!("`{max_name}` is below `{initial_name}`"),
            format!("`{initial_name}` is \"{}\", `{max_name}` is \"{}\"", show(initial.value), show(max.value)),
        );
    }
}

/// Reads `[store]`.
pub fn store(section: &Section<'_>) -> Store {
    let modes = [("full", Synchronous::Full), ("normal", Synchronous::Normal)];
    Store {
        path: section.get("path", PathBuf::from("/var/lib/warrend/warrend.db"), |item| item.path()).value,
        synchronous: section.get("synchronous", Synchronous::Full, |item| item.choice(&modes)).value,
        retention: section.get("retention", days(14), |item| item.duration(ABOVE_ZERO)).value,
    }
}

/// Reads `[control]`.
pub fn control(section: &Section<'_>) -> Control {
    Control { socket: section.get("socket", PathBuf::from("/run/warrend/warrend.sock"), socket).value }
}

fn socket(item: Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    let length = path.as_os_str().len();
    if length > SOCKET_PATH {
        let message = format!("the path of the socket has {length} bytes");
        return item.error(message, format!("a Unix socket's path has at most {SOCKET_PATH}; choose a shorter one"));
    }
    Some(path)
}

/// Reads `[shutdown]`.
pub fn shutdown(section: &Section<'_>) -> Shutdown {
    Shutdown { timeout: section.get("timeout", secs(25), |item| item.duration(ANY)).value }
}
