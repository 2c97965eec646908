//! Processes that break the protocol.

use super::*;
use crate::task::MessageKey;

/// One batch of three in a process that misbehaves the first time, and then a batch of three in its successor.
///
/// `misbehave` has the request in `request`. Gives the answers to the first batch; the second goes well.
pub fn check(misbehave: &str, expected: [&str; 3], restart: Restart) -> Vec<Answer> {
    let setup = Setup::python(&format!(
        "if len(open(sys.argv[1] + '/pids').readlines()) == 1:\n request = hear()\n {misbehave}\n time.sleep(1000)\n{ALL_DONE}"
    ));
    let mut handler = setup.handler();
    let answers = run(&mut handler, 3);
    assert_eq!(words(&answers), expected, "{misbehave}: {answers:?}");
    assert_eq!(words(&run(&mut handler, 3)), ["done"; 3], "{misbehave}");
    assert_eq!(handler.take_restarts(), [restart], "{misbehave}");
    let pids = setup.pids();
    assert!(pids.len() == 2 && !lives(pids[0]) && lives(pids[1]), "{misbehave}");
    answers
}

#[test]
fn garbage_ends_the_process() {
    let spoilt = ["crashed", "back", "back"];
    let cases = [
        ("answers.write(b'garbage\\n')", "it answered what is no response (no JSON object)"),
        ("answers.write(b'\\n')", "it answered what is no response (no JSON object)"),
        ("answers.write(b'{\\xff}\\n')", "it answered what is no response (key must be"),
        ("say([1, [done_] * 3])", "it answered what is no response (no JSON object)"),
        ("say({'results': [done_] * 3})", "it answered what is no response (missing field `id`"),
        ("say({'id': request['id'], 'results': {}})", "it answered what is no response (invalid type: map"),
        ("say({'id': 99, 'results': [done_] * 3})", "it answered request 99 instead of 1"),
        ("results(request, done_, done_, done_, done_)", "it gave 4 results for 3 tasks"),
        (
            "answers.write(b'{\"id\":' + b'[' * 100000 + b'\\n')",
            "it answered what is no response (invalid type: sequence",
        ),
        ("answers.close()", "it closed its descriptor 4"),
    ];
    for (misbehave, what) in cases {
        let answers = check(misbehave, spoilt, Restart::Protocol);
        let expected = format!("the worker broke the protocol: {what}");
        assert!(text(&answers[0]).starts_with(&expected), "{misbehave}: {}", text(&answers[0]));
        assert_eq!(answers[0].exit, None);
    }
}

#[test]
fn results_before_the_garbage_count() {
    let answers = check(
        "results(request, done_, more=True); answers.write(b'?\\n')",
        ["done", "crashed", "back"],
        Restart::Protocol,
    );
    assert_eq!(text(&answers[2]), SPOILT);
    check(
        "results(request, done_, done_, more=True); results(request, done_, done_)",
        ["done", "done", "crashed"],
        Restart::Protocol,
    );
}

#[test]
fn a_second_answer_ends_the_process_and_charges_nobody() {
    // Both in one write, or one of them later, while nothing is asked of it.
    check(
        "text = json.dumps({'id': 1, 'results': [done_] * 3}).encode() + b'\\n'; answers.write(text + text)",
        ["done"; 3],
        Restart::Protocol,
    );
    let setup = Setup::python(
        "request = hear(); done(request); done(request); note('twice')\nfor line in requests: done(json.loads(line))",
    );
    let mut handler = setup.handler();
    assert_eq!(words(&run(&mut handler, 2)), ["done"; 2]);
    wait_until("it answers again", || setup.path("twice").exists());
    assert_eq!(words(&run(&mut handler, 2)), ["done"; 2]);
    assert_eq!(handler.take_restarts()[0], Restart::Protocol);
}

#[test]
fn a_flood_of_empty_answers_ends_at_the_timeout() {
    let setup = Setup::python("request = hear()\nwhile True: results(request, more=True)").limits(300, 100);
    let mut handler = setup.handler();
    let answers = run(&mut handler, 2);
    assert_eq!(words(&answers), ["timeout", "back"]);
    assert_eq!(text(&answers[0]), "the worker gave no result within 300ms");
}

#[test]
fn what_a_worker_prints_breaks_nothing() {
    // Far more than a pipe holds, before the hello, while it works, and while it owes nothing.
    let setup = Setup::silent(
        r#"
def chatter():
    os.write(1, b"stdout " * 30000); os.write(2, b'{"id":1,"results":[]}\n' * 10000)
chatter()
say({"warrend": 1})
for line in requests:
    chatter(); done(json.loads(line)); chatter(); note("quiet")"#,
    );
    let mut handler = setup.handler();
    for round in 1..=3 {
        assert_eq!(words(&run(&mut handler, 3)), ["done"; 3]);
        wait_until("it has printed all", || setup.read("quiet").lines().count() == round);
    }
    assert_eq!(handler.take_restarts(), []);
}

