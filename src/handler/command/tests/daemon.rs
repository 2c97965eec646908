//! Tests that need a daemon of their own: this test binary, started again.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use super::*;
use crate::handler::process::exec;

/// What [`part`] does; without it, nothing.
const PART: &str = "WARREND_TEST_PART";

/// This test binary again, as another process, started by a shell after `prelude`; it plays a part of a daemon.
fn start_daemon(part: &str, folder: &Path, prelude: &str) -> std::process::Child {
    Command::new("/bin/sh")
        .args(["-c", &format!(r#"{prelude} exec "$@""#), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "handler::command::tests::daemon::part", "--nocapture"])
        .env(PART, part)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test: the inside of [`start_daemon`].
#[test]
fn part() {
    let part = std::env::var(PART).unwrap_or_default();
    let script = match part.as_str() {
        "dies" => "echo $$ > pid; exec sleep 1000",
        "logs" => return log_a_run(),
        "runs often" => return run_often(),
        "has a free 3" => return start_with_3(),
        "started oddly" => "cat /proc/self/status > status; exit 3",
        _ => return,
    };
    let outcome = Setup::script(script).run(&task(b""));
    assert_eq!(outcome, retry(ErrorClass::Failed, "exit status 3"));
}

fn log_a_run() {
    log_to_stderr();
    let script = "echo out; echo $0 >&2; printf '\\033[1mrest'; seq 2000 >&2";
    let mut task = task(b"");
    task.key = Some(MessageKey::from_text("two\nlines"));
    let mut handler = CommandHandler::new(&Setup::script(script).config, Arc::new(context()));
    assert_eq!(handler.run(&input(&task), &Stop::new().unwrap()).outcome, Outcome::Done);
}

#[test]
fn what_a_program_writes_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_daemon("logs", folder.path(), "").wait_with_output();
    let log = String::from_utf8(daemon.unwrap().stderr).unwrap();
    let lines: Vec<_> =
        log.lines().filter_map(|line| line.split_once("job thumbnails, key ").map(|(_, rest)| rest)).collect();
    for expected in [
        r"two\nlines, stdout: out",
        r"two\nlines, stdout: \u{1b}[1mrest",
        r"two\nlines, stderr: script",
        r"two\nlines, stderr: 999",
        r"two\nlines, stderr: … 1001 more lines dropped",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{log}");
    }
    assert_eq!(lines.len(), 1003, "{log}");
}

fn run_often() {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let setups = [
        Setup::script("cat; exit 3"),
        Setup::script("sleep 1000 & exit 65"),
        Setup::script("trap '' TERM; sleep 1000 & wait").limits(20, 10),
        Setup::argv(["/no/such/program"]),
    ];
    let blocked = || {
        fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .find(|line| line.starts_with("SigBlk"))
            .unwrap()
            .to_owned()
    };
    let before = (open(), blocked());
    for _ in 0..20 {
        for setup in &setups {
            assert_ne!(setup.run(&task(b"body")), Outcome::Done);
        }
    }
    assert_eq!((open(), blocked()), before, "descriptors, signal mask");
    let child = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert_eq!(child.err(), Some(rustix::io::Errno::CHILD), "children");
}

fn start_with_3() {
    let null = fs::File::open("/dev/null").unwrap();
    assert_eq!(null.as_raw_fd(), 3, "the shell closed it");
    let c_strings = |texts: &[&str]| texts.iter().map(|text| CString::new(*text).unwrap()).collect();
    let common = exec::Common {
        paths: c_strings(&["/bin/sh"]),
        argv: c_strings(&["sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/3 > out; exit 7"]),
        environment: Vec::new(),
        cwd: None,
    };
    let (id, _) = exec::start(&common, &[], [null.as_fd(); 4]).unwrap();
    let status = rustix::process::waitpid(Some(id), rustix::process::WaitOptions::empty());
    assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(7));
    assert_eq!(fs::read_to_string("out").unwrap(), "/dev/null\n/dev/null\n");
}

#[test]
fn a_descriptor_that_has_its_number_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_daemon("has a free 3", folder.path(), "exec 3<&-;");
    let output = daemon.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn no_run_leaves_a_descriptor_or_a_zombie() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_daemon("runs often", folder.path(), "");
    let output = daemon.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn a_program_dies_with_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start_daemon("dies", folder.path(), "");
    let pid = || fs::read_to_string(folder.path().join("pid")).ok()?.trim().parse::<u32>().ok();
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
    let odd = r#"set -- env --ignore-signal=HUP,INT,CHLD,USR1 --block-signal=TERM,USR2 "$@";"#;
    let mut daemon = start_daemon("started oddly", folder.path(), odd);
    assert!(daemon.wait().unwrap().success());
    let status = fs::read_to_string(folder.path().join("status")).unwrap();
    // The real-time signals are nobody's business here.
    let named = |field: &str| {
        let mask = status.split_once(field).unwrap().1.lines().next().unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff
    };
    assert_eq!([named("SigBlk:"), named("SigIgn:")], [0, 0]);
}
