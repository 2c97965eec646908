//! Starts that fail, timeouts, stops, and processes that are replaced on purpose.

use super::*;

/// The reason of a job that cannot work.
fn broken(setup: &Setup) -> String {
    let mut handler = setup.handler();
    let answers = run(&mut handler, 2);
    assert_eq!(words(&answers), ["broken"; 2]);
    assert_eq!(answers[0], answers[1]);
    text(&answers[0]).to_owned()
}

#[test]
fn a_program_that_does_not_start_is_broken() {
    let error = broken(&Setup::argv(["/no/such/worker"]));
    assert_eq!(error, "cannot start `/no/such/worker`: no such file; install it, or mend `worker`");
    let error = broken(&Setup::argv(["/etc/passwd"]));
    assert!(error.starts_with("cannot start `/etc/passwd`: permission denied"), "{error}");
    let error = broken(&Setup::argv(["/bin/true", "a\0b"]));
    assert_eq!(error, "`worker` holds a NUL byte, which no argument can; remove it");
}

#[test]
fn a_program_without_a_good_hello_is_broken() {
    let cases = [
        ("sys.exit(1)", "exit status: 1, gave no hello"),
        ("sys.exit(78)", "exit status: 78, gave no hello"),
        ("sys.exit(0)", "exit status: 0, gave no hello"),
        ("os.kill(os.getpid(), 9)", "signal: 9 (SIGKILL), gave no hello"),
        ("answers.close(); time.sleep(1000)", "gave no hello, but closed its descriptor 4"),
        ("say({'warrend': 2}); time.sleep(1000)", "it speaks version 2 of the protocol, not 1"),
        ("say({'warrend': '1'}); time.sleep(1000)", "instead of its hello it said `{\"warrend\": \"1\"}`"),
        ("answers.write(b'Hello!\\n'); time.sleep(1000)", "instead of its hello it said `Hello!`"),
        ("answers.write(b'x' * 100000); time.sleep(1000)", "gave no hello, but an endless line"),
    ];
    for (script, expected) in cases {
        let setup = Setup::silent(&format!("note('pids', os.getpid()); sys.stderr.write('last words\\n'); {script}"));
        assert_eq!(broken(&setup), format!("worker `python3` cannot work ({expected}): last words"), "{script}");
        assert!(!lives(setup.pids()[0]));
    }
}

#[test]
fn a_late_hello_is_none() {
    let mut setup = Setup::silent("note('pids', os.getpid()); time.sleep(1000)");
    setup.hello_limit = Duration::from_millis(300);
    assert_eq!(broken(&setup), "worker `python3` cannot work (gave no hello within 300ms)");
    assert!(setup.pids().iter().all(|pid| !lives(*pid)));
}

#[test]
fn a_stop_while_the_hello_is_awaited_hands_back() {
    let setup = Setup::silent("note('pids', os.getpid()); time.sleep(1000)");
    let (mut handler, stop) = (setup.handler(), Stop::new().unwrap());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run_until(&mut handler, 2, &stop));
        wait_until("it starts", || !setup.pids().is_empty());
        stop.raise();
        assert_eq!(words(&running.join().unwrap()), ["back"; 2]);
    });
    assert!(!lives(setup.pids()[0]));
    assert_eq!(handler.take_restarts(), [], "the daemon ended it");
}

#[test]
fn exit_status_78_is_broken_at_any_time() {
    let setup = Setup::python(
        "request = hear(); results(request, done_, more=True); sys.stderr.write('licence expired\\n'); sys.exit(78)",
    );
    let answers = run(&mut setup.handler(), 3);
    assert_eq!(words(&answers), ["done", "broken", "broken"]);
    assert_eq!(text(&answers[1]), "worker `python3` says that it cannot work (exit status 78): licence expired");
    // While it owed nothing.
    let setup = Setup::python("done(hear()); sys.exit(78)");
    let mut handler = setup.handler();
    assert_eq!(words(&run(&mut handler, 1)), ["done"]);
    wait_until("it ends", || !lives(setup.pids()[0]));
    assert_eq!(words(&run(&mut handler, 2)), ["broken"; 2]);
    assert_eq!(words(&run(&mut handler, 1)), ["done"], "the probe gets another process");
}

#[test]
fn silence_is_a_timeout_of_the_first_without_a_result() {
    // It and its child ignore TERM; the child is in the same group.
    let setup = Setup::python(
        r#"
signal.signal(signal.SIGTERM, lambda *_: note("termed"))
if os.fork() == 0:
    note("pids", os.getpid())
    while True: time.sleep(1000)
request = hear()
results(request, done_, more=True)
sys.stderr.write("stuck\n")
while True: time.sleep(1000)"#,
    )
    .limits(500, 50);
    let mut handler = setup.handler();
    let answers = run(&mut handler, 3);
    assert_eq!(words(&answers), ["done", "timeout", "back"]);
    assert_eq!(text(&answers[1]), "the worker gave no result within 500ms: stuck");
    assert!(setup.path("termed").exists());
    let pids = setup.pids();
    assert!(pids.len() == 2 && pids.iter().all(|pid| !lives(*pid)), "{pids:?}");
    assert_eq!(handler.take_restarts(), [Restart::Timeout]);
}

#[test]
fn one_that_never_reads_is_silent() {
    let setup = Setup::python("time.sleep(1000)").limits(200, 50);
    let mut handler = setup.handler();
    // More than the pipe takes.
    let tasks: Vec<_> = (0..2).map(|_| task(&[b'x'; 1 << 20])).collect();
    let answers = handler.run(&inputs(&tasks), &Stop::new().unwrap());
    assert_eq!(words(&answers), ["timeout", "back"]);
}

