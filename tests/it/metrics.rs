//! Metrics and health over HTTP, of the real daemon: the same numbers as in `status`, and clients of every kind.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use crate::support::node::Node;
use crate::support::skip;
use crate::support::web::{self, Reply, connect, exchange, free_port, get, samples};

/// A daemon with HTTP and these jobs.
fn daemon(vhost: &Vhost, jobs: &str) -> (Daemon, u16) {
    let port = free_port();
    (Daemon::new(vhost, &format!("[http]\nlisten = \"127.0.0.1:{port}\"\n{jobs}")), port)
}

const DISCARD: &str = "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n";

#[test]
fn the_page_agrees_with_status() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let then = "case $WARREND_KEY in dead*) exit 65 ;; again*) [ $WARREND_ATTEMPT -gt 1 ] ;; \
                crash*) [ $WARREND_ATTEMPT -gt 1 ] || kill -9 $$ ;; esac";
    let journal = Journal::new(folder.path(), then);
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nhandler.command = {}\nretry = {{ initial = \"1s\", jitter = 0.0 }}\n{REPLYING}",
        journal.command()
    );
    let (mut daemon, port) = daemon(&vhost, &job);
    let ids = ["a", "b", "c", "a", "dead 1", "dead 2", "again 1", "crash 1", "b"];
    vhost.publish_all("work", ids.iter().map(|id| (Vec::new(), with_id(id).with_timestamp(seconds() - 100))));
    daemon.start();
    daemon.wait_until("all is settled", DAEMON_TIMEOUT, |daemon| {
        let counts = ["done", "dead", "in_flight", "forwarding"].map(|name| daemon.counter("work", name));
        counts == [5, 2, 0, 0] && vhost.ready("work") == Some(0)
    });
    // A broker that was asked half a second ago is not asked again.
    let mut page = String::new();
    daemon.wait_until("both know of the dead letters", DAEMON_TIMEOUT, |daemon| {
        let status = daemon.status().expect("it runs");
        page = get(port, "/metrics").body;
        status["jobs"]["work"]["dead_letter"]["ready"] == 2
            && page.contains("ready_messages{job=\"work\",queue=\"work.dead\"} 2")
    });
    let status = daemon.status().expect("it runs");
    let job = &status["jobs"]["work"];
    let samples = samples(&page);
    let of_job = |name: &str| samples[&format!("warrend_{name}{{job=\"work\"}}")];
    for (metric, field) in [
        ("messages_received_total", "received"),
        ("messages_done_total", "done"),
        ("messages_duplicate_total", "duplicates"),
        ("messages_retried_total", "retried"),
        ("messages_requeued_total", "requeued"),
        ("attempts_crashed_total", "crashed"),
        ("replies_total", "replies"),
        ("replies_lost_total", "replies_lost"),
        ("acks_total", "acks"),
        ("job_reconnects_total", "reconnects"),
        ("job_stalls_total", "stalls"),
        ("job_running", "running"),
        ("job_concurrency", "concurrency"),
        ("job_prefetch", "prefetch"),
        ("job_in_flight_messages", "in_flight"),
        ("job_buffered_messages", "buffered"),
        ("job_owing_messages", "owing"),
        ("job_forwarding_messages", "forwarding"),
        ("job_in_doubt_messages", "in_doubt"),
    ] {
        assert_eq!(Some(of_job(metric)), job[field].as_f64(), "{metric}\n{page}");
    }
    // Seven keys; two copies of retries came back.
    assert_eq!((of_job("messages_received_total"), of_job("messages_duplicate_total")), (11.0, 2.0));
    let dead = |class| samples[&format!("warrend_messages_dead_total{{job=\"work\",class=\"{class}\"}}")];
    assert_eq!((dead("rejected"), dead("failed"), dead("no-key")), (2.0, 0.0, 0.0));
    assert_eq!(job["dead_by_class"], serde_json::json!({ "rejected": 2 }));
    // Nine runs in seven keys, of which five were done; each delivery was settled by one ack or another.
    assert_eq!((of_job("run_seconds_count"), of_job("wait_seconds_count")), (9.0, 9.0));
    assert_eq!((of_job("ack_messages_count"), of_job("ack_messages_sum")), (of_job("acks_total"), 11.0));
    let age = of_job("publish_to_done_seconds_sum") / of_job("publish_to_done_seconds_count");
    assert_eq!(of_job("publish_to_done_seconds_count"), 5.0);
    assert!((100.0..140.0).contains(&age), "the mean age is {age}");
    assert_eq!(of_job("job_up") + of_job("job_connected") + of_job("job_consuming"), 3.0);
    assert_eq!(samples["warrend_store_records"], status["store"]["records"].as_f64().expect("it is known"));
    let commits = samples["warrend_store_commits_total"];
    assert_eq!(Some(commits), status["store"]["commits"].as_f64());
    assert_eq!(samples["warrend_store_commit_seconds_count"], commits);
    assert_eq!(samples["warrend_problems"], 0.0);
    // What /status says is that status too.
    let served: Value = serde_json::from_str(&get(port, "/status").body).expect("it is JSON");
    assert_eq!(served["jobs"]["work"]["queues"], job["queues"]);
    assert_eq!((&served["schema"], &served["healthy"]), (&Value::from(1), &Value::from(true)));
    // What handlers said stays on the socket.
    assert!(job["last_error"].is_string() && served["jobs"]["work"]["last_error"].is_null());
}

