//! No secret reaches what others read: the log at its loudest, what the commands print, the control socket, the metrics, what a
//! handler is given, the list of processes, dead letters and the store. Each way to give a password has a password of its own.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::web;

/// In the URL, with a character that URLs escape.
const IN_URL: &str = "canary-url-5b1e";
/// In the environment, for the URL of another host.
const IN_VARIABLE: &str = "canary-variable-80aa";
/// In `password_file`.
const IN_FILE: &str = "canary-file-c27d";
/// In a header of the `http` handler, in its address, and in its `secret_file`.
const OF_WEBHOOK: [&str; 3] =
    ["canary-header-19f0", "canary-address-7d3c", "Y2FuYXJ5LXNpZ25hdHVyZS00MmJlLWxvbmctZW5vdWdo"];

/// The same of an alert's webhook, and in `management_url`.
const OF_ALERT: [&str; 3] =
    ["canary-alert-header-3d60", "canary-alert-address-a8f1", "Y2FuYXJ5LWFsZXJ0LXNlY3JldC0wYWY3LWxvbmctZW5vdWdo"];
const OF_MANAGEMENT: &str = "canary-management-64c9";

/// None of them may be found, nor what they begin with.
const ALL: [&str; 3] = ["canary-", "Y2FuYXJ5", "canary%2D"];

#[track_caller]
fn assert_none(what: &str, text: &[u8]) {
    for secret in ALL {
        let found = text.windows(secret.len()).position(|window| window == secret.as_bytes());
        if let Some(at) = found {
            let near = &text[at.saturating_sub(200)..text.len().min(at + 60)];
            panic!("{what} has a secret: …{}…", String::from_utf8_lossy(near));
        }
    }
}

fn said(output: &Output) -> Vec<u8> {
    [&*output.stdout, &*output.stderr].concat()
}

/// A user of the broker with a password of its own, gone with the test.
struct User(String);

impl User {
    fn new(vhost: &Vhost, password: &str) -> Self {
        let user = Self(format!("{}-{password}", vhost.name()).replace("canary", "user"));
        let rights = json!({"configure": ".*", "write": ".*", "read": ".*"});
        call("PUT", &format!("/api/users/{}", user.0), Some(&json!({"password": password, "tags": ""})));
        call("PUT", &format!("/api/permissions/{}/{}", vhost.name(), user.0), Some(&rights));
        user
    }

    fn url(&self, vhost: &Vhost, password: &str) -> String {
        let password = if password.is_empty() { String::new() } else { format!(":{password}") };
        format!("amqp://{}{password}@{}/{}", self.0, vhost.broker().address(), vhost.name())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Nothing else depends on it.
        let _ = Broker::get().management().call("DELETE", &format!("/api/users/{}", self.0), None);
    }
}

fn call(method: &str, path: &str, body: Option<&Value>) {
    Broker::get().management().call(method, path, body).expect("the broker does as it is told");
}

/// What the handler was given, and what it sees of the daemon's and its own command line and descriptors.
const LOOK: &str = "{ env; tr '\\\\0' '\\\\n' </proc/$$/environ; cat /proc/[0-9]*/cmdline; ls -l /proc/$$/fd; cat <&3; } >given 2>/dev/null; echo no >&2; exit 65";

/// An alert, and two jobs: one whose handler looks around and fails, and one that posts to where nobody listens.
fn jobs(folder: &std::path::Path, http: u16) -> String {
    let secret = |name: &str, secret: &str| {
        let path = folder.join(name);
        fs::write(&path, format!("whsec_{secret}\n")).expect("the folder is writable");
        path
    };
    let secret_file = secret("webhook-secret", OF_WEBHOOK[2]);
    let closed = web::free_port();
    // It fires at once, and finds nobody either.
    let alert = format!(
        "[[alerts]]\nname = \"dead\"\nwhen = \"store_bytes > 1B\"\nfor = \"0s\"\nseverity = \"info\"\n\
         webhook = \"http://127.0.0.1:{closed}/{}\"\nheaders = {{ Authorization = \"Bearer {}\" }}\nsecret_file = {:?}\n",
        OF_ALERT[1],
        OF_ALERT[0],
        secret("alert-secret", OF_ALERT[2])
    );
    format!(
        "[http]\nlisten = \"127.0.0.1:{http}\"\n{alert}\
         [jobs.work]\nqueue = \"work\"\n[jobs.work.handler]\ncommand = [\"/bin/sh\", \"-c\", \"{LOOK}\"]\ncwd = {folder:?}\n\
         [jobs.hook]\nqueue = \"hook\"\nretry.max_attempts = 1\n[jobs.hook.handler]\n\
         http = \"http://127.0.0.1:{closed}/{}\"\nheaders = {{ Authorization = \"Bearer {}\" }}\nsecret_file = {secret_file:?}\n",
        OF_WEBHOOK[1], OF_WEBHOOK[0]
    )
}

