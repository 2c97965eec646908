//! Real programs, mostly `/bin/sh`, run as the daemon runs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::task::{HeaderValue, Message, MessageKey, UnixMillis};

/// Above anything that happens here on a loaded machine; below `sleep 1000`.
const LONG: Duration = Duration::from_secs(60);

pub fn context() -> Context {
    Context {
        job: "thumbnails".into(),
        queues: vec!["thumbnails.urgent".into()],
        max_attempts: 5,
    }
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
        message: Message {
            body: body.to_vec(),
            ..Message::default()
        },
    }
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
        Self {
            config,
            folder: tempfile::tempdir().unwrap(),
        }
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
        self.read(name)
            .lines()
            .map(|line| line.parse().unwrap())
            .collect()
    }

    /// Runs it as with logging on, so that stdout is a pipe; whatever the log does, nothing else depends on it.
    fn run(&self, task: &Task) -> Outcome {
        self.run_until(task, &Stop::new().unwrap())
    }

    fn run_until(&self, task: &Task, stop: &Stop) -> Outcome {
        let handler = CommandHandler::new(&self.config, Arc::new(context()));
        let label = Some(handler.label(task));
        handler.run_labelled(task, stop, label)
    }

    /// Runs it as with logging off.
    fn run_unlogged(&self, task: &Task) -> Outcome {
        CommandHandler::new(&self.config, Arc::new(context())).run_labelled(
            task,
            &Stop::new().unwrap(),
            None,
        )
    }
}

/// Whether the process runs; a zombie does not.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(')').unwrap().1.trim_start();
        !state.starts_with(['Z', 'X'])
    })
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "waited too long: {what}");
        std::thread::yield_now();
    }
}

fn retry(class: ErrorClass, error: &str) -> Outcome {
    Outcome::Retry(Failure {
        class,
        error: error.to_owned(),
    })
}

fn broken(outcome: Outcome) -> String {
    match outcome {
        Outcome::Broken(error) => error,
        other => panic!("not broken: {other:?}"),
    }
}

// ---- exit statuses ------------------------------------------------------------------------------------------------

#[test]
fn the_exit_status_is_the_outcome() {
    let rejected = Outcome::Dead(Failure {
        class: ErrorClass::Rejected,
        error: "exit status 65: bad".into(),
    });
    let cases = [
        ("exit 0", Outcome::Done),
        ("echo fine >&2; exit 0", Outcome::Done),
        ("echo bad >&2; exit 65", rejected),
        ("exit 75", retry(ErrorClass::Failed, "exit status 75")),
        (
            "echo one >&2; echo two >&2; exit 3",
            retry(ErrorClass::Failed, "exit status 3: one\ntwo"),
        ),
        ("exit 255", retry(ErrorClass::Failed, "exit status 255")),
        (
            "echo no licence >&2; exit 78",
            Outcome::Broken(
                "`/bin/sh` says that it cannot work (exit status 78): no licence".into(),
            ),
        ),
    ];
    for (script, expected) in cases {
        assert_eq!(Setup::script(script).run(&task(b"")), expected, "{script}");
        assert_eq!(
            Setup::script(script).run_unlogged(&task(b"")),
            expected,
            "{script}, not logged"
        );
    }
}

#[test]
fn a_deadly_signal_is_a_crash_with_its_name() {
    let segv = Setup::script("ulimit -c 0; echo oops >&2; kill -SEGV $$").run(&task(b""));
    assert_eq!(
        segv,
        retry(ErrorClass::Crashed, "killed by SIGSEGV (signal 11): oops")
    );
    let term = Setup::script("kill -TERM $$").run(&task(b""));
    assert_eq!(
        term,
        retry(ErrorClass::Crashed, "killed by SIGTERM (signal 15)")
    );
    let Outcome::Retry(Failure {
        class: ErrorClass::Crashed,
        error,
    }) = Setup::script("kill -KILL $$").run(&task(b""))
    else {
        panic!("not a crash")
    };
    assert!(
        error.starts_with("killed by SIGKILL (signal 9), not by warrend"),
        "{error}"
    );
    let real_time = Setup::script("kill -40 $$").run(&task(b""));
    assert_eq!(
        real_time,
        retry(ErrorClass::Crashed, "killed by a signal (signal 40)")
    );
}

