//! What goes over the pipes when all is well.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::task::{HeaderValue, Message, MessageKey, Properties};

#[test]
fn results_belong_to_tasks_by_their_position() {
    let setup = Setup::python(
        r#"
request = hear()
results(request, {"status": "done"}, {"status": "retry", "delay": "10s", "error": "busy"},
        {"status": "dead", "error": "no such\x1b address"}, {"status": "retry"}, {"status": "dead", "error": ""})
hear()"#,
    );
    let answers = run(&mut setup.handler(), 5);
    assert_eq!(words(&answers), ["done", "failed", "rejected", "failed", "rejected"]);
    let texts: Vec<_> = answers.iter().map(text).collect();
    let none = "the worker gave no reason";
    assert_eq!(texts, ["", "busy", "no such\u{fffd} address", none, none]);
    let delays: Vec<_> = answers.iter().map(|answer| answer.delay).collect();
    assert_eq!(delays, [None, Some(Duration::from_secs(10)), None, None, None]);
    assert!(answers.iter().all(|answer| answer.reply.is_none()), "the job does not reply");
}

#[test]
fn a_process_runs_one_batch_after_the_other() {
    let setup = Setup::python(ALL_DONE);
    let mut handler = setup.handler();
    assert!(!setup.path("pids").exists(), "nothing starts before the first batch");
    for count in [1, 50, 3, 1000] {
        assert_eq!(words(&run(&mut handler, count)), vec!["done"; count]);
    }
    let pids = setup.pids();
    assert_eq!(pids.len(), 1);
    assert!(lives(pids[0]));
    assert_eq!(handler.take_restarts(), []);
    drop(handler);
    assert!(!lives(pids[0]));
}

#[test]
fn a_task_has_all_that_its_message_has() {
    let setup = Setup::python("request = hear(); note('request', json.dumps(request)); done(request); hear()");
    let mut full = task("käse \"\\\u{0}\u{2028}\n".as_bytes());
    full.key = Some(MessageKey::from_text("k-1"));
    (full.attempt, full.priority) = (3, 9);
    let headers = [("n".to_owned(), HeaderValue::I32(-1)), ("raw".to_owned(), HeaderValue::Bytes(vec![0, 255]))];
    full.message = Message {
        exchange: "media".into(),
        routing_key: "image.new".into(),
        redelivered: true,
        properties: Properties {
            content_type: Some("text/plain".into()),
            message_id: Some("m-1".into()),
            reply_to: Some("answers".into()),
            correlation_id: Some("c-1".into()),
            timestamp: Some(1_700_000_000),
            headers: headers.into(),
            ..Properties::default()
        },
        body: full.message.body,
    };
    let bytes = [0xff, 0xfe, 0, 10];
    let tasks = [full, task(&bytes), task(b"")];
    let answers = setup.handler().run(&inputs(&tasks), &Stop::new().unwrap());
    assert_eq!(words(&answers), ["done"; 3]);
    let request: serde_json::Value = serde_json::from_str(&setup.read("request")).unwrap();
    let common = json!({"key": null, "attempt": 1, "max_attempts": 5, "queue": "thumbnails.urgent", "exchange": "",
        "routing_key": "", "priority": 0, "redelivered": false, "headers": {}});
    let with = |name: &str, value: &str| {
        let mut task = common.clone();
        task[name] = value.into();
        task
    };
    let expected = json!({"id": 1, "tasks": [
        {"key": "k-1", "attempt": 3, "max_attempts": 5, "queue": "thumbnails.urgent", "exchange": "media",
         "routing_key": "image.new", "priority": 9, "redelivered": true, "message_id": "m-1",
         "content_type": "text/plain", "correlation_id": "c-1", "reply_to": "answers", "timestamp": 1_700_000_000,
         "headers": {"n": -1, "raw": {"base64": "AP8="}}, "body": "käse \"\\\u{0}\u{2028}\n"},
        with("body_base64", &STANDARD.encode(bytes)),
        with("body", ""),
    ]});
    assert_eq!(request, expected);
}

#[test]
fn a_batch_larger_than_its_pipes_goes_through_them() {
    // 64 bodies of 256 KiB: the request is much longer than the pipe, and the answers come while it is being written.
    let setup = Setup::python(
        "import hashlib\nfor line in requests:\n  request = json.loads(line)\n  \
         results(request, *[{'status': 'dead', 'error': str(len(task['body']))} for task in request['tasks']])",
    );
    let mut handler = setup.handler();
    let tasks: Vec<_> = (0..64).map(|n| task("é".repeat(128 * 1024 + n).as_bytes())).collect();
    let answers = handler.run(&inputs(&tasks), &Stop::new().unwrap());
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(text(answer), (128 * 1024 + n).to_string());
    }
    assert!(handler.buffer.capacity() < 1 << 20, "never all the bodies at one time");
}

