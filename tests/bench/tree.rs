//! What all processes of a contestant cost together: the one that was started, its children and theirs.
//!
//! A contestant is all that descends from this program while it runs. Its CPU time is that of the living descendants with
//! what each has reaped of its own children (fields 14 to 17 of `/proc/PID/stat`), and what this program has reaped. So a
//! `/bin/true` that lived for half a millisecond counts in full, which no sampling could do. This program is made the
//! reaper of orphans, so that nothing escapes by losing its parent. A cgroup would count the same but needs root; the usage
//! that `wait4` gives back comes only at the end and would count each interpreter's start.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};

use crate::support::holds_within;

/// The kernel counts CPU time in 1/100 s towards programs, whatever its own tick is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// How long descendants may outlive the process that was started.
const STRAY: Duration = Duration::from_secs(20);

/// From now on orphans below this process are its children.
pub fn adopt_orphans() {
    set_child_subreaper(Some(getpid())).expect("Linux lets a process collect orphans");
}

/// One process, as far as it matters here.
struct Process {
    parent: u32,
    /// Its own CPU time.
    used: u64,
    /// That of the children that it reaped.
    reaped: u64,
}

/// The descendants of this process, and this process.
fn family() -> (Vec<(u32, Process)>, Process) {
    let entries = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ended meanwhile is in its parent's account.
    let mut all: BTreeMap<u32, Process> = ids.filter_map(|id| Some((id, process(id)?))).collect();
    let own = std::process::id();
    let below = |mut id: u32| {
        while let Some(process) = all.get(&id) {
            if process.parent == own {
                return true;
            }
            id = process.parent;
        }
        false
    };
    let ids: Vec<u32> = all.keys().copied().filter(|id| below(*id)).collect();
    let descendants = ids.into_iter().filter_map(|id| Some((id, all.remove(&id)?))).collect();
    (descendants, all.remove(&own).expect("this process is in /proc"))
}

/// The name, in parentheses, may hold anything; what follows it is regular.
fn process(id: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(number(1)?).ok()?,
        used: number(11)? + number(12)?,
        reaped: number(13)? + number(14)?,
    })
}

/// CPU seconds of all descendants that there ever were. Two readings make a figure.
pub fn cpu_seconds() -> f64 {
    let (descendants, own) = family();
    let ticks: u64 = descendants.iter().map(|(_, process)| process.used + process.reaped).sum();
    (ticks + own.reaped) as f64 / TICKS_PER_SECOND
}

/// The memory of a contestant, MiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// The most that all processes had at one time, where a page that several share counts once (`Pss`). Sampled.
    pub tree: f64,
    /// The most that any one process ever had resident (`VmHWM`).
    pub largest: f64,
}

impl Memory {
    /// Looks once more.
    pub fn sample(&mut self) {
        let (descendants, _) = family();
        let kib = |id: u32, file: &str, field: &str| field_of(id, file, field).unwrap_or(0.0);
        let tree: f64 = descendants.iter().map(|(id, _)| kib(*id, "smaps_rollup", "Pss:")).sum();
        let largest = descendants.iter().map(|(id, _)| kib(*id, "status", "VmHWM:")).fold(0.0, f64::max);
        self.tree = self.tree.max(tree / 1024.0);
        self.largest = self.largest.max(largest / 1024.0);
    }
}

/// `VmHWM` of one process: the most that it ever had resident since its exec, MiB.
pub fn peak_mib(id: u32) -> f64 {
    field_of(id, "status", "VmHWM:").unwrap_or(0.0) / 1024.0
}

fn field_of(id: u32, file: &str, field: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{id}/{file}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Reaps what lost its parent; the caller has reaped its own children. Fails the run where something goes on living.
pub fn nothing_left() {
    // Until there are no children any more.
    let reap = || loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    };
    assert!(holds_within(STRAY, reap), "a contestant left processes behind");
}