#[test]
fn a_death_charges_the_first_task_without_a_result() {
    let answers = check("sys.stderr.write('oh no\\n'); sys.exit(3)", ["crashed", "back", "back"], Restart::Crashed);
    assert_eq!(text(&answers[0]), "the worker ended with exit status 3: oh no");
    assert_eq!(answers[0].exit, Some(Exit::Code(3)));
    let answers = check(
        "results(request, done_, retry, more=True); os.kill(os.getpid(), signal.SIGKILL)",
        ["done", "failed", "crashed"],
        Restart::Crashed,
    );
    assert!(text(&answers[2]).starts_with("the worker was killed by SIGKILL (signal 9), not by warrend"));
    assert_eq!(answers[2].exit, Some(Exit::Signal(9)));
    // An end that looks well is no result.
    let answers = check("sys.exit(0)", ["crashed", "back", "back"], Restart::Crashed);
    assert_eq!(text(&answers[0]), "the worker ended with exit status 0");
    // A child that holds the pipe open does not hide the death.
    check("os.fork() or time.sleep(1000); os._exit(1)", ["crashed", "back", "back"], Restart::Crashed);
    // All results and then the end: nobody is charged.
    check("done(request); os._exit(1)", ["done"; 3], Restart::Exited);
}

#[test]
fn a_message_that_kills_each_process_makes_no_hot_loop() {
    let setup = Setup::python("hear(); os._exit(1)");
    let mut handler = setup.handler();
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(words(&run(&mut handler, 1)), ["crashed"]);
    }
    assert!(start.elapsed() >= Duration::from_millis(100 + 200 + 400), "{:?}", start.elapsed());
    // The wait for the next ends when the daemon must.
    let stop = Stop::new().unwrap();
    handler.not_before = Some(Instant::now() + LONG);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run_until(&mut handler, 1, &stop));
        stop.raise();
        assert_eq!(text(&waiting.join().unwrap()[0]), STOPPED);
    });
    assert_eq!(setup.pids().len(), 4);
}

#[test]
fn a_process_that_ends_idle_is_replaced_and_charges_nobody() {
    for (end, restart) in [("0", Restart::Exited), ("1", Restart::Exited)] {
        let setup = Setup::python(&format!("done(hear()); os._exit({end})"));
        let mut handler = setup.handler();
        for round in 1..=3 {
            assert_eq!(words(&run(&mut handler, 2)), ["done"; 2]);
            assert_eq!(setup.pids().len(), round);
            wait_until("it ends", || !lives(setup.pids()[round - 1]));
        }
        assert_eq!(handler.take_restarts(), [restart; 2]);
    }
}

#[test]
fn a_process_that_reads_no_request_charges_nobody() {
    // It closes its requests and ends with the first, and serves with the second.
    let serve_second = |first: &str| {
        Setup::python(&format!("if len(open(sys.argv[1] + '/pids').readlines()) == 1:\n {first}\n{ALL_DONE}"))
    };
    let late_end = "time.sleep(0.2); os._exit(1)";
    for first in ["os._exit(1)", late_end, "requests.close(); os._exit(0)", "requests.close(); time.sleep(1000)"] {
        let setup = serve_second(first);
        let mut handler = setup.handler();
        // More than the pipe takes.
        let tasks: Vec<_> = (0..2).map(|_| task(&[b'x'; 1 << 20])).collect();
        let answers = handler.run(&inputs(&tasks), &Stop::new().unwrap());
        assert_eq!(words(&answers), ["done"; 2], "{first}: {answers:?}");
        assert_eq!(setup.pids().len(), 2, "{first}");
    }
    let setup = serve_second(late_end);
    assert_eq!(words(&run(&mut setup.handler(), 2)), ["done"; 2], "a small one waits in the pipe");
    // One that never reads is not the messages' fault.
    let setup = Setup::python(late_end);
    let answers = run(&mut setup.handler(), 2);
    assert_eq!(words(&answers), ["broken"; 2]);
    assert_eq!(
        text(&answers[0]),
        "a worker said hello and took no request, twice in a row: the worker ended with exit status 1"
    );
}

#[test]
fn a_key_with_line_breaks_stays_on_its_line() {
    let setup = Setup::python("request = hear(); note('key', request['tasks'][0]['key']); done(request); hear()");
    let mut odd = task(b"\n\n");
    odd.key = Some(MessageKey::from_text("a\n{\"id\":2}\nb"));
    let answers = setup.handler().run(&inputs(&[odd]), &Stop::new().unwrap());
    assert_eq!(words(&answers), ["done"]);
    assert_eq!(setup.read("key"), "a\n{\"id\":2}\nb\n");
}