/// Everything that the commands print.
const COMMANDS: [&[&str]; 20] = [
    &["check"],
    &["check", "--format", "json"],
    &["check", "--online"],
    &["check", "--online", "--format", "json"],
    &["alerts"],
    &["alerts", "--json"],
    &["alerts", "--test", "dead"],
    &["audit", "list"],
    &["status"],
    &["status", "--json"],
    &["explain", "one"],
    &["explain", "one", "--json"],
    &["dead", "list", "work"],
    &["dead", "list", "hook", "--json"],
    &["dead", "show", "work", "--index", "1"],
    &["dead", "show", "hook", "--index", "1", "--json"],
    &["dead", "export", "hook"],
    &["store", "stats"],
    &["publish", "work"],
    &["pause", "nowhere"],
];

/// Runs everything over a message for each job and looks at all that comes of it.
fn run_and_look(way: &str, daemon: &mut Daemon, configuration: (&str, &str), vhost: &Vhost, http: u16) {
    daemon.env("RUST_LOG", "trace");
    daemon.start();
    for queue in ["work", "hook"] {
        vhost.publish(queue, "body", with_id("one"));
        let dead = format!("{queue}.dead");
        daemon.wait_until("it is dead", DAEMON_TIMEOUT * 2, |_| vhost.ready(&dead) == Some(1));
    }
    daemon.wait_until("the alert is not taken", DAEMON_TIMEOUT * 2, |daemon| {
        daemon.ask("{\"command\":\"alerts\"}").is_some_and(|told| told["alerts"][0]["notified"]["taken"] == false)
    });
    for command in COMMANDS {
        let output = daemon.run(command);
        assert!(!said(&output).is_empty() || command[0] == "publish", "{way}: {command:?} says nothing: {output:?}");
        assert_none(&format!("{way}: {command:?}"), &said(&output));
    }
    let status = daemon.ask("{\"command\":\"status\"}").expect("it answers");
    assert_none(&format!("{way}: the control socket"), status.to_string().as_bytes());
    for path in ["/metrics", "/status", "/healthz", "/readyz", "/nowhere"] {
        assert_none(&format!("{way}: {path}"), web::get(http, path).body.as_bytes());
    }
    // What a reload tells of a secret that has changed.
    let (broker, jobs) = configuration;
    let changed = jobs.replace(OF_WEBHOOK[0], "canary-header-changed").replace(OF_ALERT[0], "canary-alert-changed");
    daemon.set_jobs(&changed);
    let reloaded = daemon.run(&["reload"]);
    let says = String::from_utf8_lossy(&said(&reloaded)).into_owned();
    assert!(reloaded.status.success() && says.contains("jobs.hook") && says.contains("alerts"), "{reloaded:?}");
    assert_none(&format!("{way}: reload"), &said(&reloaded));
    daemon.set_broker(&broker.replace(IN_URL, "canary-url-changed"));
    let reloaded = daemon.run(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
    assert_none(&format!("{way}: reload"), &said(&reloaded));
    let given = fs::read(daemon.folder().join("given")).expect("the handler has looked around");
    assert!(given.windows(11).any(|window| window == b"WARREND_JOB"), "{}", String::from_utf8_lossy(&given));
    assert_none(&format!("{way}: what the handler sees"), &given);
    let pid = daemon.pid().expect("it runs");
    assert_none(&format!("{way}: the command line"), &fs::read(format!("/proc/{pid}/cmdline")).expect("it lives"));
    assert!(daemon.terminate().success());
    for queue in ["work.dead", "hook.dead"] {
        for letter in vhost.drain(queue) {
            assert_none(&format!("{way}: a dead letter"), format!("{:?}", letter.properties).as_bytes());
        }
    }
    for entry in fs::read_dir(daemon.folder()).expect("it is there").flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("warrend.db") {
            assert_none(&format!("{way}: {name:?}"), &fs::read(entry.path()).expect("it is readable"));
        }
    }
    let log = daemon.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    assert_none(&format!("{way}: the log"), log.as_bytes());
}

