//! Tests that need a daemon of their own: this test binary, started again.

use std::process::{Child, Command, Stdio};

use super::*;

/// What [`part`] does; without it, nothing.
const PART: &str = "WARREND_TEST_PART";

fn start_daemon(part: &str, folder: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "handler::worker::tests::daemon::part", "--nocapture"])
        .env(PART, part)
        .env("FOLDER", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test: the inside of [`start_daemon`].
#[test]
fn part() {
    match std::env::var(PART).unwrap_or_default().as_str() {
        "logs" => log_a_process(),
        "dies" => die(),
        "runs often" => run_often(),
        "is flooded" => be_flooded(),
        _ => {}
    }
}

fn log_a_process() {
    log_to_stderr();
    let setup = Setup::python(
        "print('out', flush=True); sys.stderr.write('err \\x1b\\n')\nfor line in requests: done(json.loads(line)); print('more')",
    );
    let mut handler = setup.handler();
    assert_eq!(words(&run(&mut handler, 1)), ["done"]);
}

#[test]
fn what_a_worker_prints_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_daemon("logs", folder.path()).wait_with_output().unwrap();
    let log = String::from_utf8(daemon.stderr).unwrap();
    let mut lines: Vec<_> = log.lines().filter_map(|line| line.split_once("job thumbnails, worker ")).collect();
    lines.sort_by_key(|(_, rest)| rest.split_once(", ").map(|(_, rest)| rest));
    let lines: Vec<_> = lines.iter().filter_map(|(_, rest)| Some(rest.split_once(", ")?.1)).collect();
    assert_eq!(lines, [r"stderr: err \u{1b}", "stdout: more", "stdout: out"], "{log}");
}

fn die() {
    let mut setup = Setup::python(ALL_DONE);
    *setup.config.program.argv.last_mut().unwrap() = std::env::var("FOLDER").unwrap();
    let mut handler = setup.handler();
    run(&mut handler, 1);
    std::thread::sleep(LONG);
}

#[test]
fn a_worker_dies_with_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = start_daemon("dies", folder.path());
    let pid = || fs::read_to_string(folder.path().join("pids")).ok()?.trim().parse::<u32>().ok();
    wait_until("the worker starts", || pid().is_some());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_until("the worker dies", || !lives(pid().unwrap()));
}

fn be_flooded() {
    let high_water = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    // Once without a flood, so that what everything takes is there before.
    abuse::check("answers.write(b'?\\n')", ["crashed", "back", "back"], Restart::Protocol);
    let before = high_water();
    let flood = "note('flood')\n for _ in range(1024): answers.write(b'x' * (1 << 20))";
    let answers = abuse::check(flood, ["crashed", "back", "back"], Restart::Protocol);
    assert!(text(&answers[0]).contains("a line of more than 1048576 bytes"), "{}", text(&answers[0]));
    let grown = high_water() - before;
    assert!(grown < 8 * 1024, "{grown} KiB more");
}

#[test]
fn a_flood_is_cut_off_and_takes_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let output = start_daemon("is flooded", folder.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run_often() {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let before = (open(), threads());
    for script in [
        ALL_DONE,
        "hear(); os._exit(1)",
        "os._exit(1)",
        "hear(); answers.write(b'?\\n'); time.sleep(1000)",
        "hear(); time.sleep(1000)",
    ] {
        let mut setup = Setup::python(script).limits(if script.contains("hear(); time") { 100 } else { 60_000 }, 10);
        setup.config.max_tasks = Some(1);
        let mut handler = setup.handler();
        handler.backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        for _ in 0..5 {
            run(&mut handler, 2);
        }
    }
    assert_eq!((open(), threads()), before, "descriptors, threads");
    let child = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert_eq!(child.err(), Some(rustix::io::Errno::CHILD), "children");
}

#[test]
fn no_process_leaves_a_descriptor_a_thread_or_a_zombie() {
    let folder = tempfile::tempdir().unwrap();
    let output = start_daemon("runs often", folder.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
