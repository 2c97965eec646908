//! `warrend check --online`: each thing that it finds is provoked once, a set-up that is well has only good lines, and the
//! broker is the same afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use amiquip::{AmqpValue, ConsumerOptions, FieldTable, QueueDeclareOptions, QueueDeleteOptions};
use serde_json::{Value, json};

use crate::amqp::{long_text, url_as};
use crate::support::broker::{BROKER_TIMEOUT, Broker, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::{random_uuid, wait_until};

const JOB: &str = "[jobs.work]\nqueue = \"work\"\nhandler.command = [\"true\"]\n";
/// What a worker needs, and nothing else.
const NARROW: [&str; 3] =
    [r"^(work.*|warrend\.delay\..*)$", r"^(work.*|warrend\.delay\..*|amq\.default)$", r"^(work.*|warrend\.delay\..*)$"];

/// A user of the broker, gone with its test.
struct User(String);

impl User {
    fn new(vhost: &Vhost, tags: &str, [configure, write, read]: [&str; 3]) -> Self {
        let user = Self(format!("warrend-test-{}", random_uuid().simple()));
        let call = |path: &str, body| Broker::get().management().call("PUT", path, Some(&body));
        call(&format!("/api/users/{}", user.0), json!({"password": "only here", "tags": tags}))
            .expect("a user is made");
        let rights = json!({"configure": configure, "write": write, "read": read});
        call(&format!("/api/permissions/{}/{}", vhost.name(), user.0), rights).expect("it gets its rights");
        user
    }

    /// `urls`, and the management API as the tests' own user sees it.
    fn broker(&self, vhost: &Vhost) -> String {
        format!("urls = [\"{}\"]\n{}", url_as(vhost, &self.0, Some("only here")), management(vhost))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Nothing else depends on it.
        let _ = Broker::get().management().call("DELETE", &format!("/api/users/{}", self.0), None);
    }
}

fn management_url() -> String {
    std::env::var("WARREND_TEST_MANAGEMENT_URL").expect("`make test` says where it is")
}

fn management(vhost: &Vhost) -> String {
    let (user, password) = vhost.credentials();
    let url = management_url().replace("http://", &format!("http://{user}:{password}@"));
    format!("management_url = \"{url}\"\n")
}

/// What the doctor says.
struct Told {
    code: Option<i32>,
    json: Value,
}

impl Told {
    fn by(daemon: &Daemon) -> Self {
        let output = daemon.run(&["check", "--online", "--format", "json"]);
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { code: output.status.code(), json }
    }

    /// Level, text and mends of the findings of this code.
    fn of(&self, code: &str) -> Vec<(&str, &str, String)> {
        let all = self.json["findings"].as_array().expect("a list");
        let of_it = all.iter().filter(|found| found["code"] == code);
        let part = |found: &'_ Value, key: &str| found[key].as_str().unwrap_or_default().to_owned();
        of_it
            .map(|found| {
                let (level, text) = (found["level"].as_str().unwrap_or(""), found["text"].as_str().unwrap_or(""));
                (level, text, format!("{} {}", part(found, "why"), found["mends"]))
            })
            .collect()
    }

    /// Expects one such finding, with these words in its text and in its mends.
    #[track_caller]
    fn has(&self, code: &str, level: &str, text: &str, mend: &str) {
        let found = self.of(code);
        let fits = |(its_level, its_text, mends): &&(&str, &str, String)| {
            *its_level == level && its_text.contains(text) && mends.contains(mend)
        };
        assert_eq!(found.iter().filter(fits).count(), 1, "{code} {level} {text} {mend}\n{:#}", self.json["findings"]);
    }

    /// Everything that is not well.
    fn troubles(&self) -> Vec<&Value> {
        let all = self.json["findings"].as_array().expect("a list");
        // The tests' own RabbitMQ is Debian's, whose series has ended; on the machine of a developer the disk may be full.
        all.iter()
            .filter(|found| found["level"] != "ok" && found["code"] != "version" && found["code"] != "store-room")
            .collect()
    }
}

fn table<const N: usize>(arguments: [(&str, AmqpValue); N]) -> FieldTable {
    arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn policy(vhost: &Vhost, name: &str, pattern: &str, definition: &Value) {
    let body = json!({"pattern": pattern, "definition": definition, "apply-to": "queues"});
    let path = format!("/api/policies/{}/{name}", vhost.name());
    Broker::get().management().call("PUT", &path, Some(&body)).expect("a policy is made");
}

/// All queues, exchanges, bindings, policies and rights, as the broker exports them; without what is not of this vhost, since
/// other tests run beside this one.
fn definitions(vhost: &Vhost) -> Value {
    let ask = |path: &str| Broker::get().management().call("GET", path, None).expect("it answers");
    json!([
        ask(&format!("/api/definitions/{}", vhost.name())),
        ask(&format!("/api/vhosts/{}/permissions", vhost.name()))
    ])
}

#[test]
fn a_setup_that_is_well_has_only_good_lines_and_stays_as_it_is() {
    let vhost = Vhost::new();
    let user = User::new(&vhost, "", NARROW);
    let mut daemon = Daemon::with_broker(&user.broker(&vhost), JOB);
    let folder = daemon.folder().to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    // Nothing is there yet: all of it will be made, and is not made by looking.
    let before = definitions(&vhost);
    let told = Told::by(&daemon);
    assert!(told.troubles().is_empty(), "{:#?}", told.troubles());
    assert_eq!((told.code, &told.json["schema"], &told.json["reached"]), (Some(0), &json!(1), &json!(true)));
    assert_eq!(definitions(&vhost), before);
    assert!(!daemon.store_path().exists(), "the store is not made either");

    daemon.start();
    vhost.publish("work.dead", "a letter", with_id("a"));
    let before = definitions(&vhost);
    // The broker lists a consumer a moment after it took it.
    daemon.wait_until("all is well", DAEMON_TIMEOUT, |daemon| Told::by(daemon).troubles().is_empty());
    let output = daemon.run(&["check", "--online"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("queue \"work\" of job work: classic, as configured, 0 ready, 1 consumer"), "{text}");
    assert!(!text.contains("only here"), "no password is told\n{text}");
    assert_eq!(definitions(&vhost), before);
    let letter = vhost.get("work.dead").expect("it lies there");
    assert!(!letter.redelivered, "nobody took it out in between");
    assert!(daemon.log().lines().all(|line| !line.contains("WARN")), "{}", daemon.log());
}

#[test]
fn queues_that_are_not_what_the_file_says_are_explained() {
    let vhost = Vhost::new();
    vhost.declare_with("work.urgent", table([("x-max-priority", AmqpValue::LongInt(3))]));
    vhost.declare_with("work.plain", FieldTable::new());
    vhost.declare_with(
        "work.quorum",
        table([("x-queue-type", long_text("quorum")), ("x-delivery-limit", AmqpValue::LongInt(4))]),
    );
    let transient = |queue: &str, options: QueueDeclareOptions| {
        vhost.with_channel(|channel| channel.queue_declare(queue, options).map(drop)).expect("it is declared");
    };
    transient("work.transient", QueueDeclareOptions::default());
    transient(
        "work.fleeting",
        QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() },
    );
    vhost.declare_with(
        "work.lost",
        table([("x-dead-letter-exchange", long_text("nowhere")), ("x-message-ttl", AmqpValue::LongInt(60_000))]),
    );
    vhost.declare("work.bounded");
    policy(&vhost, "bounds", "^work.bounded$", &json!({"max-length": 10, "overflow": "reject-publish"}));
    vhost.declare_with(
        "jobs.letters",
        table([("x-max-length", AmqpValue::LongInt(5)), ("x-message-ttl", AmqpValue::LongInt(1000))]),
    );
    vhost.declare_with("warrend.delay.03", FieldTable::new());
    vhost.declare("warrend.delay.stranded");
    vhost.publish("warrend.delay.stranded", "", with_id("a"));
    vhost.declare("work.slow");
    policy(&vhost, "slow", "^work.slow$", &json!({"message-ttl": 5000}));
    let jobs = "
[jobs.many]
handler.command = [\"true\"]
dead_letter.queue = \"jobs.letters\"
[[jobs.many.queues]]
name = \"work.urgent\"
max_priority = 10
[[jobs.many.queues]]
name = \"work.plain\"
message_ttl = \"1h\"
arguments = { x-single-active-consumer = true }
[[jobs.many.queues]]
name = \"work.quorum\"
[[jobs.many.queues]]
name = \"work.transient\"
[[jobs.many.queues]]
name = \"work.fleeting\"
[[jobs.many.queues]]
name = \"work.lost\"
[[jobs.many.queues]]
name = \"work.bounded\"
[[jobs.many.queues]]
name = \"work.missing\"
declare = \"passive\"
[[jobs.many.queues]]
name = \"work.slow\"
message_ttl = \"7s\"
[jobs.on]
queue = \"on\"
handler.forward = { routes = [{ match = \"a\", exchange = \"absent\" }], otherwise = { routing_key = \"absent.queue\" } }
[jobs.late]
queue = \"late\"
handler = { command = [\"true\"], timeout = \"10m\" }
prefetch = 40
";
    let (user, password) = vhost.credentials();
    let broker = format!("urls = [\"{}\"]\n{}", url_as(&vhost, user, Some(password)), management(&vhost));
    let daemon = Daemon::with_broker(&broker, jobs);
    let before = definitions(&vhost);
    // The API shows a new queue's policy a moment later.
    wait_until("the policies are seen", BROKER_TIMEOUT, || {
        let told = Told::by(&daemon);
        !told.of("overflow").is_empty()
            && told.of("queue-argument").iter().any(|(_, text, _)| text.contains("(policy slow)"))
    });
    let told = Told::by(&daemon);
    assert_eq!(told.code, Some(1));
    let name = vhost.name();
    told.has(
        "queue-argument",
        "warning",
        "\"work.urgent\" has x-max-priority = 3, the file says 10",
        "max_priority = 3",
    );
    told.has(
        "queue-argument",
        "warning",
        "\"work.urgent\"",
        &format!("delete_queue --vhost {name} work.urgent --if-empty"),
    );
    told.has(
        "queue-argument",
        "warning",
        "\"work.plain\" has no x-message-ttl, the file says 3600000",
        "set_policy --vhost",
    );
    told.has(
        "queue-argument",
        "warning",
        "\"work.plain\" has no x-single-active-consumer",
        "remove x-single-active-consumer",
    );
    told.has(
        "queue-argument",
        "warning",
        "\"work.slow\" has x-message-ttl = 5000 (policy slow), the file says 7000",
        "message_ttl = \\\"5s\\\"",
    );
    told.has(
        "queue-type",
        "warning",
        "\"work.quorum\" is a quorum queue, the file says classic",
        "type = \\\"quorum\\\"",
    );
    told.has("delivery-limit", "warning", "\"work.quorum\" gives a message up after 4 deliveries", "drops it");
    told.has("queue-transient", "warning", "\"work.transient\"", "delete_queue");
    told.has("queue-auto-delete", "warning", "\"work.fleeting\"", "delete_queue");
    told.has(
        "dead-letter-exchange",
        "error",
        "\"work.lost\" dead-letters to the exchange \"nowhere\"",
        "declare exchange name=nowhere",
    );
    told.has("message-ttl", "note", "wait in \"work.lost\" for more than 1m go to the exchange \"nowhere\"", "");
    told.has("overflow", "warning", "\"work.bounded\"", "(policy bounds)");
    told.has(
        "queue-missing",
        "error",
        "\"work.missing\" does not exist",
        "declare queue name=work.missing durable=true",
    );
    let letters = told.of("letters-dropped");
    assert_eq!(letters.len(), 2, "{letters:?}");
    told.has(
        "ladder",
        "error",
        "\"warrend.delay.03\" was not made by warrend: its x-message-ttl is none",
        "delete_queue",
    );
    told.has("stranded", "warning", "1 retry lies in", "shovel");
    told.has("forward-target", "error", "the exchange \"absent\"", "declare exchange name=absent");
    told.has("forward-target", "error", "the queue \"absent.queue\"", "declare queue name=absent.queue");
    told.has("consumer-timeout", "warning", "job late: the last of 10 rounds", "prefetch = ");
    assert_eq!(definitions(&vhost), before);
    let text = String::from_utf8_lossy(&daemon.run(&["check", "--online"]).stdout).into_owned();
    let long = |line: &&str| {
        line.chars().count() > 80
            && !line.contains("rabbitmq")
            && !line.starts_with("  job ")
            && !line.starts_with("  file")
    };
    let mut sections = text.split("\nbroker\n").skip(1).flat_map(str::lines);
    assert_eq!(sections.find(long), None, "commands alone may be longer than the screen\n{text}");
}

#[test]
fn a_mend_mends() {
    let vhost = Vhost::new();
    vhost.declare_with("work", table([("x-max-priority", AmqpValue::LongInt(3))]));
    let (user, password) = vhost.credentials();
    let broker = format!("urls = [\"{}\"]\n{}", url_as(&vhost, user, Some(password)), management(&vhost));
    let job = |keys: &str| {
        format!("[jobs.work]\nhandler.command = [\"true\"]\n[[jobs.work.queues]]\nname = \"work\"\n{keys}")
    };
    let mut daemon = Daemon::with_broker(&broker, &job("max_priority = 10"));
    assert_eq!(Told::by(&daemon).of("queue-argument").len(), 1);
    // The first way: the file says what the queue is.
    daemon.set_jobs(&job("max_priority = 3"));
    assert_eq!(Told::by(&daemon).of("queue-argument").len(), 0);
    // The second: the queue is made anew, as the file says, when it is empty. What rabbitmqctl would do is done here over AMQP.
    daemon.set_jobs(&job("max_priority = 10"));
    let options = QueueDeleteOptions { if_unused: true, if_empty: true };
    vhost.with_channel(|channel| channel.queue_delete("work", options).map(drop)).expect("it is empty");
    daemon.start();
    let told = Told::by(&daemon);
    assert_eq!((told.of("queue-argument").len(), told.code), (0, Some(0)), "{:#}", told.json);
}

#[test]
fn rights_that_are_too_narrow_or_too_wide_are_told_with_those_that_fit() {
    let vhost = Vhost::new();
    let narrow = User::new(&vhost, "", ["^work$", "^(work|amq.default)$", "^work$"]);
    let mut daemon = Daemon::with_broker(&narrow.broker(&vhost), JOB);
    let told = Told::by(&daemon);
    assert_eq!(told.code, Some(1));
    told.has("rights-lacking", "error", "configure on \"warrend.delay.00\"", "rabbitmqctl set_permissions --vhost");
    told.has("rights-lacking", "error", "read on \"work.dead\"", &format!(" {} '^(warrend", narrow.0));

    let wide = User::new(&vhost, "administrator", [".*", ".*", ".*"]);
    daemon.set_broker(&wide.broker(&vhost));
    let told = Told::by(&daemon);
    told.has("rights-wide", "warning", "may make and delete, bind, consume every queue", "set_permissions");
    told.has("administrator", "warning", "is an administrator", &format!("rabbitmqctl set_user_tags {}", wide.0));

    // What is told to be enough is enough.
    let mends = told.json["findings"].as_array().expect("a list").iter().find(|found| found["code"] == "rights-wide");
    let command = mends.expect("it was found")["mends"][0]["command"].as_str().expect("a command").to_owned();
    let patterns: Vec<&str> = command.split(' ').rev().take(3).map(|word| word.trim_matches('\'')).collect();
    let [read, write, configure] = patterns[..] else { panic!("{command}") };
    let told_user = User::new(&vhost, "", [configure, write, read]);
    daemon.set_broker(&told_user.broker(&vhost));
    let told = Told::by(&daemon);
    assert!(told.troubles().is_empty(), "{:#?}", told.troubles());
    daemon.start();
    vhost.publish("work", "", with_id("a"));
    daemon.wait_until("it is done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 1);
    daemon.wait_until("all is well", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.success());
}

#[test]
fn what_the_management_api_does_not_tell_is_said() {
    let vhost = Vhost::new();
    let user = User::new(&vhost, "", NARROW);
    let urls = format!("urls = [\"{}\"]\n", url_as(&vhost, &user.0, Some("only here")));
    let mut daemon = Daemon::with_broker(&urls, JOB);
    let told = Told::by(&daemon);
    assert_eq!(told.code, Some(0));
    told.has("management", "note", "no management API is configured", "management_url = ");
    // The daemon's own user, who has no tag.
    daemon.set_broker(&format!("{urls}management_url = \"{}\"\n", management_url()));
    Told::by(&daemon).has(
        "management",
        "warning",
        "may not use the management API: Not management user",
        "set_user_tags",
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    daemon.set_broker(&format!("{urls}management_url = \"http://{closed}\"\n"));
    Told::by(&daemon).has("management", "warning", "no answer from http://127.0.0.1", "rabbitmq-plugins enable");
    let tagged = User::new(&vhost, "management", NARROW);
    let url = management_url().replace("http://", &format!("http://{}:only%20here@", tagged.0));
    daemon.set_broker(&format!("{urls}management_url = \"{url}\"\n"));
    Told::by(&daemon).has("nodes", "note", "with the tag monitoring only", "set_user_tags");
}

#[test]
fn others_that_consume_are_told() {
    let vhost = Vhost::new();
    let user = User::new(&vhost, "", NARROW);
    let mut first = Daemon::with_broker(&user.broker(&vhost), JOB);
    first.start();
    let second_user = url_as(&vhost, &user.0, Some("only here"));
    let without = format!("urls = [\"{second_user}\"]\n");
    let mut second = Daemon::with_broker(&user.broker(&vhost), JOB);
    let pid = first.pid().expect("it runs");
    // Without names there are only numbers.
    second.set_broker(&without);
    Told::by(&second).has(
        "other-consumers",
        "note",
        "\"work\" has 1 consumer though no daemon answers here",
        "list_consumers",
    );
    second.set_broker(&user.broker(&vhost));
    second.start();
    second.wait_until("both are seen", DAEMON_TIMEOUT, |daemon| !Told::by(daemon).of("other-daemons").is_empty());
    let told = Told::by(&second);
    told.has("other-daemons", "warning", "is consumed by 2 daemons", "in its own store");
    assert!(told.of("other-daemons")[0].1.contains(&format!(":{pid}")), "{:?}", told.of("other-daemons"));
    second.set_broker(&without);
    Told::by(&second).has(
        "other-consumers",
        "note",
        "\"work\" has 1 consumer beside the daemon here",
        "list_consumers",
    );
    // One that is paused has none there.
    assert!(second.run(&["pause", "work"]).status.success());
    second.wait_until("it is not taken for ours", DAEMON_TIMEOUT, |daemon| {
        let told = Told::by(daemon);
        told.of("other-consumers")
            .iter()
            .any(|(_, text, _)| text.contains("1 consumer though the daemon here does not"))
    });
    second.kill9();
    second.set_broker(&user.broker(&vhost));
    vhost
        .with_channel(|channel| {
            let _stranger = channel.basic_consume("work", ConsumerOptions::default())?;
            second.wait_until("the stranger is seen", DAEMON_TIMEOUT, |daemon| {
                !Told::by(daemon).of("other-consumers").is_empty()
            });
            Told::by(&second).has("other-consumers", "warning", "\"work\" is also consumed by", "neither deduplicated");
            Ok(())
        })
        .expect("the broker lets us consume");
}

#[test]
fn a_broker_that_is_away_ends_with_69_and_the_rest_is_judged() {
    let vhost = Vhost::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let away = format!("amqp://127.0.0.1:{}/{}", closed.port(), vhost.name());
    let mut daemon = Daemon::with_broker(&format!("urls = [\"{away}\"]"), JOB);
    fs::set_permissions(daemon.folder(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let told = Told::by(&daemon);
    assert_eq!(told.code, Some(69));
    told.has("connection", "error", "cannot reach RabbitMQ at", "");
    assert_eq!(told.of("queue").len(), 0);
    assert_eq!(told.of("sqlite").len(), 1);
    // One of two is missed later.
    daemon.set_broker(&format!("urls = [\"{away}\", \"{}\"]", vhost.url()));
    let told = Told::by(&daemon);
    assert_eq!(told.code, Some(0));
    told.has("connection", "warning", "cannot reach RabbitMQ at", "would be missed");
    told.has("guest", "note", "logs in as guest", "rabbitmqctl add_user warrend && rabbitmqctl set_permissions");
    daemon.set_broker(&format!("urls = [\"{}\"]", url_as(&vhost, "nobody", Some("wrong"))));
    let told = Told::by(&daemon);
    assert_eq!(told.code, Some(69));
    told.has("connection", "error", "check user name and password", "");
    // What `check` warns of without a broker is told here too.
    let warning = "this prefetch keeps at most 3 of 4 handlers busy";
    daemon.set_jobs(&JOB.replace("handler", "prefetch = 3\nhandler"));
    let told = Told::by(&daemon);
    assert_eq!(told.json["configuration"][0]["message"], warning, "{:#}", told.json["configuration"]);
    let output = daemon.run(&["check", "--online"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(warning), "{output:?}");
    // A configuration that is wrong is not tried.
    daemon.set_jobs("[jobs.work]\n");
    let output = daemon.run(&["check", "--online"]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(78), &b""[..]));
}

#[test]
fn a_store_that_others_can_change_is_told() {
    let vhost = Vhost::new();
    let user = User::new(&vhost, "", NARROW);
    let mut daemon = Daemon::with_broker(&user.broker(&vhost), JOB);
    daemon.start();
    assert!(daemon.terminate().success());
    fs::set_permissions(daemon.folder(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(daemon.store_path(), fs::Permissions::from_mode(0o666)).expect("it is ours");
    let told = Told::by(&daemon);
    told.has("store-mode", "warning", "every user of this machine can change", "chmod o= ");
    let codes: BTreeMap<_, _> = told.troubles().iter().map(|found| (found["code"].to_string(), ())).collect();
    assert_eq!(codes.len(), 1, "{codes:?}");
}
