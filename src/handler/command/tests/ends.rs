//! Timeouts, stops, and what is left of a program after them.

use super::*;

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
            let pids = if setup.path("pids").exists() { setup.pids("pids") } else { Vec::new() };
            let alive: Vec<_> = pids.iter().filter(|pid| lives(**pid)).collect();
            assert!(alive.is_empty(), "{alive:?} of {pids:?} live");
            let Outcome::Retry(Failure { class: ErrorClass::Timeout, error }) = outcome else { panic!("{outcome:?}") };
            assert!(error.starts_with("no end within 100ms"), "{error}");
            seen += pids.len();
        }
        seen
    };
    let seen: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || rounds(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(seen > 150, "in most of 100 runs all three were there to be killed, not {seen} in all");
}

#[test]
fn a_timeout_finds_what_left_the_group() {
    let script = r#"
        setsid sh -c 'trap "" TERM; sleep 1000 & echo $! >> "$1/pids"; echo $$ >> "$1/pids"; wait' sh "$1" &
        wait"#;
    let setup = Setup::script(script).limits(1000, 50);
    let Outcome::Retry(Failure { class: ErrorClass::Timeout, .. }) = setup.run(&task(b"")) else {
        panic!("no timeout")
    };
    let pids = setup.pids("pids");
    assert_eq!(pids.len(), 2);
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn the_grace_is_for_all_of_it() {
    // The program dies of TERM at once; what it started, in its group or out of it, wants to tidy up.
    for start in ["sh", "setsid sh"] {
        let script = r#" -c 'trap "sleep 0.2; echo tidy > \"$1/tidy\"; exit" TERM; : > "$1/ready"; sleep 1000 & wait' sh "$1" &
            wait"#;
        let setup = Setup::script(&format!("{start}{script}")).limits(1000, 30_000);
        let start = Instant::now();
        let outcome = setup.run(&task(b""));
        assert_eq!(outcome, retry(ErrorClass::Timeout, "no end within 1s"));
        assert_eq!(setup.read("tidy"), "tidy\n");
        assert!(start.elapsed() < Duration::from_secs(20), "it did not wait for the rest of the grace");
    }
}

#[test]
fn a_late_success_is_a_timeout() {
    let setup = Setup::script(r#"trap "exit 0" TERM; echo stuck >&2; sleep 1000 & wait"#).limits(500, 10_000);
    assert_eq!(setup.run(&task(b"")), retry(ErrorClass::Timeout, "no end within 500ms: stuck"));
}

#[test]
fn a_stopped_program_ends_too() {
    let setup = Setup::script("kill -STOP $$").limits(200, 50);
    assert_eq!(setup.run(&task(b"")), retry(ErrorClass::Timeout, "no end within 200ms"));
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
        assert!(start.elapsed() < LONG / 2, "it did not wait for the end of the pipes");
        match status {
            0 => assert_eq!(outcome, Outcome::Done),
            _ => assert_eq!(outcome, retry(ErrorClass::Failed, "exit status 75: last words")),
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
        let setup = Setup::script(&format!(r#"trap "{trap}" TERM; echo $$ > "$1/pid"; while :; do sleep 0.05; done"#));
        let stop = Stop::new().unwrap();
        let started = setup.path("pid");
        std::thread::scope(|scope| {
            let run = scope.spawn(|| setup.run_until(&task(&large_body()), &stop));
            wait_until("the program starts", || fs::metadata(&started).is_ok_and(|file| file.len() > 0));
            let raised = Instant::now();
            stop.raise();
            assert_eq!(run.join().unwrap(), Outcome::Interrupted(STOPPED));
            assert!(raised.elapsed() < LONG / 2, "the grace of a stop is short");
        });
        assert!(!lives(setup.pids("pid")[0]));
    }
}

#[test]
fn a_stop_shortens_the_grace_of_a_timeout() {
    let setup = Setup::script(r#"trap ": > \"$1/termed\"" TERM; while :; do sleep 0.05; done"#).limits(100, 50_000);
    let stop = Stop::new().unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| setup.run_until(&task(b""), &stop));
        wait_until("TERM arrives", || setup.path("termed").exists());
        stop.raise();
        let outcome = run.join().unwrap();
        assert!(matches!(&outcome, Outcome::Retry(failure) if failure.class == ErrorClass::Timeout), "{outcome:?}");
    });
    assert!(start.elapsed() < Duration::from_secs(40));
}

#[test]
fn nothing_starts_after_a_stop() {
    let setup = Setup::script(r#": > "$1/ran""#);
    let stop = Stop::new().unwrap();
    stop.raise();
    assert_eq!(setup.run_until(&task(b""), &stop), Outcome::Interrupted(STOPPED));
    assert!(!setup.path("ran").exists());
}
