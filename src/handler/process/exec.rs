//! Starting a process: from the clone to the exec.
//!
//! This is what glibc's `posix_spawn` does, with the few things that it cannot be asked for: descriptors above 2
//! and death with the daemon. The child borrows the daemon's memory and runs on a stack of its own, while the thread
//! that started it waits for the exec. All signals are blocked meanwhile, so that no signal handler of the daemon runs
//! in the child.
//!
//! Why not `std::process`: where it is asked for more than `posix_spawn` can do, it forks. A fork copies the page tables
//! and lets every thread of the daemon fault on its own pages afterwards: 2.8 ms of CPU a run with 40 MiB resident,
//! where this takes 0.8, whatever the size (`/bin/true`, its own work included). It also calls `execvp`, which hands what the kernel
//! cannot run to `/bin/sh`: an empty file, or a program for another machine, would then be a shell script, and its exit
//! status 0 would mark every message as done.
#![expect(unsafe_code, reason = "no safe interface starts a process with these properties without a fork")]

use std::ffi::{CString, c_char, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

use libc::c_int;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit, waitpid};

/// The stack of the child, in units of 16 bytes, which is the alignment that it needs: 32 KiB, for a few small frames.
const STACK: usize = 2048;
/// The signals that a program may know. Those above are the C library's own and the real-time signals.
const SIGNALS: std::ops::Range<c_int> = 1..32;

/// What all runs of a program have in common.
#[derive(Debug)]
pub struct Common {
    /// The paths to try in turn; at least one.
    pub paths: Vec<CString>,
    /// The program as it was named, and its arguments.
    pub argv: Vec<CString>,
    /// `NAME=value`
    pub environment: Vec<CString>,
    /// The working directory; the daemon's own where absent.
    pub cwd: Option<CString>,
}

/// Why a process could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The working directory cannot be entered.
    Directory(io::Error),
    /// Anything else: what the kernel says about the program, or about the resources that a process needs.
    Program(io::Error),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Program(error)
    }
}

/// All that the child needs, made before it: it must not allocate, because another thread may hold the allocator.
struct Child {
    paths: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// Null: the daemon's own.
    cwd: *const c_char,
    /// What becomes descriptor 0, 1, 2 and so on.
    descriptors: Vec<c_int>,
    daemon: libc::pid_t,
    limits: Limits,
    /// Written by the child: how it failed.
    failed: Option<StartError>,
}