#[test]
fn results_may_come_a_few_at_a_time() {
    let setup = Setup::python(
        r#"
request = hear()
for n in range(len(request["tasks"])): results(request, {"status": "dead", "error": str(n)}, more=True)
request = hear()
results(request, done_, done_, more=True)
results(request, more=True)
results(request, done_)
request = hear()
results(request, done_, more=True)
results(request, done_)
hear()"#,
    );
    let mut handler = setup.handler();
    let answers = run(&mut handler, 4);
    assert_eq!(answers.iter().map(text).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!(words(&run(&mut handler, 3)), ["done"; 3]);
    assert_eq!(words(&run(&mut handler, 4)), ["done", "done", "failed", "failed"], "the last line ends the batch");
    assert_eq!(handler.take_restarts(), []);
}

#[test]
fn a_job_that_replies_gets_the_replies() {
    let mut setup = Setup::python(
        r#"
request = hear()
results(request, {"status": "done", "reply": "é", "reply_content_type": "text/plain"},
        {"status": "done", "reply_base64": "AP8="}, done_, {"status": "done", "reply_base64": "?"},
        {"status": "done", "reply": "x" * (1 << 20)}, {"status": "done", "reply": "x" * ((1 << 20) + 1)},
        {"status": "retry", "reply": "ignored"})
hear()"#,
    );
    setup.context.reply = true;
    let answers = run(&mut setup.handler(), 7);
    assert_eq!(words(&answers), ["done", "done", "done", "failed", "done", "oversize", "failed"]);
    let reply = |n: usize| answers[n].reply.as_ref().map(|reply| (&*reply.body, reply.content_type.as_deref()));
    assert_eq!(reply(0), Some(("é".as_bytes(), Some("text/plain"))));
    assert_eq!(reply(1), Some((&[0, 255][..], None)));
    assert_eq!(reply(2), Some((&[][..], None)), "no caller waits in vain");
    assert_eq!([reply(3), reply(5), reply(6)], [None; 3]);
    assert_eq!(reply(4).unwrap().0.len(), 1 << 20);
}

#[test]
fn what_cannot_be_read_fails_its_task_and_no_other() {
    let given = r#"["done", null, 7, [], {}, {"status": null}, {"status": 1}, {"status": "ok"}, {"status": "Done"},
        {"status": "done", "delay": 10}, {"status": "retry", "delay": "soon"}, {"status": "done", "other": {}}]"#;
    let setup = Setup::python(&format!("request = hear(); results(request, *json.loads('''{given}''')); hear()"));
    let mut handler = setup.handler();
    let answers = run(&mut handler, 12);
    let words = words(&answers);
    assert_eq!(words[..11], ["failed"; 11]);
    assert_eq!(words[11], "done");
    assert!(text(&answers[0]).starts_with("the worker gave a result that cannot be read ("), "{}", text(&answers[0]));
    assert_eq!(text(&answers[7]), "the worker gave the status `ok`, which is none of done, retry, dead");
    assert!(text(&answers[10]).contains("its `delay` cannot be read"), "{}", text(&answers[10]));
    assert_eq!(answers[10].delay, None);
    assert_eq!(handler.take_restarts(), []);
}

#[test]
fn the_environment_is_that_of_a_command_without_the_message() {
    let script = r#"tr '\0' '\n' < /proc/$$/environ > "$1/env"; echo '{"warrend":1}' >&4
        read line <&3; echo '{"id":1,"results":[{"status":"done"}]}' >&4; read line <&3"#;
    let mut setup = Setup::argv(["/bin/sh", "-c", script, "script"]);
    setup.config.program.argv.push(setup.folder.path().to_str().unwrap().to_owned());
    setup.config.program.env = [("A".to_owned(), "b".to_owned())].into();
    assert_eq!(words(&run(&mut setup.handler(), 1)), ["done"]);
    let env = setup.read("env");
    let given: Vec<_> = env
        .lines()
        .filter(|line| !["PATH=", "HOME=", "LANG=", "TZ="].iter().any(|name| line.starts_with(name)))
        .collect();
    assert_eq!(given, ["A=b", "WARREND_JOB=thumbnails"]);
}
