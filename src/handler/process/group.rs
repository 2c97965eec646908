//! The processes of one run: the program and everything that it started.
//!
//! The program leads a session, and with it a process group, of its own. A signal to the group reaches all that stay in
//! it, atomically, even those that are being forked. What has left the group (job control, `setsid`) is found through
//! /proc, but only when a run must be ended, because walking /proc costs milliseconds: sessions and parents name it.
//!
//! What even that misses: a process in a session of its own whose parents are gone by then, which is what a daemon makes
//! of itself on purpose. The control group of warrend's service holds those.
//!
//! A number is signalled only while it cannot belong to a stranger: the group while its leader is not yet reaped (a
//! zombie keeps the number), any other process through a pidfd.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal, test_kill_process_group,
    waitpid,
};

/// How long a killed process may take to be gone. Past this it hangs in the kernel, for instance on a dead file server.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Descriptors that one run may spend on watching processes; the signals reach all of them whatever their number.
const MAX_WATCHED: usize = 64;

/// Owns the processes of one run. Dropping it ends them all.
#[derive(Debug)]
pub struct Group {
    /// The process id of the leader, a child of ours, and the number of its group and of its session.
    id: Pid,
    /// The pidfds of those that are known and were not seen to end; at first only the leader's.
    pub living: Vec<OwnedFd>,
    reaped: bool,
}

impl Group {
    /// The group that this child leads.
    pub fn of(leader: Pid, pidfd: OwnedFd) -> Self {
        Self { id: leader, living: vec![pidfd], reaped: false }
    }

    /// The process id of the leader.
    pub fn leader(&self) -> Pid {
        self.id
    }

    /// Asks all of them to end (TERM).
    pub fn terminate(&mut self) {
        self.signal_all(Signal::TERM);
    }

    /// Ends what is left of a run that had to be ended, those that left the group included.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal_all(Signal::KILL);
        self.end()
    }

    /// Ends what is left of the group, gives the leader's exit status, and returns when nothing of the group lives.
    ///
    /// Called once, when the leader has ended or must end now. An error means that the leader's status cannot be had;
    /// if it outlives SIGKILL by seconds, its zombie stays until the daemon ends.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        let until = Instant::now() + END_LIMIT;
        // It fails where nothing is left but zombies of another user, or the leader moved to another group.
        let _ = kill_process_group(self.id, Signal::KILL);
        for process in &self.living {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        await_ends(&mut self.living, until);
        let reaped = retry_on_intr(|| waitpid(Some(self.id), WaitOptions::NOHANG));
        self.reaped = true;
        // From here on the number may be given to a stranger: it is looked at, no longer signalled.
        if test_kill_process_group(self.id).is_ok() {
            let members = processes().into_iter().filter(|process| process.group == Some(self.id));
            await_ends(&mut members.take(MAX_WATCHED).filter_map(Process::watch).collect(), until);
        }
        match reaped? {
            Some((_, status)) => Ok(ExitStatus::from_raw(status.as_raw())),
            None => {
                let id = self.id.as_raw_nonzero();
                Err(io::Error::other(format!("process {id} does not end, not even when killed")))
            }
        }
    }

    /// Signals the group and all that left it, and watches from now on as many of them as it may.
    fn signal_all(&mut self, signal: Signal) {
        let relatives = descendants(&processes(), self.id);
        let _ = kill_process_group(self.id, signal);
        for process in relatives {
            let Some(pidfd) = process.watch() else {
                continue;
            };
            // Once is enough: some programs take a second TERM for impatience.
            if process.group != Some(self.id) {
                let _ = pidfd_send_signal(&pidfd, signal);
            }
            if self.living.len() < MAX_WATCHED {
                self.living.push(pidfd);
            }
        }
    }
}

impl Drop for Group {
    /// On the way out of an error or a panic.
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.kill();
        }
    }
}

/// Waits until all of them have ended, or until that time.
fn await_ends(living: &mut Vec<OwnedFd>, until: Instant) {
    while !living.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a few seconds fit");
        let mut fds: Vec<_> = living.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        living.retain(|_| ended.next() != Some(true));
    }
}