/// A second job, which has replies to count.
const REPLYING: &str = "[jobs.replying]\nqueue = \"replying\"\nreply = true\nhandler.command = [\"cat\"]\n";

fn seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("the clock is past 1970").as_secs()
}

#[test]
fn the_figures_of_the_system_are_those_of_the_daemon() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let end = folder.path().join("end");
    let journal = Journal::new(folder.path(), &format!("until [ -e '{}' ]; do sleep 0.02; done", end.display()));
    let job = format!("[jobs.work]\nqueue = \"work\"\nconcurrency = 3\nhandler.command = {}\n", journal.command());
    let (mut daemon, port) = daemon(&vhost, &job);
    daemon.start();
    vhost.publish_all("work", ["a", "b"].map(|id| (Vec::new(), with_id(id))));
    daemon.wait_until("two handlers run", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") == 2);
    let samples = samples(&get(port, "/metrics").body);
    assert_eq!((samples["warrend_children"], daemon.children().len()), (2.0, 2));
    assert!(samples["warrend_children_resident_memory_bytes"] > 100_000.0);
    let status = daemon.status().expect("it runs");
    let process = &status["system"]["process"];
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid().expect("it runs"))).expect("it runs").count();
    assert!((samples["process_threads"] - threads as f64).abs() <= 2.0, "{threads} threads, {process}");
    assert!(samples["process_resident_memory_bytes"] > 1e6 && samples["process_cpu_seconds_total"] > 0.0);
    assert!((samples["process_start_time_seconds"] - seconds() as f64).abs() < 60.0);
    assert!(samples["process_open_fds"] > 10.0 && samples["process_max_fds"] >= samples["process_open_fds"]);
    assert!(samples["warrend_store_disk_free_bytes"] <= samples["warrend_store_disk_size_bytes"]);
    assert_eq!(status["system"]["host"]["memory_bytes"].as_f64(), Some(samples["warrend_host_memory_bytes"]));
    fs::write(end, "").expect("the folder is writable");
    daemon.wait_until("they are gone and counted", DAEMON_TIMEOUT, |_| {
        let samples = web::samples(&get(port, "/metrics").body);
        samples["warrend_children"] == 0.0 && samples.contains_key("warrend_children_cpu_seconds_total")
    });
}

