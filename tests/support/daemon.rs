//! The real `warrend` binary, with its own folder, configuration, store and log.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use super::broker::Vhost;
use super::holds_within;
use super::proxy::Proxy;
use super::tap::Tap;

/// Lines of the log that a failure shows.
const LOG_TAIL: usize = 40;

/// How long the daemon may take for what needs no handler: starting, stopping, answering.
pub const DAEMON_TIMEOUT: Duration = Duration::from_secs(20);

/// A daemon of one test. It can be ended and started again on the same folder; dropped, it is killed.
pub struct Daemon {
    folder: TempDir,
    /// What stands below `[broker]`, and all tables but `broker`, `store` and `control`.
    configuration: (String, String),
    store: PathBuf,
    environment: Vec<(String, String)>,
    /// Arguments of `ulimit` for every later start.
    limits: Option<&'static str>,
    program: PathBuf,
    child: Option<Child>,
    wire: Option<Proxy>,
}

impl Daemon {
    /// A daemon for that vhost, with these `[jobs...]` tables (and any other but `broker`, `store` and `control`). It
    /// reconnects quickly, so that tests of outages do.
    pub fn new(vhost: &Vhost, rest: &str) -> Self {
        let reconnect = "reconnect = { initial = \"50ms\", max = \"500ms\" }";
        Self::with_broker(&format!("urls = [\"{}\"]\n{reconnect}", vhost.url()), rest)
    }

    /// The same with the whole content of `[broker]`.
    pub fn with_broker(broker: &str, rest: &str) -> Self {
        let folder = TempDir::with_prefix("warrend-test-").expect("a temporary folder can be made");
        let store = folder.path().join("warrend.db");
        let configuration = (broker.to_owned(), rest.to_owned());
        let daemon = Self {
            folder,
            configuration,
            store,
            environment: Vec::new(),
            limits: None,
            program: env!("CARGO_BIN_EXE_warrend").into(),
            child: None,
            wire: None,
        };
        daemon.write();
        daemon
    }

    /// Replaces everything but `[broker]`, `[store]` and `[control]`; the next start reads it. For handlers that live in
    /// this daemon's folder.
    pub fn set_jobs(&mut self, rest: &str) {
        rest.clone_into(&mut self.configuration.1);
        self.write();
    }

    /// What [`Daemon::set_jobs`] was given last.
    pub fn jobs(&self) -> String {
        self.configuration.1.clone()
    }

    /// What [`Daemon::set_broker`] was given last.
    pub fn broker(&self) -> String {
        self.configuration.0.clone()
    }

    /// Replaces the content of `[broker]`; the next start reads it.
    pub fn set_broker(&mut self, broker: &str) {
        broker.clone_into(&mut self.configuration.0);
        self.write();
    }

    /// From the next start on, everything goes by way of a proxy with a tap: see [`Tap`]. Each job stands with its queue;
    /// its keys are message ids. What the tap finds wrong fails the test when the daemon is dropped, if not before.
    pub fn tapped(&mut self, vhost: &Vhost, jobs: &[(&str, &str)]) {
        let tap = jobs.iter().fold(Tap::new(&self.store), |tap, (job, queue)| tap.job(job, queue));
        let wire = Proxy::tapped(&vhost.broker().address(), tap);
        let broker = self.configuration.0.replace(&vhost.url(), &wire.url(&vhost.url()));
        self.set_broker(&broker);
        self.wire = Some(wire);
    }

    /// The proxy, where it goes by way of one.
    pub fn wire(&self) -> &Proxy {
        self.wire.as_ref().expect("this daemon was tapped")
    }

    /// Puts the store elsewhere: the temporary folder may be in memory, where a commit costs nothing.
    pub fn store_at(&mut self, path: PathBuf) {
        self.store = path;
        self.write();
    }

    fn write(&self) {
        let (broker, rest) = &self.configuration;
        let socket = self.socket_path();
        let text = format!(
            "[broker]\n{broker}\n\n[store]\npath = {:?}\n\n[control]\nsocket = {socket:?}\n\n{rest}\n",
            self.store
        );
        fs::write(self.config_path(), text).expect("the configuration can be written");
    }

