//! The keys of a `worker` handler: its batches, and when its process is replaced.

use std::time::Duration;

use crate::config::general::ABOVE_ZERO;
use crate::config::item::{Item, Limits};
use crate::config::section::Section;
use crate::config::value::secs;
use crate::config::{Command, Worker};

/// Tasks that wait longer than this for company had better run.
const LINGER: Limits = Limits::new(secs(0), secs(10));
/// Less than this no process has that runs at all.
const LEAST_MEMORY: u64 = 1 << 20;

/// All but the program, which is still empty here.
pub fn limits(section: &Section<'_>) -> Worker {
    let batch = section.get("batch", 1, |item| item.integer(1..=1000));
    let linger = section.get("linger", Duration::ZERO, |item| item.duration(LINGER));
    if let Some(place) = linger.at.filter(|_| linger.both(&batch) && linger.value > Duration::ZERO && batch.value == 1)
    {
        let help = "a batch of one is always full: raise `batch`, or remove the key";
        section.reader().warn(place, "`linger` has no effect here", help);
    }
    Worker {
        program: Command {
            argv: Vec::new(),
            timeout: Duration::ZERO,
            kill_grace: Duration::ZERO,
            env: std::collections::BTreeMap::new(),
            cwd: None,
        },
        batch: batch.value,
        linger: linger.value,
        max_tasks: section.get("max_tasks", None, |item| item.integer(1..=i64::MAX).map(Some)).value,
        max_memory: section.get("max_memory", None, |item| memory(&item).map(Some)).value,
        max_age: section.get("max_age", None, |item| item.duration(ABOVE_ZERO).map(Some)).value,
    }
}

fn memory(item: &Item<'_>) -> Option<u64> {
    let size = item.size()?;
    if size < LEAST_MEMORY {
        return item.error(format!("{} is too small", item.name()), "allowed: \"1MiB\" or more");
    }
    Some(size)
}
