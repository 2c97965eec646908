//! Start, stop, and what is left when it did not go well: drains, signals, crashes, second instances, systemd.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use crate::support::slow::Slow;
use crate::support::wait_until;
use crate::support::web::{connect, free_port};

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    test_kill_process(pid.expect("the journal holds process ids")).is_ok()
}

#[test]
fn a_drain_gives_back_what_waits_at_once_and_lets_handlers_finish() {
    let mut scene = Slow::new("concurrency = 2\nprefetch = 10");
    scene.daemon.start();
    scene.publish((0..10).map(|n| format!("slow {n}")));
    scene.wait("running", 2);
    scene.wait("buffered", 8);
    scene.daemon.signal(Signal::TERM);
    scene.wait_ready(8);
    assert!(scene.daemon.is_alive(), "two handlers run");
    let status = scene.daemon.status().expect("it still answers");
    assert_eq!(status["state"], "stopping");
    assert_eq!(status["jobs"]["work"]["state"], "draining");
    assert_eq!(status["jobs"]["work"]["running"], 2);
    scene.let_slow_ones_end();
    assert_eq!(scene.daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(0));
    assert_eq!(scene.vhost.ready("work"), Some(8));
    assert_eq!(scene.journal.len(), 2);
    scene.finish();
    scene.assert_one_first_attempt_each(10);
}

#[test]
fn a_handler_that_outlives_the_shutdown_timeout_is_ended_and_its_message_goes_back() {
    let mut scene = Slow::new("[shutdown]\ntimeout = \"1s\"");
    scene.daemon.start();
    scene.publish(["slow".to_owned()]);
    scene.wait("running", 1);
    let began = Instant::now();
    scene.daemon.signal(Signal::INT);
    assert_eq!(scene.daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1), "it had its time");
    assert_eq!(scene.vhost.ready("work"), Some(1));
    let first = scene.journal.runs()["slow"][0].clone();
    assert!(!is_alive(first.pid), "its handler lives on");
    scene.finish();
    // It ran again, and it still was its first attempt.
    assert_eq!(scene.journal.attempts("slow"), [1, 1]);
    assert_eq!(scene.vhost.ready("work"), Some(0));
}

#[test]
fn a_second_signal_ends_at_once_and_what_is_finished_is_recorded() {
    let mut scene = Slow::new("ack = { batch = 1000, interval = \"10s\" }");
    scene.daemon.start();
    scene.publish(["slow".to_owned(), "quick".to_owned()]);
    scene.wait("running", 1);
    scene.wait("done", 1);
    assert_eq!(scene.daemon.counter("work", "acks"), 0);
    let began = Instant::now();
    scene.daemon.signal(Signal::TERM);
    scene.daemon.wait_until("it drains", DAEMON_TIMEOUT, |daemon| daemon.log().contains("stopping"));
    scene.daemon.signal(Signal::TERM);
    assert_eq!(scene.daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "the shutdown timeout of 25 s was not waited for");
    scene.finish();
    assert_eq!(scene.journal.attempts("slow"), [1, 1]);
    assert_eq!(scene.journal.attempts("quick"), [1]);
    assert_eq!(scene.vhost.ready("work"), Some(0));
}

#[test]
fn handlers_do_not_outlive_a_killed_daemon() {
    let mut scene = Slow::new("concurrency = 3");
    scene.daemon.start();
    scene.publish((0..3).map(|n| format!("slow {n}")));
    wait_until("three handlers run", DAEMON_TIMEOUT, || scene.journal.len() == 3);
    scene.daemon.kill9();
    let runs: Vec<_> = scene.journal.lines();
    wait_until("the handlers are gone", DAEMON_TIMEOUT, || runs.iter().all(|(_, run)| !is_alive(run.pid)));
    scene.wait_ready(3);
    scene.finish();
    assert!(
        scene.journal.runs().values().all(|runs| runs.len() == 2),
        "they ran when the daemon died, so they run once more"
    );
}

#[test]
fn until_empty_waits_for_the_delay_ladder_and_for_nothing_else() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), "[ $WARREND_ATTEMPT -gt 1 ]");
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nhandler.command = {}\nretry.initial = \"3s\"\nretry.jitter = 0.0\n\
         [jobs.idle]\nqueue = \"idle\"\nhandler.discard = true\n",
        journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    vhost.publish("work", "", with_id("a"));
    daemon.spawn(&["--until-empty"]);
    assert_eq!(daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(0));
    assert_eq!(journal.attempts("a"), [1, 2]);
    assert_eq!(vhost.ready("work"), Some(0));
    assert_eq!(vhost.ready("work.dead"), Some(0));
    daemon.spawn(&["--until-empty"]);
    assert_eq!(daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(0));
}

/// Those that handle messages are in the row `thread-panic` of the chaos tests.
#[test]
fn a_panic_of_a_thread_that_only_answers_ends_the_daemon_for_a_new_start() {
    let port = free_port();
    let jobs = format!(
        "[http]\nlisten = \"127.0.0.1:{port}\"\n[[alerts]]\nname = \"many\"\nwhen = \"ready > 1000\"\n\
         [jobs.work]\nqueue = \"work\"\nhandler.discard = true\n"
    );
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &jobs);
    for (place, thread) in
        [("control-asked", "control"), ("alerts-look", "alerts"), ("web-accepted", "web"), ("web-asked", "web:ask")]
    {
        daemon.env("WARREND_FAILPOINT", &format!("{place}::panic"));
        daemon.spawn(&[]);
        match thread {
            // It does not answer whoever asks.
            "control" => wait_until("it is asked", DAEMON_TIMEOUT, || daemon.run(&["status"]).status.code() == Some(1)),
            "alerts" => {}
            // It hangs up on whoever asks.
            _ => wait_until("it is asked", DAEMON_TIMEOUT, || {
                connect(port).and_then(|mut stream| stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")).is_ok()
            }),
        }
        let exit = daemon.wait_exit(DAEMON_TIMEOUT);
        assert_eq!(exit.code(), Some(70), "{place}: {}", daemon.log_tail());
        let told = format!("the failpoint {place} was told to panic");
        assert!(daemon.log().contains(&told), "{place}: {}", daemon.log_tail());
    }
}