    /// Sets a variable in the environment of every later start.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env_remove(name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Takes it out again.
    pub fn env_remove(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// Calls `ulimit` with these arguments before every later start: `-n 64`.
    pub fn set_limits(&mut self, limits: &'static str) {
        self.limits = Some(limits);
    }

    /// Changes how many descriptors the running daemon may have, and returns how many it might have before.
    pub fn limit_files(&self, most: u64) -> u64 {
        let id = Pid::from_child(self.child.as_ref().expect("the daemon of this test is started"));
        // The test's own greatest limit is the daemon's, which inherited it.
        let limit = Rlimit { current: Some(most), maximum: getrlimit(Resource::Nofile).maximum };
        let before = prlimit(Some(id), Resource::Nofile, limit).expect("a child's limits can be changed");
        before.current.unwrap_or(u64::MAX)
    }

    /// Its folder: a place for a handler and its journal too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder with store, log and journal where it is, for somebody to look at.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("warrend.toml")
    }

    /// Another build of warrend for every later start, instead of the one that was just made.
    pub fn set_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// The store's file.
    pub fn store_path(&self) -> &Path {
        &self.store
    }

    /// Its control socket.
    pub fn socket_path(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// `warrend -c FILE` in an environment of its own: a developer's WARREND_CONFIG or RUST_LOG must not change a test.
    fn command(&self) -> Command {
        let binary = &self.program;
        let mut command = match self.limits {
            None => Command::new(binary),
            Some(limits) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(format!("ulimit {limits} && exec {binary:?} \"$@\"")).arg("sh");
                shell
            }
        };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("-c").arg(self.config_path()).stdin(Stdio::null());
        command
    }

    /// The command line itself, for what is to run on a terminal.
    pub fn command_line(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.args(arguments);
        command
    }

    /// Runs a command that does not end by itself until its output is enough, and gives that.
    pub fn run_for(&self, arguments: &[&str], mut is_enough: impl FnMut(&str) -> bool) -> String {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the built binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut text = String::new();
        // One line after the other; a command that says nothing more hangs the test, which its runner then tells.
        while !is_enough(&text) {
            assert!(stdout.read_line(&mut text).is_ok_and(|read| read > 0), "it ended too early: {text}");
        }
        // One that ended by itself is as dead.
        let _ = child.kill();
        child.wait().expect("a killed child can be waited for");
        text
    }