#[test]
fn a_core_dump_is_noted() {
    // 0x80 of a wait status is the core's bit.
    assert_eq!(
        killed_by(ExitStatus::from_raw(11 | 0x80)),
        "killed by SIGSEGV (signal 11), core dumped"
    );
}

#[test]
fn the_error_text_is_the_end_of_stderr() {
    let outcome =
        Setup::script("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done >&2; exit 1")
            .run(&task(b""));
    let Outcome::Retry(Failure {
        class: ErrorClass::Failed,
        error,
    }) = outcome
    else {
        panic!("{outcome:?}")
    };
    assert!(
        error.starts_with("exit status 1: …") && error.ends_with("line 1998\nline 1999"),
        "{error}"
    );
    assert!((1000..1100).contains(&error.len()), "{}", error.len());
}

// ---- programs that do not start -----------------------------------------------------------------------------------

/// Writes a file from another process: a file that this process has open for writing could still be so in a child that
/// another test is forking, and then the kernel refuses to execute it.
fn install(path: &Path, content: &str, mode: &str) {
    let script = r#"printf %s "$1" > "$2" && chmod "$3" "$2""#;
    let arguments = [script, "sh", content, path.to_str().unwrap(), mode];
    assert!(
        Command::new("/bin/sh")
            .arg("-c")
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_program_that_does_not_start_is_broken_and_says_why() {
    let setup = Setup::script("");
    let cases = [
        ("missing", None, "no such file"),
        (
            "not-executable",
            Some(("#!/bin/sh\n", "644")),
            "permission denied",
        ),
        (
            "no-interpreter",
            Some(("#!/no/such/thing\n", "755")),
            "it exists, but what should run it does not",
        ),
        ("empty", Some(("", "755")), "not a program for this machine"),
        (
            "no-first-line",
            Some(("exit 0\n", "755")),
            "not a program for this machine",
        ),
        (
            "foreign",
            Some(("\u{7f}ELF\u{2}\u{1}\u{1}", "755")),
            "not a program for this machine",
        ),
        (".", None, "permission denied"),
        ("missing/below", None, "no such file"),
        ("empty/below", None, "no such file"),
    ];
    for (name, file, expected) in cases {
        let path = setup.path(name);
        if let Some((content, mode)) = file {
            install(&path, content, mode);
        }
        let path = path.to_str().unwrap();
        let error = broken(Setup::argv([path]).run(&task(b"")));
        assert!(
            error.starts_with(&format!("cannot start `{path}`: ")) && error.contains(expected),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_name_is_looked_for_in_path() {
    assert_eq!(Setup::argv(["true"]).run(&task(b"")), Outcome::Done);
    let mut setup = Setup::argv(["warrend-no-such-program"]);
    let error = broken(setup.run(&task(b"")));
    assert_eq!(
        error,
        "cannot start `warrend-no-such-program`: it is in no folder of PATH; install it, or give its whole path"
    );
    install(
        &setup.path("warrend-no-such-program"),
        "#!/bin/sh\nexit 75",
        "755",
    );
    // The PATH of `env` counts; a folder that is missing or no folder is passed over.
    let path = format!(
        "/no/such/folder:/etc/passwd:{}:/bin",
        setup.folder.path().display()
    );
    setup.config.env.insert("PATH".into(), path);
    assert_eq!(
        setup.run(&task(b"")),
        retry(ErrorClass::Failed, "exit status 75")
    );
    // A relative path counts from `cwd`.
    let mut setup = Setup {
        config: Setup::argv(["./warrend-no-such-program"]).config,
        ..setup
    };
    setup.config.cwd = Some(setup.folder.path().to_owned());
    assert_eq!(
        setup.run(&task(b"")),
        retry(ErrorClass::Failed, "exit status 75")
    );
}

#[test]
fn a_working_directory_is_entered_or_named() {
    let mut setup = Setup::script(r#"pwd > "$1/pwd""#);
    setup.config.cwd = Some("/usr".into());
    assert_eq!(setup.run(&task(b"")), Outcome::Done);
    assert_eq!(setup.read("pwd"), "/usr\n");
    for cwd in ["/no/such/folder", "/etc/passwd"] {
        setup.config.cwd = Some(cwd.into());
        let error = broken(setup.run(&task(b"")));
        assert!(
            error.starts_with(&format!(
                "cannot start `/bin/sh` in `{cwd}`: no such folder"
            )),
            "{error}"
        );
    }
}

#[test]
fn what_no_program_can_be_given_is_broken() {
    let error = broken(Setup::argv(["/bin/true", "a\0b"]).run(&task(b"")));
    assert!(error.contains("NUL"), "{error}");
    for (name, value, expected) in [
        ("A=B", "c", "the name \"A=B\""),
        ("", "c", "the name \"\""),
        ("A", "b\0c", "a NUL byte at \"A\""),
    ] {
        let mut setup = Setup::argv(["/bin/true"]);
        setup.config.env.insert(name.into(), value.into());
        let error = broken(setup.run(&task(b"")));
        assert!(error.contains(expected), "{error}");
    }
    let mut setup = Setup::argv(["/bin/true"]);
    setup.config.env.insert("LARGE".into(), "x".repeat(200_000));
    let error = broken(setup.run(&task(b"")));
    assert!(error.contains("too long"), "{error}");
}

// ---- the pipes ----------------------------------------------------------------------------------------------------

fn large_body() -> Vec<u8> {
    (0..16 * 1024 * 1024_u32)
        .map(|n| (n ^ (n >> 8)) as u8)
        .collect()
}

#[test]
fn a_body_arrives_whole() {
    for body in [Vec::new(), b"\0one\nline".to_vec(), large_body()] {
        let setup = Setup::script(r#"cat > "$1/body""#);
        assert_eq!(setup.run(&task(&body)), Outcome::Done);
        assert!(
            fs::read(setup.path("body")).unwrap() == body,
            "{} bytes differ",
            body.len()
        );
    }
}

#[test]
fn a_program_may_leave_its_stdin_alone() {
    let large = task(&large_body());
    assert_eq!(Setup::argv(["/bin/true"]).run(&large), Outcome::Done);
    let closes = Setup::script(r#"exec <&-; sleep 0.1; exit 75"#);
    assert_eq!(
        closes.run(&large),
        retry(ErrorClass::Failed, "exit status 75")
    );
    let reads_a_little =
        Setup::script(r#"head -c 100000 > "$1/head"; exec <&-; echo after > "$1/after""#);
    assert_eq!(reads_a_little.run(&large), Outcome::Done);
    assert_eq!(
        fs::metadata(reads_a_little.path("head")).unwrap().len(),
        100_000
    );
    assert_eq!(reads_a_little.read("after"), "after\n");
}

#[test]
fn output_before_input_does_not_deadlock() {
    let setup = Setup::script(
        r#"head -c 104857600 /dev/zero | tee /dev/stderr; cat > "$1/body"; echo the end >&2; exit 1"#,
    );
    let body = large_body();
    let Outcome::Retry(Failure { error, .. }) = setup.run(&task(&body)) else {
        panic!("not a retry")
    };
    assert!(error.ends_with("the end"), "{error}");
    assert!(fs::read(setup.path("body")).unwrap() == body);
}

#[test]
fn an_echo_on_both_streams_does_not_deadlock() {
    let outcome =
        Setup::script(r#"tee /dev/stderr | sha256sum > "$1/sum""#).run(&task(&large_body()));
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(
        Setup::script("cat").run(&task(&large_body())),
        Outcome::Done
    );
}

#[test]
fn a_program_may_close_its_streams() {
    let setup = Setup::script(r#"exec <&- >&- 2>&- 3<&-; sleep 0.1; exit 75"#);
    assert_eq!(
        setup.run(&task(&large_body())),
        retry(ErrorClass::Failed, "exit status 75")
    );
}

#[test]
fn endless_output_ends_at_the_timeout() {
    for script in ["exec yes", "exec yes >&2"] {
        let outcome = Setup::script(script).limits(200, 10_000).run(&task(b""));
        let Outcome::Retry(Failure {
            class: ErrorClass::Timeout,
            error,
        }) = outcome
        else {
            panic!("{outcome:?}")
        };
        assert!(error.starts_with("no end within 200ms"), "{error}");
    }
}

// ---- what the program learns --------------------------------------------------------------------------------------

/// The environment that a program really gets; a shell would add to it.
fn environment_of(mut setup: Setup, task: &Task) -> Vec<String> {
    let to = format!("of={}", setup.path("environ").display());
    setup.config.argv = ["/bin/dd", "if=/proc/self/environ", &to, "status=none"]
        .map(str::to_owned)
        .into();
    assert_eq!(setup.run(task), Outcome::Done);
    let environment = setup.read("environ");
    let mut variables: Vec<_> = environment
        .trim_end_matches('\0')
        .split('\0')
        .map(str::to_owned)
        .collect();
    variables.sort();
    variables
}

#[test]
fn the_environment_is_exactly_what_it_says() {
    let mut setup = Setup::argv(["/bin/true"]);
    for (name, value) in [
        ("QUALITY", "80"),
        ("LANG", "xx"),
        ("TRACEPARENT", "ours"),
        ("WARREND_JOB", "forged"),
    ] {
        setup.config.env.insert(name.into(), value.into());
    }
    setup
        .config
        .env
        .insert("WARREND_REPLY_TO".into(), "forged".into());
    let mut task = task(b"");
    task.key = Some(MessageKey::from_text("k=1\n2"));
    task.message.properties.message_id = Some("nul\0".into());
    task.message
        .properties
        .headers
        .insert("traceparent".into(), HeaderValue::Text("theirs".into()));
    let mut expected: Vec<String> = ["HOME", "PATH", "TZ"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .chain(
            [
                "LANG=xx",
                "QUALITY=80",
                "TRACEPARENT=ours",
                "WARREND_ATTEMPT=1",
                "WARREND_EXCHANGE=",
                "WARREND_JOB=thumbnails",
                "WARREND_KEY=k=1\n2",
                "WARREND_MAX_ATTEMPTS=5",
                "WARREND_PRIORITY=0",
                "WARREND_QUEUE=thumbnails.urgent",
                "WARREND_REDELIVERED=0",
                "WARREND_ROUTING_KEY=",
            ]
            .map(str::to_owned),
        )
        .collect();
    expected.sort();
    assert_eq!(environment_of(setup, &task), expected);
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some(),
        "this process has more in its environment than that"
    );

    let found = environment_of(Setup::argv(["/bin/true"]), &task);
    assert!(
        found.contains(&"TRACEPARENT=theirs".to_owned()),
        "{found:?}"
    );
}

#[test]
fn descriptor_3_has_everything_whatever_its_size() {
    let mut large = task(b"the body");
    large.key = Some(MessageKey::from_text("k-1"));
    large.attempt = 2;
    let properties = &mut large.message.properties;
    properties.message_id = Some("nul\0".into());
    properties.delivery_mode = Some(2);
    properties.timestamp = Some(7);
    properties.kind = Some("order".into());
    properties
        .headers
        .insert("long".into(), HeaderValue::Text("h".repeat(100_000)));
    let setup = Setup::script(r#"cat > "$1/body"; cat <&3 > "$1/metadata""#);
    assert_eq!(setup.run(&large), Outcome::Done);
    let expected = serde_json::json!({
        "job": "thumbnails", "queue": "thumbnails.urgent", "key": "k-1", "attempt": 2, "max_attempts": 5,
        "redelivered": false, "priority": 0, "exchange": "", "routing_key": "", "message_id": "nul\0",
        "content_type": null, "content_encoding": null, "correlation_id": null, "reply_to": null, "expiration": null,
        "timestamp": 7, "type": "order", "user_id": null, "app_id": null, "delivery_mode": 2,
        "headers": { "long": "h".repeat(100_000) },
    });
    assert_eq!(setup.read("metadata"), format!("{expected}\n"));
    assert_eq!(setup.read("body"), "the body");
    assert_eq!(
        Setup::argv(["/bin/true"]).run(&large),
        Outcome::Done,
        "nobody has to read it"
    );
}

#[test]
fn a_program_has_four_descriptors() {
    let setup = Setup::script(r#"ls /proc/$$/fd | cat > "$1/fds""#);
    // As if the daemon had been started with a descriptor that nobody closed.
    let inherited = rustix::io::dup(fs::File::open("/dev/null").unwrap()).unwrap();
    assert_eq!(setup.run(&task(b"")), Outcome::Done);
    drop(inherited);
    assert_eq!(setup.read("fds"), "0\n1\n2\n3\n");
}

#[test]
fn a_program_leads_its_own_session() {
    let setup = Setup::script(r#"cat /proc/$$/stat > "$1/stat""#);
    assert_eq!(setup.run(&task(b"")), Outcome::Done);
    let stat = setup.read("stat");
    let id = stat.split(' ').next().unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .collect();
    assert_eq!([fields[2], fields[3]], [id, id]);
}

// ---- ends ---------------------------------------------------------------------------------------------------------

#[test]
fn nothing_lives_after_a_timeout() {
    // The program and its child ignore TERM; the child's child is in the same group.
    let script = r#"
        trap "" TERM
        sh -c 'echo $$ >> "$1/pids"; sleep 1000 & echo $! >> "$1/pids"; wait' sh "$1" &
        echo $$ >> "$1/pids"; echo slow >&2; wait"#;
    let rounds = |_| {
        let mut seen = 0;
        for _ in 0..25 {
            let setup = Setup::script(script).limits(100, 10);
            let outcome = setup.run(&task(b""));
            let pids = if setup.path("pids").exists() {
                setup.pids("pids")
            } else {
                Vec::new()
            };
            let alive: Vec<_> = pids.iter().filter(|pid| lives(**pid)).collect();
            assert!(alive.is_empty(), "{alive:?} of {pids:?} live");
            let Outcome::Retry(Failure {
                class: ErrorClass::Timeout,
                error,
            }) = outcome
            else {
                panic!("{outcome:?}")
            };
            assert!(error.starts_with("no end within 100ms"), "{error}");
            seen += pids.len();
        }
        seen
    };
    let seen: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || rounds(n))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert!(
        seen > 150,
        "in most of 100 runs all three were there to be killed, not {seen} in all"
    );
}

#[test]
fn a_timeout_finds_what_left_the_group() {
    let script = r#"
        setsid sh -c 'trap "" TERM; sleep 1000 & echo $! >> "$1/pids"; echo $$ >> "$1/pids"; wait' sh "$1" &
        wait"#;
    let setup = Setup::script(script).limits(1000, 50);
    let Outcome::Retry(Failure {
        class: ErrorClass::Timeout,
        ..
    }) = setup.run(&task(b""))
    else {
        panic!("no timeout")
    };
    let pids = setup.pids("pids");
    assert_eq!(pids.len(), 2);
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn the_grace_is_for_the_whole_group() {
    // The program dies of TERM at once; what it started wants to tidy up.
    let script = r#"
        sh -c 'trap "sleep 0.2; echo tidy > \"$1/tidy\"; exit" TERM; : > "$1/ready"; sleep 1000 & wait' sh "$1" &
        wait"#;
    let setup = Setup::script(script).limits(1000, 30_000);
    let start = Instant::now();
    let outcome = setup.run(&task(b""));
    assert_eq!(outcome, retry(ErrorClass::Timeout, "no end within 1s"));
    assert_eq!(setup.read("tidy"), "tidy\n");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "it did not wait for the rest of the grace"
    );
}

#[test]
fn a_late_success_is_a_timeout() {
    let setup = Setup::script(r#"trap "exit 0" TERM; echo stuck >&2; sleep 1000 & wait"#)
        .limits(500, 10_000);
    assert_eq!(
        setup.run(&task(b"")),
        retry(ErrorClass::Timeout, "no end within 500ms: stuck")
    );
}

#[test]
fn a_stopped_program_ends_too() {
    let setup = Setup::script("kill -STOP $$").limits(200, 50);
    assert_eq!(
        setup.run(&task(b"")),
        retry(ErrorClass::Timeout, "no end within 200ms")
    );
}

#[test]
fn what_a_finished_program_left_in_its_group_is_gone() {
    for status in [0, 75] {
        let script = format!(
            r#"sh -c 'trap "" TERM HUP; echo $$ > "$1/pid"; exec sleep 1000' sh "$1" &
            while [ ! -s "$1/pid" ]; do :; done; echo last words >&2; exit {status}"#
        );
        let setup = Setup::script(&script);
        let start = Instant::now();
        let outcome = setup.run(&task(b""));
        assert!(!lives(setup.pids("pid")[0]));
        assert!(
            start.elapsed() < LONG / 2,
            "it did not wait for the end of the pipes"
        );
        match status {
            0 => assert_eq!(outcome, Outcome::Done),
            _ => assert_eq!(
                outcome,
                retry(ErrorClass::Failed, "exit status 75: last words")
            ),
        }
    }
}

#[test]
fn a_daemon_that_writes_on_does_not_hold_the_run() {
    let script = r#"
        setsid sh -c 'echo $$ > "$1/pid"; exec yes' sh "$1" >&2 &
        while [ ! -s "$1/pid" ]; do :; done"#;
    let setup = Setup::script(script);
    assert_eq!(setup.run(&task(b"")), Outcome::Done);
    // It left on purpose, and its pipe is gone now.
    wait_until("yes ends", || !lives(setup.pids("pid")[0]));
}

#[test]
fn a_stop_ends_a_run() {
    // The first ends at TERM as if all were well, which is no proof that it is; the second has to be killed.
    for trap in ["exit 0", ""] {
        let setup = Setup::script(&format!(
            r#"trap "{trap}" TERM; echo $$ > "$1/pid"; while :; do sleep 0.05; done"#
        ));
        let stop = Stop::new().unwrap();
        let started = setup.path("pid");
        std::thread::scope(|scope| {
            let run = scope.spawn(|| setup.run_until(&task(&large_body()), &stop));
            wait_until("the program starts", || {
                fs::metadata(&started).is_ok_and(|file| file.len() > 0)
            });
            let raised = Instant::now();
            stop.raise();
            assert_eq!(run.join().unwrap(), Outcome::Interrupted);
            assert!(raised.elapsed() < LONG / 2, "the grace of a stop is short");
        });
        assert!(!lives(setup.pids("pid")[0]));
    }
}

#[test]
fn a_stop_shortens_the_grace_of_a_timeout() {
    let setup = Setup::script(r#"trap ": > \"$1/termed\"" TERM; while :; do sleep 0.05; done"#)
        .limits(100, 50_000);
    let stop = Stop::new().unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| setup.run_until(&task(b""), &stop));
        wait_until("TERM arrives", || setup.path("termed").exists());
        stop.raise();
        let outcome = run.join().unwrap();
        assert!(
            matches!(&outcome, Outcome::Retry(failure) if failure.class == ErrorClass::Timeout),
            "{outcome:?}"
        );
    });
    assert!(start.elapsed() < Duration::from_secs(40));
}

#[test]
fn nothing_starts_after_a_stop() {
    let setup = Setup::script(r#": > "$1/ran""#);
    let stop = Stop::new().unwrap();
    stop.raise();
    assert_eq!(setup.run_until(&task(b""), &stop), Outcome::Interrupted);
    assert!(!setup.path("ran").exists());
}

// ---- tests that need a daemon of their own ------------------------------------------------------------------------

/// What [`daemon`] does; without it, nothing.
const PART: &str = "WARREND_TEST_PART";

/// This test binary again, as another process, started by a shell after `prelude`; it plays a part of a daemon.
fn start_daemon(part: &str, folder: &Path, prelude: &str) -> std::process::Child {
    Command::new("/bin/sh")
        .args(["-c", &format!(r#"{prelude} exec "$@""#), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "handler::command::tests::daemon", "--nocapture"])
        .env(PART, part)
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test: the inside of [`start_daemon`].
#[test]
fn daemon() {
    let part = std::env::var(PART).unwrap_or_default();
    let script = match part.as_str() {
        "dies" => "echo $$ > pid; exec sleep 1000",
        "started oddly" => "cat /proc/self/status > status; exit 3",
        _ => return,
    };
    let outcome = Setup::script(script).run(&task(b""));
    assert_eq!(outcome, retry(ErrorClass::Failed, "exit status 3"));
}

#[test]
fn a_program_dies_with_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start_daemon("dies", folder.path(), "");
    let pid = || {
        fs::read_to_string(folder.path().join("pid"))
            .ok()?
            .trim()
            .parse::<u32>()
            .ok()
    };
    wait_until("the program starts", || pid().is_some());
    assert!(lives(pid().unwrap()));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_until("the program dies", || !lives(pid().unwrap()));
}

#[test]
fn an_odd_start_of_the_daemon_does_not_reach_the_program() {
    let folder = tempfile::tempdir().unwrap();
    // With SIGCHLD ignored, the kernel would forget the exit status.
    let mut daemon = start_daemon(
        "started oddly",
        folder.path(),
        r#"trap "" HUP INT QUIT CHLD USR1;"#,
    );
    assert!(daemon.wait().unwrap().success());
    let status = fs::read_to_string(folder.path().join("status")).unwrap();
    // The real-time signals are nobody's business here.
    let named = |field: &str| {
        let mask = status.split_once(field).unwrap().1.lines().next().unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff
    };
    assert_eq!([named("SigBlk:"), named("SigIgn:")], [0, 0]);
}
