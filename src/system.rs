//! What the kernel says of this process, of the handlers that it runs and of the machine, from `/proc` and `/sys` at the time of asking.
//!
//! What cannot be read (a container or a hardened unit may hide it) is absent.

pub mod journal;

use std::path::Path;
use std::time::Duration;

use procfs::process::{Limit, LimitValue, Process, Stat};
use procfs::{CpuTime, Current, CurrentSI, DiskStat, KernelStats, LoadAverage, Meminfo};

use crate::report::{Host, ProcessUse, System};

/// Everything, read now. It reads a file for each thread and for each handler that runs.
pub fn system() -> System {
    System { process: Process::myself().map(|own| process(&own)).unwrap_or_default(), host: host() }
}

fn process(own: &Process) -> ProcessUse {
    let stat = own.stat().ok();
    let stat = stat.as_ref();
    let io = own.io().ok();
    let children = children(own);
    ProcessUse {
        cpu_s: stat.map(|stat| seconds(stat.utime + stat.stime)),
        memory_bytes: stat.map(memory),
        virtual_memory_bytes: stat.map(|stat| stat.vsize),
        threads: stat.and_then(|stat| u64::try_from(stat.num_threads).ok()),
        open_files: own.fd_count().ok().and_then(|count| u64::try_from(count).ok()),
        max_files: own.limits().ok().and_then(|limits| bound(&limits.max_open_files)),
        started_s: stat.and_then(started),
        read_bytes: io.as_ref().map(|io| io.read_bytes),
        written_bytes: io.as_ref().map(|io| io.write_bytes),
        children: children.as_ref().map(|children| children.len() as u64),
        children_memory_bytes: children.map(|children| children.iter().map(memory).sum()),
        // Only of those that have ended: a sum with those that run would fall when one ends between two reads.
        children_cpu_s: stat.and_then(|stat| u64::try_from(stat.cutime + stat.cstime).ok()).map(seconds),
    }
}