    /// Runs a one-shot command such as `["check"]` to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("the built binary runs")
    }

    /// Starts a one-shot command and returns at once; its output is not kept. The caller waits for it.
    pub fn start_command(&self, arguments: &[&str]) -> Child {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the built binary runs")
    }

    /// [`Self::run`] with that text on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the built binary runs");
        let mut stdin = child.stdin.take().expect("it was asked for");
        // Fails where the command does not read its input; its output says why.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().expect("a child can be waited for")
    }

    /// Starts `warrend run` and returns at once.
    pub fn spawn(&mut self, arguments: &[&str]) {
        assert!(self.child.is_none(), "the daemon of this test runs already");
        let log = || -> File {
            OpenOptions::new().create(true).append(true).open(self.log_path()).expect("the log can be opened")
        };
        let child = self.command().arg("run").args(arguments).stdout(log()).stderr(log()).spawn();
        self.child = Some(child.expect("the built binary runs"));
    }

    /// Starts `warrend run`, and returns once it is connected and every job runs.
    pub fn start(&mut self) {
        self.spawn(&[]);
        self.wait_until("the daemon runs and is connected", DAEMON_TIMEOUT, |daemon| {
            assert!(daemon.is_alive(), "the daemon ended while it started\n{}", daemon.log_tail());
            daemon.status().is_some_and(|status| {
                let jobs = status["jobs"].as_object();
                status["broker"]["connected"] == true
                    && jobs.is_some_and(|jobs| jobs.values().all(|job| job["state"] == "running"))
            })
        });
    }

    /// What `warrend status --json` would say; `None` while there is no answer. It asks the control socket itself: tests
    /// look many times a second, and a process for each look would take a core.
    pub fn status(&self) -> Option<Value> {
        self.ask("{\"command\":\"status\"}")
    }

    /// What the control socket answers; `None` while it does not.
    pub fn ask(&self, request: &str) -> Option<Value> {
        let mut socket = UnixStream::connect(self.socket_path()).ok()?;
        socket.set_read_timeout(Some(DAEMON_TIMEOUT)).ok()?;
        socket.write_all(format!("{request}\n").as_bytes()).ok()?;
        serde_json::from_reader(socket).ok()
    }

    /// One number of a job's status, such as `done`; 0 while there is no answer.
    pub fn counter(&self, job: &str, name: &str) -> u64 {
        self.status().and_then(|status| status["jobs"][job][name].as_u64()).unwrap_or_default()
    }

    /// Waits for a condition on the daemon. A failure shows the end of its log.
    pub fn wait_until(&mut self, what: &str, timeout: Duration, mut condition: impl FnMut(&mut Self) -> bool) {
        let held = holds_within(timeout, || condition(self));
        assert!(held, "not within {timeout:?}: {what}\n{}", self.log_tail());
    }

    /// Whether the process lives.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Whether any process names its folder in its command line: the daemon itself, and handlers that live there.
    pub fn has_processes(&self) -> bool {
        let folder = self.folder.path().as_os_str().as_encoded_bytes();
        let entries = fs::read_dir("/proc").expect("Linux has /proc");
        // One that ended meanwhile has none.
        let command_line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
        entries.flatten().filter_map(command_line).any(|line| line.windows(folder.len()).any(|part| part == folder))
    }

    /// The processes that it started and that live.
    pub fn children(&self) -> Vec<Pid> {
        let Some(own) = self.pid() else { return Vec::new() };
        let entries = fs::read_dir("/proc").expect("Linux has /proc").flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_child = |id: &i32| {
            // The name, in parentheses, may hold anything; what follows it is regular: state, parent.
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let mut fields = stat.rsplit_once(") ")?.1.split(' ');
            let (state, parent) = (fields.next()?, fields.next()?.parse::<u32>().ok()?);
            (parent == own && state != "Z").then_some(())
        };
        ids.filter(|id| is_child(id).is_some()).filter_map(Pid::from_raw).collect()
    }

    /// CPU time that it used so far, without its children's.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.pid().and_then(|id| fs::read_to_string(format!("/proc/{id}/stat")).ok()).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        // The kernel counts it in 1/100 s towards programs.
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Its process id, while it is started.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends a signal. One that is stopped sends no heartbeats, which is none of its faults.
    pub fn signal(&self, signal: Signal) {
        if let Some(wire) = &self.wire
            && (signal == Signal::STOP || signal == Signal::CONT)
        {
            wire.tap(move |tap| tap.excuse_silence(signal == Signal::STOP));
        }
        let child = self.child.as_ref().expect("the daemon of this test is started");
        kill_process(Pid::from_child(child), signal).expect("a child that was not waited for can be signalled");
    }

    /// SIGTERM, and the exit that follows.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit(Duration::from_secs(40))
    }

    /// SIGKILL: what a crash leaves is what the next start finds. Fails where it had ended by itself, which would pass for the
    /// crash that was asked for.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        let status = self.reap().expect("it was started");
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}\n{}", self.log_tail());
    }

    /// Waits for the end of what was killed, or ended.
    fn reap(&mut self) -> Option<ExitStatus> {
        self.child.take().map(|mut child| child.wait().expect("a killed child can be waited for"))
    }

    /// Waits for its own end.
    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        let mut status = None;
        self.wait_until("the daemon ends", timeout, |daemon| {
            let child = daemon.child.as_mut().expect("the daemon of this test is started");
            status = child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        self.child = None;
        status.expect("the wait above ended with one")
    }

    /// Everything it wrote so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The end of its log, for failure texts.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- the end of the daemon's log\n{}", lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n"))
    }
}

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "whoever reads of the failure must find the folder")]
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // One that ended by itself is as dead.
            let _ = child.kill();
        }
        self.reap();
        if std::thread::panicking() {
            eprintln!("the folder of the daemon is kept: {}", self.keep().display());
        }
    }
}