/// Such as by whoever tidies up temporary files.
#[test]
fn a_daemon_whose_socket_was_removed_ends_all_the_same() {
    let mut scene = Slow::new("");
    scene.daemon.start();
    fs::remove_file(scene.daemon.socket_path()).expect("it is there");
    assert_eq!(scene.daemon.terminate().code(), Some(0), "{}", scene.daemon.log_tail());
    assert!(!scene.daemon.log().contains("is left"), "{}", scene.daemon.log_tail());
}

/// A client that says nothing holds the control thread for longer than the daemon waits for it.
#[test]
fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let mut scene = Slow::new("");
    scene.daemon.start();
    let client = UnixStream::connect(scene.daemon.socket_path()).expect("it listens");
    assert_eq!(scene.daemon.terminate().code(), Some(0), "{}", scene.daemon.log_tail());
    drop(client);
}

/// Under another configuration, with a control socket of its own.
#[test]
fn another_daemon_cannot_share_a_store() {
    let mut scene = Slow::new("");
    scene.daemon.start();
    let mut second = Daemon::new(&scene.vhost, "[jobs.other]\nqueue = \"other\"\nhandler.discard = true\n");
    second.store_at(scene.daemon.store_path().to_owned());
    second.spawn(&[]);
    assert_eq!(second.wait_exit(DAEMON_TIMEOUT).code(), Some(75));
    let pid = scene.daemon.pid().expect("it runs");
    let log = second.log();
    assert!(log.contains(&format!("process {pid}")), "{log}");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let mut scene = Slow::new("");
    scene.finish();
    let store = rusqlite::Connection::open(scene.daemon.store_path()).expect("it is a store");
    store.pragma_update(None, "user_version", 4711).expect("it is writable");
    drop(store);
    scene.publish(["a".to_owned()]);
    scene.daemon.spawn(&[]);
    assert_eq!(scene.daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(74));
    let log = scene.daemon.log();
    let told = log.contains("schema version 4711") && log.contains("newer version");
    assert!(told, "{log}");
    assert_eq!(scene.vhost.ready("work"), Some(1), "nothing was consumed");
}

#[test]
fn systemd_hears_of_ready_alive_and_stopping() {
    let mut scene = Slow::new("");
    let path = scene.daemon.folder().join("notify");
    let socket = UnixDatagram::bind(&path).expect("the folder takes a socket");
    let timeout = Some(Duration::from_millis(50));
    socket.set_read_timeout(timeout).expect("it is above zero");
    scene.daemon.env("NOTIFY_SOCKET", &path.display().to_string());
    scene.daemon.env("WATCHDOG_USEC", "600000");
    let mut heard = Vec::new();
    let mut listen = |daemon: &mut Daemon, what: &str, enough: &dyn Fn(&[String]) -> bool| {
        daemon.wait_until(what, DAEMON_TIMEOUT, |_| {
            let mut buffer = [0; 4096];
            if let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                heard.extend(text.lines().map(str::to_owned));
            }
            enough(&heard)
        });
    };
    let has = |heard: &[String], line: &str| heard.iter().any(|said| said == line);
    scene.daemon.spawn(&[]);
    listen(&mut scene.daemon, "READY and a status", &|heard| {
        has(heard, "READY=1") && has(heard, "STATUS=running 1 jobs")
    });
    let began = Instant::now();
    listen(&mut scene.daemon, "the watchdog is fed", &|heard| {
        heard.iter().filter(|line| *line == "WATCHDOG=1").count() >= 4
    });
    // It is due every 600 ms; systemd advises half of that.
    assert!(began.elapsed() < Duration::from_millis(4 * 600), "{began:?}");
    scene.daemon.signal(Signal::TERM);
    listen(&mut scene.daemon, "STOPPING", &|heard| has(heard, "STOPPING=1"));
    // Left unread, it would be full after ten words, and whoever says the next one waits.
    drop(socket);
    assert!(scene.daemon.wait_exit(DAEMON_TIMEOUT).success());
}

#[test]
fn the_broker_knows_each_connection_by_its_name() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "[jobs.thumbs]\nqueue = \"work\"\nhandler.discard = true\n");
    daemon.start();
    let path = format!("/api/vhosts/{}/connections", vhost.name());
    let pid = daemon.pid().expect("it runs");
    let name = |purpose: &str| format!(":{pid} {purpose}");
    daemon.wait_until("both connections bear their names", BROKER_TIMEOUT, |_| {
        let Ok(Value::Array(connections)) = vhost.broker().management().call("GET", &path, None) else { return false };
        let properties: Vec<_> = connections.iter().map(|connection| &connection["client_properties"]).collect();
        ["job:thumbs", "publisher"].iter().all(|purpose| {
            properties.iter().any(|is| {
                let named = is["connection_name"].as_str();
                is["product"] == "warrend"
                    && named.is_some_and(|named| named.starts_with("warrend@") && named.ends_with(&name(purpose)))
            })
        })
    });
}
