//! Watches a process drain a queue: how long, how much CPU, how much memory.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::support::broker::Vhost;

/// How often the broker is asked. Of a drain of ten seconds it is a twentieth of a percent.
const POLL: Duration = Duration::from_millis(5);
/// A drain that takes longer hangs.
const TOO_LONG: Duration = Duration::from_secs(600);
/// The kernel counts CPU time in 1/100 s towards programs, whatever its own tick is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What one drain took.
pub struct Measured {
    /// From the first message handed out to the last.
    pub drain: Duration,
    /// User and system time of the whole process.
    pub cpu: Duration,
    /// The most memory that it had resident at one time.
    pub peak_mib: f64,
}

/// Watches `pid`, a child of ours that drains the queue. `drained` is called when the queue is empty; the process must end
/// thereafter. It is not reaped here.
pub fn measure(vhost: &Vhost, queue: &str, messages: u32, pid: u32, drained: impl FnOnce()) -> Measured {
    let deadline = Instant::now() + TOO_LONG;
    let mut peak = 0.0;
    let mut first = None;
    let drain = vhost.with_channel(|channel| {
        loop {
            let ready = channel.queue_declare_passive(queue)?.declared_message_count().unwrap_or(messages);
            let now = Instant::now();
            if ready < messages {
                let first = *first.get_or_insert(now);
                if ready == 0 {
                    return Ok(now - first);
                }
            }
            peak = peak_mib(pid).unwrap_or(peak);
            assert!(now < deadline, "the queue is not drained: {ready} messages are left");
            assert!(!ended(pid, WaitIdOptions::NOHANG), "the consumer ended with {ready} messages left");
            std::thread::sleep(POLL);
        }
    });
    let drain = drain.expect("the broker answers");
    peak = peak_mib(pid).unwrap_or(peak);
    drained();
    ended(pid, WaitIdOptions::empty());
    Measured { drain, cpu: cpu(pid), peak_mib: peak }
}

/// Whether the child has ended; it stays a zombie, whose CPU time can still be read.
fn ended(pid: u32, options: WaitIdOptions) -> bool {
    let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(to_pid(pid)), options).expect("our child can be waited for").is_some()
}

fn to_pid(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel's process ids are positive")
}

/// `VmHWM`, the kernel's own high-water mark since the exec. (`ru_maxrss` would start from this process's size at the fork.)
fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// Fields 14 and 15 of `/proc/PID/stat`: the second is the name in parentheses, which may hold anything.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a zombie has an entry in /proc");
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}