fn memory(stat: &Stat) -> u64 {
    stat.rss.saturating_mul(procfs::page_size())
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

fn bound(limit: &Limit) -> Option<u64> {
    match limit.soft_limit {
        LimitValue::Value(value) => Some(value),
        LimitValue::Unlimited => None,
    }
}

/// Seconds since the Unix epoch, to a hundredth.
fn started(stat: &Stat) -> Option<f64> {
    let boot = procfs::boot_time_secs().ok()?;
    Some(boot as f64 + seconds(stat.starttime))
}

/// The processes that this one started and that live. Absent where the kernel does not list them.
fn children(own: &Process) -> Option<Vec<Stat>> {
    let mut children = Vec::new();
    for thread in own.tasks().ok()? {
        // A thread that has ended meanwhile has left its children to another one.
        let Ok(ids) = thread.and_then(|thread| thread.children()) else { continue };
        // A child that has ended meanwhile has none.
        let stat = |id| Process::new(i32::try_from(id).ok()?).ok()?.stat().ok();
        children.extend(ids.into_iter().filter_map(stat));
    }
    Some(children)
}

fn host() -> Host {
    let load = LoadAverage::current().ok();
    let memory = Meminfo::current().ok();
    let kernel = KernelStats::current().ok();
    let network = network();
    let disks = disks();
    Host {
        cpus: kernel.as_ref().map(|kernel| kernel.cpu_time.len() as u64),
        cpu_busy_s: kernel.as_ref().map(|kernel| seconds(busy(&kernel.total))),
        load_1m: load.as_ref().map(|load| rounded(load.one)),
        load_5m: load.as_ref().map(|load| rounded(load.five)),
        load_15m: load.as_ref().map(|load| rounded(load.fifteen)),
        memory_bytes: memory.as_ref().map(|memory| memory.mem_total),
        memory_available_bytes: memory.and_then(|memory| memory.mem_available),
        network_received_bytes: network.map(|(received, _)| received),
        network_sent_bytes: network.map(|(_, sent)| sent),
        disk_read_bytes: disks.as_ref().map(|disks| sectors(disks, |disk| disk.sectors_read)),
        disk_written_bytes: disks.as_ref().map(|disks| sectors(disks, |disk| disk.sectors_written)),
        disk_busy_s: disks.map(|disks| {
            disks.iter().map(|disk| Duration::from_millis(disk.time_in_progress)).sum::<Duration>().as_secs_f64()
        }),
    }
}

/// The kernel gives two digits; as a wider number it would show digits that nobody measured.
fn rounded(load: f32) -> f64 {
    (f64::from(load) * 100.0).round() / 100.0
}

/// Guests are in `user` and `nice` already. What waits for the disk is idle.
fn busy(time: &CpuTime) -> u64 {
    let rest = [time.irq, time.softirq, time.steal];
    time.user + time.nice + time.system + rest.into_iter().flatten().sum::<u64>()
}

/// Of all interfaces but the one that leads back here.
fn network() -> Option<(u64, u64)> {
    let interfaces = procfs::net::dev_status().ok()?;
    let others = interfaces.values().filter(|interface| interface.name != "lo");
    Some(others.fold((0, 0), |(received, sent), one| (received + one.recv_bytes, sent + one.sent_bytes)))
}

/// The disks themselves: partitions, and what is made of other disks, would count each byte once more. Absent where none is seen.
fn disks() -> Option<Vec<DiskStat>> {
    let is_disk = |name: &str| Path::new("/sys/block").join(name.replace('/', "!")).join("device").exists();
    let disks: Vec<_> = procfs::diskstats().ok()?.into_iter().filter(|disk| is_disk(&disk.name)).collect();
    (!disks.is_empty()).then_some(disks)
}

/// In bytes, of all of them. The kernel counts in sectors of 512 bytes, whatever those of the disk are.
fn sectors(disks: &[DiskStat], which: impl Fn(&DiskStat) -> u64) -> u64 {
    disks.iter().map(|disk| which(disk).saturating_mul(512)).sum()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_child_is_seen_and_its_time_is_counted_once_it_has_ended() {
        let before = system().process;
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Other tests of this binary start processes too. One that has just been made has no memory of its own yet.
        let until = Instant::now() + Duration::from_secs(20);
        let during = loop {
            let during = system().process;
            if during.children_memory_bytes > Some(0) || Instant::now() >= until {
                break during;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(during.children.unwrap() >= 1, "{during:?}");
        assert!(during.children_memory_bytes.unwrap() > 0, "{during:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(system().process.children_cpu_s.unwrap() >= before.children_cpu_s.unwrap());
    }

    #[test]
    fn the_figures_are_those_of_this_process_and_machine() {
        let System { process, host } = system();
        assert!(process.cpu_s.is_some() && process.read_bytes.is_some() && process.written_bytes.is_some());
        assert!(process.memory_bytes.unwrap() > 1 << 20 && process.memory_bytes < process.virtual_memory_bytes);
        assert!(process.threads.unwrap() >= 2 && process.open_files.unwrap() >= 3);
        assert!(process.max_files.unwrap() >= process.open_files.unwrap());
        let now = crate::task::UnixMillis::now().0 as f64 / 1000.0;
        let age = now - process.started_s.unwrap();
        assert!((-1.0..86_400.0).contains(&age), "{age}");
        assert!(host.cpus.unwrap() >= 1 && host.cpu_busy_s.unwrap() > 0.0);
        assert!(host.memory_available_bytes.unwrap() < host.memory_bytes.unwrap());
        assert!(host.load_1m.is_some() && host.load_5m.is_some() && host.load_15m.is_some());
    }

    /// A machine that started from the network or lives in memory has none.
    #[test]
    fn disks_are_seen_where_there_are_any_and_partitions_do_not_count_again() {
        let host = host();
        let Some(disks) = disks() else {
            assert_eq!((host.disk_read_bytes, host.disk_written_bytes, host.disk_busy_s), (None, None, None));
            return;
        };
        assert!(host.disk_read_bytes.is_some() && host.disk_written_bytes.is_some() && host.disk_busy_s.is_some());
        for disk in disks {
            let is_part = Path::new("/sys/class/block").join(&disk.name).join("partition").exists();
            assert!(!is_part, "{disk:?}");
        }
    }
}