/// What /proc/PID/stat says about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: Pid,
    // Each is absent where the process that gave its number lives outside of this PID namespace (a container's).
    parent: Option<Pid>,
    group: Option<Pid>,
    session: Option<Pid>,
    /// Clock ticks since boot; with the id it names a process for ever.
    started: u64,
}

impl Process {
    /// A pidfd of exactly this process; absent where it is gone.
    fn watch(self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(self.id, PidfdFlags::empty()).ok()?;
        // The number may have passed to another process before the pidfd held it.
        read(self.id).filter(|now| now.started == self.started).map(|_| pidfd)
    }
}

/// All processes that live; none where /proc is not mounted.
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.filter_map(|entry| read(Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)?)).collect()
}

/// One process; absent where it is gone or a zombie.
fn read(id: Pid) -> Option<Process> {
    let stat = std::fs::read(format!("/proc/{}/stat", id.as_raw_nonzero())).ok()?;
    parse(id, &String::from_utf8_lossy(&stat))
}

/// The fields of /proc/PID/stat (proc(5)). The second is the program's name in parentheses, which may hold anything.
fn parse(id: Pid, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let mut number = || fields.next()?.parse().ok();
    let (parent, group, session) = (Pid::from_raw(number()?), Pid::from_raw(number()?), Pid::from_raw(number()?));
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { id, parent, group, session, started })
}

/// The members of the leader's group and session, and all their children and children's children; not the leader.
fn descendants(all: &[Process], leader: Pid) -> Vec<Process> {
    let mut family = vec![leader];
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for process in all {
            let related = process.group == Some(leader)
                || process.session == Some(leader)
                || process.parent.is_some_and(|parent| family.contains(&parent));
            if related && !family.contains(&process.id) {
                family.push(process.id);
                found.push(*process);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: i32, parent: i32, group: i32, session: i32) -> Process {
        let pid = Pid::from_raw;
        Process { id: pid(id).unwrap(), parent: pid(parent), group: pid(group), session: pid(session), started: 1 }
    }

    #[test]
    fn the_family_is_group_session_and_descendants() {
        let all = [
            process(1, 0, 1, 1),
            process(45, 44, 45, 45), // a grandchild that left, listed before its parent
            process(10, 1, 10, 10),  // the daemon
            process(40, 10, 40, 40), // the leader
            process(41, 40, 40, 40), // its child
            process(42, 1, 40, 40),  // an orphan in the group
            process(43, 1, 43, 40),  // an orphan of job control
            process(44, 41, 44, 44), // a child's child with its own session
            process(50, 10, 50, 50), // another handler
            process(51, 50, 50, 50),
        ];
        let mut found: Vec<_> =
            descendants(&all, all[3].id).iter().map(|process| process.id.as_raw_nonzero().get()).collect();
        found.sort_unstable();
        assert_eq!(found, [41, 42, 43, 44, 45]);
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let id = Pid::from_raw(7).unwrap();
        let rest = "4 5 6 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1000 2";
        let found = parse(id, &format!("7 (a) S 1 (b c) S {rest}")).unwrap();
        assert_eq!(found, Process { started: 9876, ..process(7, 4, 5, 6) });
        assert_eq!(parse(id, &format!("7 (dead) Z {rest}")), None);
        assert_eq!(parse(id, "7 (short) S 4 5"), None);
        // Started from outside of the PID namespace.
        let found = parse(id, &format!("7 (inner) S 0 0 0 {}", &rest[6..])).unwrap();
        assert_eq!(found, Process { started: 9876, ..process(7, 0, 0, 0) });
    }

    #[test]
    fn a_child_is_found_with_its_parent_and_group() {
        use std::os::unix::process::CommandExt;
        let mut child = std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let id = Pid::from_child(&child);
        let found = read(id).unwrap();
        let listed = processes().contains(&found);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((found.parent, found.group), (Some(rustix::process::getpid()), Some(id)));
        assert!(listed);
        assert_eq!(read(id), None);
    }
}