#[test]
fn no_password_that_is_right_is_shown_anywhere() {
    for (way, secret) in [("url", IN_URL), ("variable", IN_VARIABLE), ("file", IN_FILE)] {
        let vhost = Vhost::new();
        let user = User::new(&vhost, secret);
        let http = web::free_port();
        let mut daemon = Daemon::with_broker("urls = []", "");
        let broker = match way {
            "url" => format!("urls = [\"{}\"]", user.url(&vhost, secret)),
            "variable" => {
                daemon.env("BROKER_PASSWORD", secret);
                format!("urls = [\"{}\"]", user.url(&vhost, "${BROKER_PASSWORD}"))
            }
            _ => {
                let file = daemon.folder().join("password");
                fs::write(&file, format!("{secret}\n")).expect("the folder is writable");
                format!("urls = [\"{}\"]\npassword_file = {file:?}", user.url(&vhost, ""))
            }
        };
        // Nobody is there; the doctor says so.
        let management = format!("http://user:{OF_MANAGEMENT}@127.0.0.1:{}", web::free_port());
        let broker = format!("{broker}\nmanagement_url = {management:?}");
        daemon.set_broker(&broker);
        let jobs = jobs(daemon.folder(), http);
        daemon.set_jobs(&jobs);
        run_and_look(way, &mut daemon, (&broker, &jobs), &vhost, http);
    }
}

#[test]
fn no_password_that_is_wrong_or_reaches_nobody_is_shown() {
    let vhost = Vhost::new();
    let user = User::new(&vhost, "another");
    let nobody = format!("amqp://{}:{IN_URL}@127.0.0.1:{}/", user.0, web::free_port());
    for (way, url, says) in
        [("wrong", user.url(&vhost, IN_URL), "user name and password"), ("nobody", nobody, "cannot reach")]
    {
        let http = web::free_port();
        let mut daemon = Daemon::with_broker(&format!("urls = [\"{url}\"]"), "");
        let jobs = jobs(daemon.folder(), http);
        daemon.set_jobs(&jobs);
        daemon.env("RUST_LOG", "trace");
        daemon.spawn(&[]);
        daemon.wait_until("it is told", DAEMON_TIMEOUT * 2, |daemon| daemon.log().contains(says));
        for command in
            [&["status"][..], &["status", "--json"], &["publish", "work"], &["dead", "list", "work"], &["check"]]
        {
            assert_none(&format!("{way}: {command:?}"), &said(&daemon.run(command)));
        }
        assert_none(&format!("{way}: /metrics"), web::get(http, "/metrics").body.as_bytes());
        assert!(daemon.terminate().success());
        assert_none(&format!("{way}: the log"), daemon.log().as_bytes());
    }
}

/// The line of a fault is shown with a caret, and the URL stands in it.
#[test]
fn no_report_of_a_faulty_configuration_shows_one() {
    let daemon = Daemon::with_broker(
        &format!("urls = [\"http://user:{IN_URL}@127.0.0.1\", \"amqp://user:${{BROKER_PASSWORD}}@127.0.0.1:x\"]"),
        &format!(
            "[jobs.hook]\nqueue = \"hook\"\n[jobs.hook.handler]\nhttp = \"ftp://127.0.0.1/{}\"\n\
             headers = {{ Authorization = \"Bearer {}\\u0000\" }}\n",
            OF_WEBHOOK[1], OF_WEBHOOK[0]
        ),
    );
    let mut daemon = daemon;
    daemon.env("BROKER_PASSWORD", IN_VARIABLE);
    for command in [&["check"][..], &["check", "--format", "json"], &["run"], &["status"], &["publish", "hook"]] {
        let output = daemon.run(command);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(String::from_utf8_lossy(&said(&output)).contains("warrend.toml"), "{output:?}");
        assert_none(&format!("{command:?}"), &said(&output));
    }
}

/// A key that cannot be read is told without what stands in its file.
#[test]
fn no_key_of_tls_is_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, kind: &str| {
        let path = folder.path().join(name);
        let text = format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", OF_WEBHOOK[2]);
        fs::write(&path, text).expect("the folder is writable");
        path
    };
    let (cert, key) = (file("cert.pem", "CERTIFICATE"), file("key.pem", "PRIVATE KEY"));
    // Both are read once somebody takes the connection.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let urls = format!("urls = [\"amqps://user:{IN_URL}@127.0.0.1:{port}/\"]");
    let broker = format!("{urls}\ntls = {{ cert_file = {cert:?}, key_file = {key:?} }}");
    let mut daemon = Daemon::with_broker(&broker, "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n");
    let output = daemon.run(&["check"]);
    assert!(!output.status.success(), "{output:?}");
    assert_none("check", &said(&output));
    daemon.env("RUST_LOG", "trace");
    daemon.spawn(&[]);
    daemon.wait_until("it is told", DAEMON_TIMEOUT * 2, |daemon| daemon.log().contains("key.pem"));
    assert_none("status", &said(&daemon.run(&["status"])));
    daemon.kill9();
    assert_none("the log", daemon.log().as_bytes());
}

/// A core would hold every password that the daemon knows.
#[test]
fn a_daemon_that_crashes_leaves_no_core() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n");
    daemon.set_limits("-c unlimited");
    daemon.start();
    let pid = daemon.pid().expect("it runs");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    assert_eq!(cores.and_then(|line| line.split_whitespace().next()), Some("0"), "{limits}");
}