#[test]
fn readiness_follows_the_broker_and_pauses() {
    let node = Node::start();
    let vhost = Vhost::on(node.broker());
    let (mut daemon, port) = daemon(&vhost, DISCARD);
    daemon.start();
    let is = |status: u16, says: &'static str| {
        move |_: &mut Daemon| {
            let reply = get(port, "/readyz");
            reply.status == status && reply.body.contains(says)
        }
    };
    daemon.wait_until("it is ready", DAEMON_TIMEOUT, is(200, "ready"));
    assert!(daemon.run(&["pause", "work", "--reason", "lunch"]).status.success());
    daemon.wait_until("a paused job is not ready", DAEMON_TIMEOUT, is(503, "job work is paused"));
    let paused = samples(&get(port, "/metrics").body);
    assert_eq!(paused["warrend_job_paused{job=\"work\",reason=\"operator\"}"], 1.0);
    assert_eq!(paused["warrend_queue_consuming{job=\"work\",queue=\"work\"}"], 0.0);
    assert!(daemon.run(&["resume", "work"]).status.success());
    daemon.wait_until("it is ready again", DAEMON_TIMEOUT, is(200, "ready"));
    vhost.delete_queue("work");
    vhost.declare("work");
    daemon.wait_until("it consumes the new queue", DAEMON_TIMEOUT, is(200, "ready"));

    node.kill();
    daemon.wait_until("without a broker it is not ready", DAEMON_TIMEOUT, is(503, "job work is connecting"));
    assert_eq!((get(port, "/healthz").status, &*get(port, "/healthz").body), (200, "ok\n"));
    let gone = samples(&get(port, "/metrics").body);
    assert_eq!((gone["warrend_job_up{job=\"work\"}"], gone["warrend_job_connected{job=\"work\"}"]), (1.0, 0.0));
    assert_eq!(gone["warrend_publisher_connected"], 0.0);
    assert!(gone["warrend_problems"] >= 1.0);
    // What only the broker knows is unknown now, which is not 0.
    assert!(!gone.keys().any(|name| name.starts_with("warrend_queue_ready_messages")), "{gone:?}");
    node.start_again();
    daemon.wait_until("with it, it is", BROKER_TIMEOUT, is(200, "ready"));
    assert!(samples(&get(port, "/metrics").body)["warrend_job_reconnects_total{job=\"work\"}"] >= 1.0);
}

#[test]
fn what_is_no_request_is_told_so_and_harms_nobody() {
    let vhost = Vhost::new();
    let (mut daemon, port) = daemon(&vhost, DISCARD);
    daemon.start();
    let check = |request: &[u8], status: u16| {
        let reply = exchange(port, request).unwrap_or_else(|error| panic!("{:?}: {error}", lossy(request)));
        assert_eq!(reply.status, status, "{:?}: {reply:?}", lossy(request));
        assert_eq!(reply.headers["content-length"].parse(), Ok(reply.body.len()), "{reply:?}");
        reply
    };
    check(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    check(b"GET / HTTP/1.0\r\n\r\n", 404);
    check(b"GET /healthz?verbose=1 HTTP/1.0\r\n\r\n", 200);
    check(b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200);
    let post = check(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405);
    assert_eq!(post.headers["allow"], "GET, HEAD");
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400);
    check(b"hello\r\n\r\n", 400);
    check(&[b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 20_000], b"\r\n\r\n"].concat(), 431);
    check(&[b"GET / HTTP/1.1\r\n".as_slice(), &b"X: a\r\n".repeat(100), b"\r\n"].concat(), 431);
    let head = exchange(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is answered");
    assert_eq!((head.status, &*head.body), (200, ""));
    assert!(head.headers["content-length"].parse::<usize>().expect("a number") > 1000);
    assert!(get(port, "/metrics").body.len() > 1000);
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}

