//! Starting a program: where it is, what it is given, and what is wrong with it when it does not start.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};

use super::exec::{self, Common, StartError};
use super::group::Group;
use crate::config;

/// What a program inherits from the daemon, where the daemon has it. Nothing else: the daemon's environment may hold secrets.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// Where a program is looked for when there is no PATH, as `execvp` has it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Names that only the message may set.
const RESERVED: &str = "WARREND_";

/// A configured program, prepared once for all its runs.
#[derive(Debug)]
pub struct Program {
    /// As it was configured: a path, or a name to look for in PATH.
    pub name: String,
    /// The configuration's key that names it.
    key: &'static str,
    common: Common,
    cwd: Option<PathBuf>,
    /// `env` holds a `TRACEPARENT`, which wins over the message's.
    fixed_trace: bool,
}

impl Program {
    /// Fails with a sentence where the configuration holds what no program can be given. `key` is the one that names the
    /// program: `command` or `worker`.
    pub fn new(config: &config::Command, key: &'static str) -> Result<Self, String> {
        exec::keep_exit_statuses();
        let argv: Result<Vec<_>, _> = config.argv.iter().map(|argument| CString::new(argument.as_bytes())).collect();
        let argv = argv.map_err(|_| format!("`{key}` holds a NUL byte, which no argument can; remove it"))?;
        let name = config.argv.first().cloned().ok_or_else(|| format!("`{key}` is empty; name the program"))?;
        let path = config.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
        let common = Common {
            paths: paths(&name, path.unwrap_or_else(|| DEFAULT_PATH.into())),
            argv,
            environment: environment(config)?,
            cwd: config.cwd.as_deref().map(directory).transpose()?,
        };
        let fixed_trace = config.env.contains_key("TRACEPARENT");
        Ok(Self { name, key, common, cwd: config.cwd.clone(), fixed_trace })
    }

    /// Starts it with these descriptors as 0 and up. On an error nothing of it runs; [`Program::explain`] says what is
    /// wrong.
    pub fn start<const N: usize>(
        &self,
        mut variables: Vec<CString>,
        its: [BorrowedFd<'_>; N],
    ) -> Result<Group, StartError> {
        if self.fixed_trace {
            variables.retain(|variable| !variable.as_bytes().starts_with(b"TRACEPARENT="));
        }
        let (id, pidfd) = exec::start(&self.common, &variables, its)?;
        Ok(Group::of(id, pidfd))
    }

    /// Why it did not start, and what to do, in one sentence.
    ///
    /// All of these are the handler's fault or the machine's, never the message's: what a message adds to the
    /// environment is bounded below what every kernel takes, so that even "argument list too long" is about `env`.
    pub fn explain(&self, error: &StartError) -> String {
        let (name, key) = (&self.name, self.key);
        let error = match error {
            StartError::Directory(error) => {
                let cwd = self.cwd.as_deref().unwrap_or(Path::new(".")).display();
                let error = lower(error);
                return format!("cannot start `{name}` in `{cwd}`: {error}; make the folder, or mend `cwd`");
            }
            StartError::Program(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ENOENT) => match self.found() {
                Some(path) => format!(
                    "cannot start `{path}`: it exists, but what should run it does not; check its `#!` line, or its loader"
                ),
                None if name.contains('/') => {
                    format!("cannot start `{name}`: no such file; install it, or mend `{key}`")
                }
                None => {
                    format!("cannot start `{name}`: it is in no folder of PATH; install it, or give its whole path")
                }
            },
            Some(libc::EACCES) => format!(
                "cannot start `{name}`: permission denied; make it executable for the user of warrend (chmod +x, its folders, \
                 no `noexec` mount)"
            ),
            Some(libc::ENOEXEC) => format!(
                "cannot start `{name}`: not a program for this machine; it is empty, built for another architecture, or a \
                 script without a `#!` line"
            ),
            Some(libc::E2BIG) => {
                format!("cannot start `{name}`: its arguments and `env` are too long; shorten them")
            }
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => format!(
                "cannot start `{name}`: {}; the machine or warrend's limits (tasks, memory, open files) are used up",
                lower(error)
            ),
            Some(_) | None => {
                format!("cannot start `{name}`: {}; start it by hand as the user of warrend", lower(error))
            }
        }
    }

    /// The first of the paths that is there.
    fn found(&self) -> Option<String> {
        let base = self.cwd.as_deref().unwrap_or(Path::new(""));
        let path = |path: &CString| base.join(OsStr::from_bytes(path.as_bytes()));
        self.common.paths.iter().map(path).find(|path| path.exists()).map(|path| path.display().to_string())
    }
}

/// A pipe into the program: its end, and ours, which does not block.
pub fn pipe_in() -> io::Result<(OwnedFd, OwnedFd)> {
    let (its, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((its, ours))
}

/// A pipe out of the program: our end, which does not block, and its.
pub fn pipe_out() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, its) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, its))
}

fn directory(cwd: &Path) -> Result<CString, String> {
    CString::new(cwd.as_os_str().as_bytes())
        .map_err(|_| "`cwd` holds a NUL byte, which no path can; remove it".to_owned())
}

/// The system's words for an error, as the middle of our sentence.
fn lower(error: &io::Error) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Where to look for the program: a name with a slash is a path, any other is looked for in PATH. An empty folder in
/// PATH is the working directory, as for `execvp`.
fn paths(name: &str, path: OsString) -> Vec<CString> {
    let in_folder = |folder: &[u8]| match folder {
        b"" => name.as_bytes().to_vec(),
        _ => [folder, b"/", name.as_bytes()].concat(),
    };
    let paths: Vec<Vec<u8>> = if name.contains('/') {
        vec![name.into()]
    } else {
        path.into_vec().split(|byte| *byte == b':').map(in_folder).collect()
    };
    paths.into_iter().filter_map(|path| CString::new(path).ok()).collect()
}

/// What all runs have in their environment: a little of the daemon's, then `env`, which wins.
fn environment(config: &config::Command) -> Result<Vec<CString>, String> {
    let own = config.env.iter().filter(|(name, _)| !name.starts_with(RESERVED));
    let inherited = INHERITED.iter().filter(|name| !config.env.contains_key(**name));
    let inherited = inherited.filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?)));
    let mut environment = Vec::new();
    for (name, value) in inherited.chain(own.map(|(name, value)| (name.clone(), value.into()))) {
        if name.is_empty() || name.contains('=') {
            return Err(format!("`env` holds the name {name:?}, which no variable can have; rename it"));
        }
        let variable = CString::new([name.as_bytes(), b"=", value.as_bytes()].concat());
        environment.push(
            variable.map_err(|_| format!("`env` holds a NUL byte at {name:?}, which no variable can; remove it"))?,
        );
    }
    Ok(environment)
}
