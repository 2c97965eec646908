//! What the process and the machine use.

use serde::{Deserialize, Serialize};

/// What the kernel says, at the time of asking.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct System {
    /// The daemon.
    pub process: ProcessUse,
    /// The machine that it runs on.
    pub host: Host,
}

/// The daemon's process, and those of its handlers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessUse {
    /// Seconds of CPU time, without that of handlers.
    pub cpu_s: Option<f64>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// Address space.
    pub virtual_memory_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// File descriptors.
    pub open_files: Option<u64>,
    /// How many it may have; absent where nothing bounds them.
    pub max_files: Option<u64>,
    /// When it began, in seconds since the Unix epoch.
    pub started_s: Option<f64>,
    /// What it had the disks read.
    pub read_bytes: Option<u64>,
    /// What it had the disks write.
    pub written_bytes: Option<u64>,
    /// Processes of handlers that live.
    pub children: Option<u64>,
    /// Their resident memory; memory that they share counts for each.
    pub children_memory_bytes: Option<u64>,
    /// CPU seconds of those that have ended.
    pub children_cpu_s: Option<f64>,
}

/// The machine, or as much of it as the daemon is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Processors.
    pub cpus: Option<u64>,
    /// Seconds that they worked, summed over all of them, since the boot.
    pub cpu_busy_s: Option<f64>,
    /// Load average of the last minute.
    pub load_1m: Option<f64>,
    /// Of the last five.
    pub load_5m: Option<f64>,
    /// Of the last fifteen.
    pub load_15m: Option<f64>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// As much of it as programs can still have.
    pub memory_available_bytes: Option<u64>,
    /// Received on all interfaces but the loopback.
    pub network_received_bytes: Option<u64>,
    /// Sent on them.
    pub network_sent_bytes: Option<u64>,
    /// Read from its disks; what lies on top of a disk (partitions, LVM, RAID) does not count again.
    pub disk_read_bytes: Option<u64>,
    /// Written to them.
    pub disk_written_bytes: Option<u64>,
    /// Seconds that they had something to do, summed over all of them, since the boot.
    pub disk_busy_s: Option<f64>,
}