#[test]
fn slow_and_many_clients_hold_up_nobody() {
    let vhost = Vhost::new();
    let (mut daemon, port) = daemon(&vhost, DISCARD);
    daemon.start();
    // More than there is room for: the oldest give way.
    let mut slow: Vec<_> = (0..200).map(|_| connect(port).expect("it accepts")).collect();
    for stream in &mut slow {
        // One that had to give way has been hung up on.
        let _ = stream.write_all(b"GET /metrics HT");
    }
    let began = Instant::now();
    assert_eq!(get(port, "/healthz").status, 200);
    assert!(get(port, "/metrics").body.contains("warrend_job_up"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // A hundred at one time share the answers, and no job is taken for silent for that.
    let replies: Vec<Reply> = thread::scope(|scope| {
        let clients: Vec<_> = (0..100).map(|_| scope.spawn(|| get(port, "/metrics"))).collect();
        clients.into_iter().map(|client| client.join().expect("it was answered")).collect()
    });
    for reply in &replies {
        assert_eq!((reply.status, samples(&reply.body)["warrend_job_up{job=\"work\"}"]), (200, 1.0));
    }
    // The last one that came says too little for too long.
    let last = web::read(slow.pop().expect("there are many")).expect("it is told so");
    assert_eq!(last.status, 408, "{last:?}");
    // Those that hang now do not keep it from stopping.
    let _hanging: Vec<_> = (0..20).map(|_| connect(port).expect("it accepts")).collect();
    let began = Instant::now();
    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn it_is_served_while_the_daemon_drains() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let end = folder.path().join("end");
    let journal = Journal::new(folder.path(), &format!("until [ -e '{}' ]; do sleep 0.02; done", end.display()));
    let job = format!("[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n", journal.command());
    let (mut daemon, port) = daemon(&vhost, &job);
    daemon.start();
    vhost.publish("work", "", with_id("slow"));
    daemon.wait_until("it runs", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") == 1);
    daemon.signal(Signal::TERM);
    daemon.wait_until("it drains", DAEMON_TIMEOUT, |_| {
        let samples = samples(&get(port, "/metrics").body);
        samples["warrend_stopping"] == 1.0 && samples["warrend_job_running{job=\"work\"}"] == 1.0
    });
    let ready = get(port, "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("the daemon is stopping") && ready.body.contains("job work is draining"), "{ready:?}");
    assert_eq!(get(port, "/healthz").status, 200);
    fs::write(end, "").expect("the folder is writable");
    assert_eq!(daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(0));
    assert!(connect(port).is_err(), "nobody listens any more");
}

#[test]
fn an_address_that_is_taken_is_told_before_anything_is_consumed() {
    let vhost = Vhost::new();
    vhost.declare("work");
    vhost.publish("work", "", with_id("waits"));
    let (mut daemon, port) = daemon(&vhost, DISCARD);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    daemon.spawn(&[]);
    assert_eq!(daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(1));
    let log = daemon.log();
    let told = format!("warrend: cannot listen on 127.0.0.1:{port} for HTTP: Address already in use");
    assert!(log.contains(&told) && log.contains("set another http.listen"), "{log}");
    assert_eq!(vhost.ready("work"), Some(1));
    assert!(!daemon.store_path().exists(), "nothing was opened");
}

/// With each kind of job whose metrics the others do not have.
#[test]
fn the_page_is_what_prometheus_and_the_documents_expect() {
    let vhost = Vhost::new();
    let batches = "[jobs.batches]\nqueue = \"batches\"\nhandler.worker = [\"cat\"]\n";
    let jobs = format!("{DISCARD}{REPLYING}{batches}[[alerts]]\nwhen = \"ready > 1000000\"\n");
    let (mut daemon, port) = daemon(&vhost, &jobs);
    daemon.start();
    daemon.wait_until("the alert was looked at", DAEMON_TIMEOUT, |_| {
        get(port, "/metrics").body.contains("warrend_alert_firing{")
    });
    let plain = get(port, "/metrics");
    assert_eq!(plain.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let asked = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n\r\n";
    let open = exchange(port, asked.as_bytes()).expect("it is answered");
    assert_eq!(open.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.ends_with("# EOF\n") && !plain.body.contains("# EOF"));
    let names = |page: &str| -> BTreeSet<String> {
        samples(page).into_keys().map(|name| name.split('{').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&plain.body), names(&open.body));

    let known = names(&plain.body);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for file in ["grafana-dashboard.json", "prometheus-alerts.yml"] {
        let text = fs::read_to_string(config.join(file)).expect("it is part of the project");
        let named = metrics_in(&text);
        let missing: Vec<_> = named.difference(&known).collect();
        assert!(named.len() > 10 && missing.is_empty(), "{file} names metrics that no page has: {missing:?}");
    }
    let documented = fs::read_to_string(config.join("../docs/METRICS.md")).expect("it is part of the project");
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // The other table has the paths.
    let documented: BTreeSet<String> = rows.filter(|name| !name.starts_with('/')).map(str::to_owned).collect();
    let whole = |name: &String| -> String {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.into_iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        base.to_owned()
    };
    let known: BTreeSet<String> = known.iter().map(whole).collect();
    assert_eq!(documented, known, "docs/METRICS.md is not what the page has");
    check_with_promtool(&plain.body);
}

/// The names of our metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let is_ours = |word: &&str| {
        let known = ["process_cpu", "process_resident", "process_open", "process_max", "process_start"];
        word.starts_with("warrend_") || known.iter().any(|prefix| word.starts_with(prefix))
    };
    words.filter(is_ours).map(str::to_owned).collect()
}

/// Where it is installed, and always in CI: `make check-metrics` sees to that.
fn check_with_promtool(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else { return skip("promtool") };
    let mut stdin = promtool.stdin.take().expect("it was asked for");
    stdin.write_all(page.as_bytes()).expect("promtool reads it");
    drop(stdin);
    let output = promtool.wait_with_output().expect("a child can be waited for");
    let said = [lossy_all(&output.stdout), lossy_all(&output.stderr)].concat();
    assert!(output.status.success() && said.is_empty(), "promtool: {said}");
}

fn lossy_all(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
