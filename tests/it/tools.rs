//! The tests' own tools do what the other tests rely on.

use std::process::Command;
use std::time::Duration;

use crate::support::broker::{BROKER_TIMEOUT, Broker, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::{Journal, Run};
use crate::support::management::escape;
use crate::support::node::Node;
use crate::support::wait_until;

#[test]
fn a_vhost_takes_messages_and_gives_them_back() {
    let vhost = Vhost::new();
    vhost.declare("letters");
    vhost.publish_all("letters", (0..2500).map(|n| (format!("body {n}").into_bytes(), with_id(&format!("id {n}")))));
    assert_eq!(vhost.ready("letters"), Some(2500));
    assert_eq!(vhost.consumers("letters"), Some(0));

    let first = vhost.get("letters").expect("a message waits");
    assert_eq!(first.body, b"body 0");
    assert_eq!(first.properties.message_id().as_deref(), Some("id 0"));
    assert_eq!(vhost.drain("letters").len(), 2499);

    assert_eq!(vhost.queues(), ["letters"]);
    vhost.delete_queue("letters");
    assert_eq!(vhost.ready("letters"), None, "a missing queue is told from an empty one");
}

#[test]
fn a_dropped_vhost_is_gone() {
    let vhost = Vhost::new();
    let path = format!("/api/vhosts/{}", vhost.name());
    let management = Broker::get().management();
    assert!(management.call("GET", &path, None).is_ok());
    drop(vhost);
    let why = management.call("GET", &path, None).expect_err("it is gone");
    assert!(why.contains("status 404"), "{why}");
}

#[test]
fn connections_of_a_vhost_can_be_closed() {
    let vhost = Vhost::new();
    let mut stranger = amiquip::Connection::insecure_open(&vhost.url()).expect("the vhost lets us in");
    let channel = stranger.open_channel(None).expect("a channel opens");
    wait_until("the broker lists the connection", BROKER_TIMEOUT, || vhost.connections().len() == 1);
    assert_eq!(vhost.close_connections(), 1);
    wait_until("the connection is closed", BROKER_TIMEOUT, || channel.qos(0, 1, false).is_err());
    vhost.declare("still.open");
}

#[test]
fn the_journal_holds_every_run() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), "[ \"$WARREND_ATTEMPT\" -gt 1 ]");
    let run = |key: &str, attempt: &str| {
        let command: Vec<String> =
            serde_json::from_str(&journal.command()).expect("a TOML array of plain strings is JSON");
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .envs([("WARREND_KEY", key), ("WARREND_ATTEMPT", attempt)])
            .spawn()
            .expect("the handler runs");
        (child.id(), child.wait().expect("it ends").success())
    };
    let (first, failed) = run("a key with spaces", "1");
    let (second, passed) = run("a key with spaces", "2");
    run("", "1");
    assert!(!failed && passed);
    assert_eq!(journal.len(), 3);
    assert_eq!(journal.runs()["a key with spaces"], [Run { attempt: 1, pid: first }, Run { attempt: 2, pid: second }]);
    assert!(journal.runs().contains_key(""));
}

#[test]
fn a_private_node_comes_back_with_its_messages() {
    let node = Node::start();
    let vhost = Vhost::on(node.broker());
    vhost.declare("kept");
    vhost.publish("kept", "before the crash", with_id("1"));
    node.kill();
    assert!(std::net::TcpStream::connect(node.broker().address()).is_err(), "a killed node takes no connection");
    node.start_again();
    assert_eq!(vhost.get("kept").map(|delivery| delivery.body), Some(b"before the crash".to_vec()));
}

#[test]
fn a_connection_name_is_one_path_segment() {
    assert_eq!(escape("127.0.0.1:1 -> [::1]:2/ü"), "127%2E0%2E0%2E1%3A1%20%2D%3E%20%5B%3A%3A1%5D%3A2%2F%C3%BC");
}

#[test]
#[should_panic(expected = "not within 20ms: pigs fly")]
fn waiting_in_vain_fails_with_what_was_waited_for() {
    wait_until("pigs fly", Duration::from_millis(20), || false);
}

#[test]
fn a_daemon_starts_handles_and_goes() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "");
    let journal = Journal::new(daemon.folder(), "");
    let job = format!("[jobs.mail]\nqueue = \"mail\"\n\n[jobs.mail.handler]\ncommand = {}\n", journal.command());
    daemon.set_jobs(&job);
    daemon.start();
    vhost.publish_all("mail", (0..20).map(|n| (Vec::new(), with_id(&format!("id {n}")))));
    daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| daemon.counter("mail", "done") == 20);
    assert_eq!(journal.len(), 20);
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{}", daemon.log_tail());
    assert_eq!(vhost.ready("mail"), Some(0));
    assert!(daemon.status().is_none(), "nobody answers any more");

    daemon.start();
    daemon.kill9();
    assert!(!daemon.is_alive());
}