#[test]
fn a_result_counts_also_after_the_timeout() {
    let setup = Setup::python(
        r#"
def finish(*_):
    results(request, done_, more=True); sys.exit(0)
signal.signal(signal.SIGTERM, finish)
request = hear()
time.sleep(1000)"#,
    )
    .limits(300, 60_000);
    let mut handler = setup.handler();
    assert_eq!(words(&run(&mut handler, 3)), ["done", "timeout", "back"]);
    assert_eq!(words(&run(&mut handler, 1)), ["done"]);
    assert_eq!(handler.take_restarts(), [Restart::Timeout; 2]);
}

#[test]
fn a_stop_hands_back_what_has_no_result() {
    // The first ends at TERM with one more result, the second has to be killed.
    for (at_term, expected) in [
        ("results(request, done_, more=True); os._exit(0)", ["done", "done", "back"]),
        ("pass", ["done", "back", "back"]),
    ] {
        let setup = Setup::python(&format!(
            r#"
signal.signal(signal.SIGTERM, lambda *_: exec({at_term:?}))
request = hear()
results(request, done_, more=True)
note("working")
while True: time.sleep(1000)"#
        ));
        let (mut handler, stop) = (setup.handler(), Stop::new().unwrap());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| run_until(&mut handler, 3, &stop));
            wait_until("it works", || setup.path("working").exists());
            let raised = Instant::now();
            stop.raise();
            let answers = running.join().unwrap();
            assert_eq!(words(&answers), expected, "{at_term}");
            assert_eq!(text(&answers[2]), STOPPED);
            assert!(raised.elapsed() < LONG / 2, "the grace of a stop is short");
        });
        assert!(!lives(setup.pids()[0]));
        assert_eq!(words(&run_until(&mut handler, 1, &stop)), ["back"], "nothing starts any more");
        assert_eq!(setup.pids().len(), 1);
    }
}

#[test]
fn an_idle_process_ends_with_its_requests() {
    let setup = Setup::python(&format!("{ALL_DONE}\nnote('tidy')"));
    let mut handler = setup.handler();
    run(&mut handler, 1);
    drop(handler);
    assert_eq!(setup.read("tidy"), "\n");
    assert!(!lives(setup.pids()[0]));
    // One that does not want to: TERM, then KILL, also of what it started.
    let setup = Setup::python(&format!(
        "signal.signal(signal.SIGTERM, lambda *_: note('termed'))\nif os.fork() == 0: note('pids', os.getpid()); time.sleep(1000)\n{ALL_DONE}\nwhile True: time.sleep(1000)"
    ))
    .limits(60_000, 50);
    let mut handler = setup.handler();
    run(&mut handler, 1);
    drop(handler);
    assert!(setup.path("termed").exists());
    assert!(setup.pids().len() == 2 && setup.pids().iter().all(|pid| !lives(*pid)));
}

#[test]
fn a_process_is_replaced_after_so_many_tasks() {
    let mut setup = Setup::python(&format!("{ALL_DONE}\nnote('tidy')"));
    setup.config.max_tasks = Some(5);
    let mut handler = setup.handler();
    for count in [3, 3, 5, 1] {
        assert_eq!(words(&run(&mut handler, count)), vec!["done"; count]);
    }
    assert_eq!((setup.pids().len(), setup.read("tidy").lines().count()), (3, 2));
    assert_eq!(handler.take_restarts(), [Restart::MaxTasks; 2]);
    assert_eq!(handler.take_restarts(), []);
}

#[test]
fn a_process_is_replaced_when_it_is_large() {
    let mut setup = Setup::python(
        "hoard = []\nfor line in requests:\n  request = json.loads(line); hoard.append(b'x' * (len(request['tasks']) << 20)); done(request)",
    );
    setup.config.max_memory = Some(64 << 20);
    let mut handler = setup.handler();
    for count in [1, 1, 100, 1] {
        assert_eq!(words(&run(&mut handler, count)), vec!["done"; count]);
    }
    assert_eq!(setup.pids().len(), 2);
    assert_eq!(handler.take_restarts(), [Restart::MaxMemory]);
}

#[test]
fn a_process_is_replaced_when_it_is_old() {
    let mut setup = Setup::python(ALL_DONE);
    setup.config.max_age = Some(Duration::ZERO);
    let mut handler = setup.handler();
    for _ in 0..3 {
        assert_eq!(words(&run(&mut handler, 1)), ["done"]);
    }
    assert_eq!(setup.pids().len(), 3);
    // One that became old while nothing was there to do.
    handler.config.max_age = Some(LONG);
    assert_eq!(words(&run(&mut handler, 1)), ["done"]);
    handler.config.max_age = Some(Duration::from_nanos(1));
    assert_eq!(words(&run(&mut handler, 1)), ["done"]);
    assert_eq!(setup.pids().len(), 5);
    assert!(handler.take_restarts().iter().all(|reason| *reason == Restart::MaxAge));
}

#[test]
fn one_that_does_not_leave_is_made_to() {
    let mut setup = Setup::python(&format!("{ALL_DONE}\nwhile True: time.sleep(1000)")).limits(60_000, 50);
    setup.config.max_tasks = Some(1);
    let mut handler = setup.handler();
    assert_eq!(words(&run(&mut handler, 1)), ["done"]);
    assert_eq!(words(&run(&mut handler, 1)), ["done"]);
    let pids = setup.pids();
    assert!(pids.len() == 2 && !lives(pids[0]));
    assert_eq!(handler.take_restarts(), [Restart::MaxTasks; 2]);
}
