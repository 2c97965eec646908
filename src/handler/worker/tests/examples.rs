//! The example workers do what they show.

use std::io::Write as _;

use super::*;

/// An example, run by what runs it; absent where this machine lacks that.
fn example(name: &str, interpreter: &str) -> Option<Setup> {
    let there = std::process::Command::new(interpreter).arg("--version").output().is_ok();
    let path = format!("{}/examples/workers/{name}", env!("CARGO_MANIFEST_DIR"));
    there.then(|| Setup::argv([&path]))
}

/// Three messages: one that is done, one to be dead-lettered, one to be tried again.
fn three() -> [Task; 3] {
    [&b"\xff\n"[..], br#"{"fail":"dead"}"#, br#"{"fail":"retry"}"#].map(task)
}

fn check(setup: &Setup, batch: usize) {
    let mut handler = setup.handler();
    let tasks = three();
    let stop = Stop::new().unwrap();
    for _ in 0..2 {
        let answers: Vec<_> = inputs(&tasks).chunks(batch).flat_map(|batch| handler.run(batch, &stop)).collect();
        assert_eq!(words(&answers), ["done", "rejected", "failed"], "{answers:?}");
        if batch > 1 {
            assert_eq!((text(&answers[1]), text(&answers[2])), ("no such address", "the mail server is busy"));
            assert_eq!(answers[2].delay, Some(Duration::from_secs(10)));
        }
    }
    assert_eq!(handler.take_restarts(), []);
    // It ends by itself when its requests do: with a grace this long nobody would wait for TERM.
    let ended = handler.process.take().unwrap().part(Instant::now() + LONG, LONG, None, |_| false);
    assert_eq!(ended.status.unwrap().code(), Some(0), "{}", ended.stderr);
    // And by TERM when it is idle.
    assert_eq!(handler.run(&inputs(&tasks[..1]), &stop).len(), 1);
    let process = handler.process.take().unwrap();
    rustix::process::kill_process(process.leader(), rustix::process::Signal::TERM).unwrap();
    wait_until("it ends at TERM", || process.has_ended());
    assert_eq!(process.end().status.unwrap().code(), Some(0));
}

#[test]
fn python() {
    check(&example("worker.py", "python3").expect("the tests of workers need python3"), 3);
}

/// Optional also where CI is set: Node.js is large.
#[test]
fn javascript() {
    match example("worker.mjs", "node") {
        Some(setup) => check(&setup, 3),
        None => {
            // Not by a macro: what tests that pass print with one is not shown.
            let _ = writeln!(std::io::stderr(), "skipped: no node");
        }
    }
}

#[test]
fn bash() {
    check(&example("worker.sh", "bash").expect("bash is on every Debian"), 1);
}