/// Starts the program as the leader of a session and a process group of its own, with `variables` added to its
/// environment, and exactly these descriptors as 0 and up. It dies when the calling thread does.
///
/// Gives its id and its pidfd; the caller must reap it. On an error there is nothing to reap.
pub fn start<const N: usize>(
    common: &Common,
    variables: &[CString],
    descriptors: [BorrowedFd<'_>; N],
) -> Result<(Pid, OwnedFd), StartError> {
    let mut child = Child {
        paths: pointers(common.paths.iter()),
        argv: pointers(common.argv.iter()),
        environment: pointers(common.environment.iter().chain(variables)),
        cwd: common.cwd.as_ref().map_or(ptr::null(), |cwd| cwd.as_ptr()),
        descriptors: descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
        daemon: rustix::process::getpid().as_raw_nonzero().get(),
        limits: LIMITS.get().copied().unwrap_or_default(),
        failed: None,
    };
    let (id, pidfd) = clone(&mut child)?;
    match child.failed {
        None => Ok((id, pidfd)),
        Some(error) => {
            // It has ended; nobody else knows its id.
            let _ = retry_on_intr(|| waitpid(Some(id), WaitOptions::empty()));
            Err(error)
        }
    }
}

/// A C array of strings with its closing null.
fn pointers<'a>(strings: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    strings.map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Makes the child, and returns once it has become the program or has ended.
fn clone(child: &mut Child) -> io::Result<(Pid, OwnedFd)> {
    let mut stack: Vec<u128> = Vec::with_capacity(STACK);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the masks are plain values that the calls fill. With `CLONE_VFORK` this thread sleeps until the child has
    // another memory or none, so that the stack and `child`, which nobody else can reach, outlive its use of them; stacks
    // grow downwards on every machine that Linux and Rust share. `child_main` keeps to system calls and to this memory.
    let (id, error) = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let argument = ptr::from_mut(child).cast::<c_void>();
        let id = libc::clone(child_main, top.cast(), flags, argument, &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        (id, error)
    };
    // Nothing may become of a negative one, such as that of a clone that failed, but an error.
    match u32::try_from(id).ok().and_then(|_| Pid::from_raw(id)) {
        // SAFETY: the kernel has just opened it for us.
        Some(id) => Ok((id, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        None => Err(error),
    }
}

/// The child's whole life before its exec.
extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `clone` passes its `Child`, and nobody else touches that while the child runs.
    let child = unsafe { &mut *argument.cast::<Child>() };
    // SAFETY: this is the child, and the pointers are those that `start` made.
    child.failed = Some(unsafe { child.become_program() });
    127
}

impl Child {
    /// Returns only what kept the child from becoming the program. Creating these errors does not allocate.
    ///
    /// # Safety
    ///
    /// In the child only, with pointers to strings that are alive.
    unsafe fn become_program(&mut self) -> StartError {
        // SAFETY: plain system calls on numbers, strings and arrays.
        unsafe {
            let count = self.descriptors.len() as c_int;
            // None may be among the targets: it would be overwritten before its turn, or stay close-on-exec.
            for source in self.descriptors.iter_mut().filter(|source| **source < count) {
                *source = libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, count);
                if *source < 0 {
                    return StartError::Program(io::Error::last_os_error());
                }
            }
            for (target, source) in (0..).zip(&self.descriptors) {
                if libc::dup2(*source, target) < 0 {
                    return StartError::Program(io::Error::last_os_error());
                }
            }
            // What the daemon opens is close-on-exec anyway; this is for what it inherited. Linux before 5.11 refuses.
            libc::syscall(libc::SYS_close_range, count, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if let Some(files) = &self.limits.files {
                libc::setrlimit(libc::RLIMIT_NOFILE, files);
            }
            if let Some(cores) = &self.limits.cores {
                libc::setrlimit(libc::RLIMIT_CORE, cores);
            }
            libc::setsid();
            // Die with the thread that made this process, which lives as long as the daemon; it may be gone already.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != self.daemon {
                libc::_exit(127);
            }
            if !self.cwd.is_null() && libc::chdir(self.cwd) < 0 {
                return StartError::Directory(io::Error::last_os_error());
            }
            reset_signals();
            StartError::Program(self.exec())
        }
    }

    /// Tries the paths as `execvp` does, without its shell.
    ///
    /// # Safety
    ///
    /// As for [`Child::become_program`].
    unsafe fn exec(&self) -> io::Error {
        let mut denied = false;
        for path in self.paths.iter().take_while(|path| !path.is_null()) {
            // SAFETY: as above.
            unsafe { libc::execve(*path, self.argv.as_ptr(), self.environment.as_ptr()) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EACCES) => denied = true,
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(_) | None => return error,
            }
        }
        io::Error::from_raw_os_error(if denied { libc::EACCES } else { libc::ENOENT })
    }
}

/// Default dispositions and an empty mask: what the daemon ignores, or was started with, is not the program's.
///
/// # Safety
///
/// In the child only, which has a table of its own: it takes every handler away.
unsafe fn reset_signals() {
    // SAFETY: setting KILL and STOP fails without harm; an all-zero set is a valid value.
    unsafe {
        for signal in SIGNALS {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// What programs may have, where the daemon has set itself another limit.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    files: Option<libc::rlimit>,
    cores: Option<libc::rlimit>,
}

/// Those that the daemon had before [`set_limits`].
static LIMITS: OnceLock<Limits> = OnceLock::new();

/// Lets the daemon have as many descriptors as its hard limit allows; each running program takes about five, and the usual
/// soft limit of 1024 exists only for programs that call `select`. And no core dumps: one would hold passwords and messages.
/// Programs that are started have what the daemon had. Called once, before any program is started.
pub fn set_limits() {
    let files = getrlimit(Resource::Nofile);
    let cores = getrlimit(Resource::Core);
    let limits =
        Limits { files: change(Resource::Nofile, files, files.maximum), cores: change(Resource::Core, cores, Some(0)) };
    // Once, by the only caller.
    let _ = LIMITS.set(limits);
}

/// Gives what it was, where it was another and could be changed.
fn change(resource: Resource, limit: Rlimit, current: Option<u64>) -> Option<libc::rlimit> {
    if limit.current == current || setrlimit(resource, Rlimit { current, ..limit }).is_err() {
        return None;
    }
    let of = |number: Option<u64>| number.unwrap_or(libc::RLIM_INFINITY);
    Some(libc::rlimit { rlim_cur: of(limit.current), rlim_max: of(limit.maximum) })
}

/// Makes sure that the exit status of a child can be had: whoever started the daemon may have made it ignore SIGCHLD,
/// and then the kernel forgets how children ended.
pub fn keep_exit_statuses() {
    // SAFETY: the default disposition runs no code.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}
