//! Threads that work in bulk and leave the processor to whoever needs it sooner.
#![expect(unsafe_code, reason = "no safe interface sets the scheduling policy of a thread")]

use log::debug;

/// Makes the calling thread, and every thread that it starts from now on, a batch worker (`SCHED_BATCH`, sched(7)): when
/// it wakes it waits for its turn instead of pushing another off its processor. Where broker and daemon share a machine
/// that is busy, each turn then finds more to do, and the broker is interrupted less.
///
/// Not for the threads that start handlers: a program would inherit it. A policy that an administrator chose is left alone.
pub fn enter() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: zero names the calling thread; the kernel reads one structure, which outlives the call.
    let refused = unsafe {
        libc::sched_getscheduler(0) == libc::SCHED_OTHER
            && libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) != 0
    };
    if refused {
        debug!("the system does not let threads be batch workers: {}", std::io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;
    use procfs::process::Stat;

    /// That of the calling thread.
    fn policy() -> libc::c_int {
        let stat = Stat::from_file("/proc/thread-self/stat").unwrap();
        stat.policy.unwrap().try_into().unwrap()
    }

    #[test]
    fn threads_inherit_it_and_the_starter_keeps_its_own() {
        let before = policy();
        let inner = std::thread::spawn(move || {
            super::enter();
            (policy(), std::thread::spawn(policy).join().unwrap())
        });
        assert_eq!(inner.join().unwrap(), (libc::SCHED_BATCH, libc::SCHED_BATCH));
        assert_eq!(policy(), before);
    }
}
