//! Bodies and output of any size, read or not.

use super::*;

#[test]
fn a_body_arrives_whole() {
    for body in [Vec::new(), b"\0one\nline".to_vec(), large_body()] {
        let setup = Setup::script(r#"cat > "$1/body""#);
        assert_eq!(setup.run(&task(&body)), Outcome::Done);
        assert!(fs::read(setup.path("body")).unwrap() == body, "{} bytes differ", body.len());
    }
}

#[test]
fn a_program_may_leave_its_stdin_alone() {
    let large = task(&large_body());
    assert_eq!(Setup::argv(["/bin/true"]).run(&large), Outcome::Done);
    let closes = Setup::script(r#"exec <&-; sleep 0.1; exit 75"#);
    assert_eq!(closes.run(&large), retry(ErrorClass::Failed, "exit status 75"));
    let reads_a_little = Setup::script(r#"head -c 100000 > "$1/head"; exec <&-; echo after > "$1/after""#);
    assert_eq!(reads_a_little.run(&large), Outcome::Done);
    assert_eq!(fs::metadata(reads_a_little.path("head")).unwrap().len(), 100_000);
    assert_eq!(reads_a_little.read("after"), "after\n");
}

#[test]
fn output_before_input_does_not_deadlock() {
    let setup =
        Setup::script(r#"head -c 104857600 /dev/zero | tee /dev/stderr; cat > "$1/body"; echo the end >&2; exit 1"#);
    let body = large_body();
    let Outcome::Retry(Failure { error, .. }) = setup.run(&task(&body)) else { panic!("not a retry") };
    assert!(error.ends_with("the end"), "{error}");
    assert!(fs::read(setup.path("body")).unwrap() == body);
}

#[test]
fn an_echo_on_both_streams_does_not_deadlock() {
    let outcome = Setup::script(r#"tee /dev/stderr | sha256sum > "$1/sum""#).run(&task(&large_body()));
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(Setup::script("cat").run(&task(&large_body())), Outcome::Done);
}

#[test]
fn a_program_may_close_its_streams() {
    let setup = Setup::script(r#"exec <&- >&- 2>&- 3<&-; sleep 0.1; exit 75"#);
    assert_eq!(setup.run(&task(&large_body())), retry(ErrorClass::Failed, "exit status 75"));
}

#[test]
fn endless_output_ends_at_the_timeout() {
    for script in ["exec yes", "exec yes >&2"] {
        let outcome = Setup::script(script).limits(200, 10_000).run(&task(b""));
        let Outcome::Retry(Failure { class: ErrorClass::Timeout, error }) = outcome else { panic!("{outcome:?}") };
        assert!(error.starts_with("no end within 200ms"), "{error}");
    }
}
