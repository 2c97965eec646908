//! The environment, descriptor 3, and what the program does not get.

use super::*;

/// The environment that a program really gets; a shell would add to it.
fn environment_of(mut setup: Setup, task: &Task) -> Vec<String> {
    let to = format!("of={}", setup.path("environ").display());
    setup.config.argv = ["/bin/dd", "if=/proc/self/environ", &to, "status=none"].map(str::to_owned).into();
    assert_eq!(setup.run(task), Outcome::Done);
    let environment = setup.read("environ");
    let mut variables: Vec<_> = environment.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    variables.sort();
    variables
}

#[test]
fn the_environment_is_exactly_what_it_says() {
    let mut setup = Setup::argv(["/bin/true"]);
    for (name, value) in [("QUALITY", "80"), ("LANG", "xx"), ("TRACEPARENT", "ours"), ("WARREND_JOB", "forged")] {
        setup.config.env.insert(name.into(), value.into());
    }
    setup.config.env.insert("WARREND_REPLY_TO".into(), "forged".into());
    let mut task = task(b"");
    task.key = Some(MessageKey::from_text("k=1\n2"));
    task.message.properties.message_id = Some("nul\0".into());
    task.message.properties.headers.insert("traceparent".into(), HeaderValue::Text("theirs".into()));
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
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "this process has more in its environment than that");

    let found = environment_of(Setup::argv(["/bin/true"]), &task);
    assert!(found.contains(&"TRACEPARENT=theirs".to_owned()), "{found:?}");
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
    properties.headers.insert("long".into(), HeaderValue::Text("h".repeat(100_000)));
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
    assert_eq!(Setup::argv(["/bin/true"]).run(&large), Outcome::Done, "nobody has to read it");
}

#[test]
fn a_program_has_four_descriptors() {
    // A child looks at its parent, which has no redirection or pipe of its own.
    let setup = Setup::script(r#"sh -c 'ls /proc/$PPID/fd > "$1/fds"' sh "$1"; exit 0"#);
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
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    assert_eq!([fields[2], fields[3]], [id, id]);
}
