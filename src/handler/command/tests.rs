//! Real programs, mostly `/bin/sh`, run as the daemon runs them.

mod daemon;
mod ends;
mod learns;
mod start;
mod streams;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::task::{HeaderValue, Message, MessageKey, UnixMillis};

/// Above anything that happens here on a loaded machine; below `sleep 1000`.
pub const LONG: Duration = Duration::from_secs(60);

pub fn context() -> Context {
    Context {
        job: "thumbnails".into(),
        queues: vec!["thumbnails.urgent".into()],
        max_attempts: 5,
        max_body: 1 << 20,
        reply: false,
    }
}

pub fn input(task: &Task) -> Input<'_> {
    Input { task, body: (&*task.message.body).into() }
}

pub fn task(body: &[u8]) -> Task {
    Task {
        key: None,
        attempt: 1,
        base: 0,
        crashes: 0,
        queue: 0,
        priority: 0,
        first_seen: UnixMillis(0),
        received: Instant::now(),
        deadline: None,
        unfit: None,
        message: Message { body: body.to_vec(), ..Message::default() },
    }
}

/// Much more than a pipe holds.
fn large_body() -> Vec<u8> {
    (0..16 * 1024 * 1024_u32).map(|n| (n ^ (n >> 8)) as u8).collect()
}

/// A configuration under construction, and a folder for what the program leaves.
struct Setup {
    config: config::Command,
    folder: tempfile::TempDir,
}

impl Setup {
    fn argv<const N: usize>(argv: [&str; N]) -> Self {
        let config = config::Command {
            argv: argv.map(str::to_owned).into(),
            timeout: LONG,
            kill_grace: LONG,
            env: BTreeMap::new(),
            cwd: None,
        };
        Self { config, folder: tempfile::tempdir().unwrap() }
    }

    /// A shell script that finds its folder in `$1`.
    fn script(script: &str) -> Self {
        let mut setup = Self::argv(["/bin/sh", "-c", script, "script"]);
        let folder = setup.folder.path().to_str().unwrap().to_owned();
        setup.config.argv.push(folder);
        setup
    }

    fn limits(mut self, timeout_ms: u64, kill_grace_ms: u64) -> Self {
        self.config.timeout = Duration::from_millis(timeout_ms);
        self.config.kill_grace = Duration::from_millis(kill_grace_ms);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn pids(&self, name: &str) -> Vec<u32> {
        self.read(name).lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Runs it as with logging on, so that stdout is a pipe; whatever the log does, nothing else depends on it.
    fn run(&self, task: &Task) -> Outcome {
        self.run_until(task, &Stop::new().unwrap())
    }

    fn run_until(&self, task: &Task, stop: &Stop) -> Outcome {
        let handler = CommandHandler::new(&self.config, Arc::new(context()));
        let label = Some(handler.label(task));
        handler.run_labelled(&input(task), stop, label).outcome
    }

    /// Runs it as with logging off.
    fn run_unlogged(&self, task: &Task) -> Outcome {
        CommandHandler::new(&self.config, Arc::new(context()))
            .run_labelled(&input(task), &Stop::new().unwrap(), None)
            .outcome
    }
}

/// Has what programs print logged as it is, in a process of its own.
pub fn log_to_stderr() {
    struct Plain;
    impl log::Log for Plain {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == "warrend::handler"
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                eprintln!("{}", record.args());
            }
        }

        fn flush(&self) {}
    }
    log::set_logger(&Plain).expect("this process has no other");
    log::set_max_level(log::LevelFilter::Debug);
}

/// Whether the process runs; a zombie does not.
pub fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(')').unwrap().1.trim_start();
        !state.starts_with(['Z', 'X'])
    })
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "waited too long: {what}");
        std::thread::yield_now();
    }
}

fn retry(class: ErrorClass, error: &str) -> Outcome {
    Outcome::Retry(Failure { class, error: error.to_owned() })
}

fn broken(outcome: Outcome) -> String {
    match outcome {
        Outcome::Broken(error) => error,
        other
        @ (Outcome::Done | Outcome::Retry(_) | Outcome::Dead(_) | Outcome::Interrupted(_) | Outcome::NotBegun) => {
            panic!("not broken: {other:?}")
        }
    }
}

#[test]
fn the_exit_status_is_the_outcome() {
    let rejected = Outcome::Dead(Failure { class: ErrorClass::Rejected, error: "exit status 65: bad".into() });
    let cases = [
        ("exit 0", Outcome::Done),
        ("echo fine >&2; exit 0", Outcome::Done),
        ("echo bad >&2; exit 65", rejected),
        ("exit 75", retry(ErrorClass::Failed, "exit status 75")),
        ("echo one >&2; echo two >&2; exit 3", retry(ErrorClass::Failed, "exit status 3: one\ntwo")),
        ("exit 255", retry(ErrorClass::Failed, "exit status 255")),
        (
            "echo no licence >&2; exit 78",
            Outcome::Broken("`/bin/sh` says that it cannot work (exit status 78): no licence".into()),
        ),
    ];
    for (script, expected) in cases {
        assert_eq!(Setup::script(script).run(&task(b"")), expected, "{script}");
        assert_eq!(Setup::script(script).run_unlogged(&task(b"")), expected, "{script}, not logged");
    }
}

#[test]
fn a_deadly_signal_is_a_crash_with_its_name() {
    let segv = Setup::script("ulimit -c 0; echo oops >&2; kill -SEGV $$").run(&task(b""));
    assert_eq!(segv, retry(ErrorClass::Crashed, "killed by SIGSEGV (signal 11): oops"));
    let term = Setup::script("kill -TERM $$").run(&task(b""));
    assert_eq!(term, retry(ErrorClass::Crashed, "killed by SIGTERM (signal 15)"));
    let Outcome::Retry(Failure { class: ErrorClass::Crashed, error }) = Setup::script("kill -KILL $$").run(&task(b""))
    else {
        panic!("not a crash")
    };
    assert!(error.starts_with("killed by SIGKILL (signal 9), not by warrend"), "{error}");
    let real_time = Setup::script("kill -40 $$").run(&task(b""));
    assert_eq!(real_time, retry(ErrorClass::Crashed, "killed by a signal (signal 40)"));
}

#[test]
fn the_error_text_is_the_end_of_stderr() {
    let outcome =
        Setup::script("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done >&2; exit 1").run(&task(b""));
    let Outcome::Retry(Failure { class: ErrorClass::Failed, error }) = outcome else { panic!("{outcome:?}") };
    assert!(error.starts_with("exit status 1: …") && error.ends_with("line 1998\nline 1999"), "{error}");
    assert!((1000..1100).contains(&error.len()), "{}", error.len());
}
