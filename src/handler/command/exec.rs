//! The child between fork and exec.
//!
//! `std::process` forks, connects stdin, stdout and stderr, and changes the directory. The rest happens here, because the
//! standard library does not do it or does it otherwise: metadata on descriptor 3, a session of its own, death with the
//! daemon, default signals, and an exec that reports what the kernel says. (`execvp`, which `std` calls, hands what the
//! kernel cannot run to `/bin/sh`: an empty file or a program for another machine would then be an empty shell script,
//! and its exit status 0 would mark every message as done.)
#![expect(
    unsafe_code,
    reason = "after fork only system calls are allowed, and the standard library wraps too few of them"
)]

use std::ffi::{CString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::{Arc, OnceLock};

use libc::c_int;

/// The descriptor that the program reads its metadata from.
const METADATA: c_int = 3;
/// The signals that exist everywhere; those above are real-time signals, which nothing ignores by inheritance.
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
}

/// All that the child needs, made before the fork: after it, nothing may be allocated.
struct Image {
    /// The pointers below point into these, which nobody changes.
    _common: Arc<Common>,
    _variables: Vec<CString>,
    paths: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    metadata: OwnedFd,
    daemon: libc::pid_t,
}

// SAFETY: the pointers lead to heap buffers of strings that the image owns or shares, and nobody writes to them.
unsafe impl Send for Image {}
// SAFETY: as above; all access is reading.
unsafe impl Sync for Image {}

/// Makes the child of `command` become the program, with `variables` added to its environment and the reading end of
/// a pipe as its descriptor 3. The program and the environment that `command` was made with do not matter.
pub fn prepare(
    command: &mut Command,
    common: &Arc<Common>,
    variables: Vec<CString>,
    metadata: OwnedFd,
) -> io::Result<()> {
    hold_metadata_number();
    let metadata = if metadata.as_raw_fd() > METADATA {
        metadata
    } else {
        // Duplicating a descriptor onto itself would leave it close-on-exec.
        rustix::io::fcntl_dupfd_cloexec(&metadata, METADATA + 1)?
    };
    let image = Image {
        paths: pointers(common.paths.iter()),
        argv: pointers(common.argv.iter()),
        environment: pointers(common.environment.iter().chain(&variables)),
        _common: common.clone(),
        _variables: variables,
        metadata,
        daemon: rustix::process::getpid().as_raw_nonzero().get(),
    };
    // SAFETY: `become_program` makes system calls and reads memory that was prepared before the fork. It neither allocates
    // nor takes a lock.
    unsafe {
        command.pre_exec(move || Err(image.become_program()));
    }
    Ok(())
}

/// A C array of strings with its closing null.
fn pointers<'a>(strings: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    strings.map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

impl Image {
    /// Runs in the child. Returns only what kept it from becoming the program; `std` carries that to the parent.
    fn become_program(&self) -> io::Error {
        // SAFETY: plain system calls on numbers, and on zero-terminated strings and null-terminated arrays that `self`
        // keeps alive; all of them are async-signal-safe.
        unsafe {
            if libc::dup2(self.metadata.as_raw_fd(), METADATA) < 0 || libc::setsid() < 0 {
                return io::Error::last_os_error();
            }
            // What the daemon opens is close-on-exec anyway; this is for what it inherited. Linux before 5.11 refuses.
            libc::syscall(libc::SYS_close_range, METADATA + 1, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
            // Die with the worker thread that forked, which lives as long as the daemon; it may be gone already.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != self.daemon {
                libc::_exit(1);
            }
            reset_signals();
            self.exec()
        }
    }

    /// Tries the paths as `execvp` does, without its shell.
    ///
    /// # Safety
    ///
    /// The pointers of `self` must be alive.
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
/// For the child alone: it takes every handler away.
unsafe fn reset_signals() {
    // SAFETY: both calls are async-signal-safe; setting KILL and STOP fails without harm. An all-zero set is valid.
    unsafe {
        for signal in SIGNALS {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Makes sure that the exit status of a child can be had: whoever started the daemon may have made it ignore SIGCHLD,
/// and then the kernel forgets how children ended.
pub fn keep_exit_statuses() {
    // SAFETY: the default disposition runs no code.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Keeps descriptor 3 taken in the daemon, so that it is never the one through which `std` learns of a failed exec: the
/// child puts the metadata in its place. Where something inherited has the number, that does as well.
pub fn hold_metadata_number() {
    static HELD: OnceLock<File> = OnceLock::new();
    if HELD.get().is_none()
        && let Ok(file) = File::open("/dev/null")
        && file.as_raw_fd() == METADATA
    {
        let _ = HELD.set(file);
    }
}
