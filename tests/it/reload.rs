//! `warrend reload` and SIGHUP: what changed restarts without losing or doubling a message, all else goes on, and what is faulty
//! changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amiquip::AmqpProperties;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::scene::{QUEUE, Scene, Setup};
use crate::support::slow::Slow;
use crate::support::wait_until;

/// A job whose messages need no handler, beside others that change.
const STEADY: &str = "[jobs.steady]\nqueue = \"steady\"\nhandler.discard = true\n";
/// One that comes and goes.
const GUEST: &str = "[jobs.guest]\nqueue = \"guest\"\nhandler.discard = true\n";

/// Runs `warrend` with these arguments: exit code, standard output, standard error.
fn run(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = daemon.run(arguments);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A reload that goes well; gives what it prints.
fn reload(daemon: &Daemon) -> String {
    let (code, out, err) = run(daemon, &["reload"]);
    assert_eq!(code, Some(0), "{out}{err}\n{}", daemon.log_tail());
    out
}

/// The consumer tag of each of these queues. The management API lists them a while after they begin.
fn tags(vhost: &Vhost, queues: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    wait_until("each queue has a consumer", BROKER_TIMEOUT, || {
        found = vhost.consumer_tags();
        found.retain(|queue, tags| queues.contains(&&**queue) && tags.len() == 1);
        found.len() == queues.len()
    });
    found.into_iter().map(|(queue, mut tags)| (queue, tags.remove(0))).collect()
}

fn problems(daemon: &Daemon) -> String {
    daemon.status().map_or_else(String::new, |status| status["problems"].to_string())
}

/// How the last reload went, and its number.
fn last(daemon: &Daemon) -> (u64, String) {
    let last = daemon.status().map_or(Value::Null, |status| status["reload"].clone());
    (last["number"].as_u64().unwrap_or_default(), last["state"].as_str().unwrap_or_default().to_owned())
}

fn wait_for_reload(daemon: &mut Daemon, number: u64, state: &str) {
    daemon.wait_until(&format!("reload {number} is {state}"), DAEMON_TIMEOUT, |daemon| {
        last(daemon) == (number, state.to_owned())
    });
}

/// Whether nothing was lost or doubled is judged as after crashes and outages, and a job that nobody touched keeps consumer and
/// counters. `WARREND_RELOADS=200` makes it the long form.
#[test]
fn reloads_under_load_lose_nothing_and_double_nothing() {
    let reloads: usize = std::env::var("WARREND_RELOADS").map_or(20, |count| count.parse().expect("a number"));
    let vhost = Vhost::new();
    vhost.declare("steady");
    let mut scene = Scene::new(vhost, &Setup::default());
    let work = scene.daemon.jobs();
    let jobs = |round: usize| {
        let concurrency = format!("concurrency = {}", 2 + round / 5 % 4);
        let guest = if round % 10 < 5 { "" } else { GUEST };
        let (ttl, attempts) = if round % 10 < 5 { ("14d", 3) } else { ("15d", 4) };
        let steady = format!("{STEADY}idempotency.retention = \"{ttl}\"\n");
        let work = work.replace("concurrency = 4", &concurrency);
        format!("{work}\nmax_crashes = {attempts}\n{steady}{guest}")
    };
    scene.daemon.set_jobs(&jobs(0));
    scene.daemon.start();
    let first = tags(&scene.vhost, &["steady", QUEUE]);
    let (mut asked, mut restarts) = (0, 0);
    // Each job that starts makes one connection. Those of the jobs and of the publisher are there by now.
    let mut connections = 3;
    for round in 1..=reloads {
        scene.publish(20);
        // Without an id, so that it is none of the scene's.
        scene.vhost.publish("steady", "x", AmqpProperties::default());
        // What changes the job that works and others, or nothing; and what is faulty.
        let now = jobs(round);
        let (now, good, changes) = match round % 5 {
            0 => (now, true, true),
            1 => (now.replace("[jobs.work.retry]", "[jobs.work.retyr]"), false, false),
            2 => (now, true, false),
            3 => (now.replace("jitter = 0.0", "jitter = 0.0001"), true, true),
            _ => (now, true, true),
        };
        scene.daemon.set_jobs(&now);
        asked += 1;
        if round % 3 == 0 {
            scene.daemon.signal(Signal::HUP);
            wait_for_reload(&mut scene.daemon, asked, if good { "done" } else { "failed" });
        } else {
            let (code, out, err) = run(&scene.daemon, &["reload"]);
            assert_eq!(code, Some(if good { 0 } else { 78 }), "round {round}: {out}{err}\n{}", scene.daemon.log_tail());
        }
        restarts += usize::from(changes);
        connections += u64::from(changes) + u64::from(changes && round % 10 == 5);
        let what = format!("by round {round} jobs have made {connections} connections");
        scene.daemon.wait_until(&what, DAEMON_TIMEOUT, |daemon| daemon.wire().report().linked >= connections);
        assert_eq!(scene.daemon.wire().report().linked, connections, "round {round}\n{}", scene.daemon.log_tail());
        assert_eq!(tags(&scene.vhost, &["steady"])["steady"], first["steady"], "round {round}");
    }
    assert!(restarts >= reloads / 2, "{restarts} of {reloads} reloads started a job anew");
    let done = reloads as u64;
    scene.daemon.wait_until("the steady job has done its own", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("steady", "done") == done
    });
    // The broker's list lags behind.
    let vhost = &scene.vhost;
    wait_until("the job that works has another consumer", BROKER_TIMEOUT, || {
        tags(vhost, &[QUEUE])[QUEUE] != first[QUEUE]
    });
    assert_eq!(tags(vhost, &["steady"])["steady"], first["steady"]);
    scene.wait_until_settled();
    scene.stop();
    let verdict = scene.judge();
    println!("{reloads} reloads; {verdict}");
}

/// All jobs and the publisher connect anew, while copies of failed attempts are owed all the time.
#[test]
fn a_change_of_the_broker_reaches_all_and_loses_no_copy() {
    let vhost = Vhost::new();
    let mut scene = Scene::new(vhost, &Setup::default());
    scene.daemon.start();
    let broker = scene.daemon.broker();
    for heartbeat in [20, 30, 40, 50] {
        scene.publish(60);
        scene.wait_for_runs(10);
        let before = tags(&scene.vhost, &[QUEUE])[QUEUE].clone();
        scene.daemon.set_broker(&format!("{broker}\nheartbeat = \"{heartbeat}s\""));
        let out = reload(&scene.daemon);
        assert!(out.contains(&format!("-> {heartbeat}s (all jobs and the publisher connect anew)")), "{out}");
        let vhost = &scene.vhost;
        wait_until("it consumes again", BROKER_TIMEOUT, || {
            let now = tags(vhost, &[QUEUE])[QUEUE].clone();
            now != before
        });
    }
    scene.wait_until_settled();
    let names = scene.vhost.connections().len();
    assert!(names <= 3, "{names} connections for a job, a publisher and this test");
    scene.stop();
    scene.judge();
}

/// The daemon has no part in what the doctor asks.
#[test]
fn a_change_of_the_management_api_restarts_nobody() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, STEADY);
    daemon.start();
    let before = tags(&vhost, &["steady"]);
    daemon.set_broker(&format!("{}\nmanagement_url = \"http://127.0.0.1:9/\"", daemon.broker()));
    reload(&daemon);
    assert_eq!(last(&daemon), (1, "done".to_owned()));
    assert_eq!(tags(&vhost, &["steady"]), before);
    assert!(!daemon.log().contains("starts anew"), "{}", daemon.log_tail());
}

/// Two handlers at a time, every delivery watched. `more` follows the table of the job.
fn slow(more: &str) -> Slow {
    let mut slow = Slow::new(&format!("prefetch = 10\nconcurrency = 2\n{more}"));
    slow.daemon.tapped(&slow.vhost, &[("work", "work")]);
    slow
}

/// Handlers are not ended for a reload, however long they take; and who asked for it does not wait longer than for a stop.
#[test]
fn handlers_that_run_finish_under_the_old_settings_and_the_rest_goes_back() {
    let mut slow = slow("[shutdown]\ntimeout = \"1s\"\n");
    slow.daemon.start();
    slow.publish((0..10).map(|n| format!("slow {n}")));
    slow.wait("running", 2);
    slow.wait("buffered", 8);
    slow.change("concurrency = 2", "concurrency = 3");
    let began = Instant::now();
    let out = reload(&slow.daemon);
    assert!(out.starts_with("jobs.work.concurrency: 2 -> 3 (job restarts)\n"), "{out}");
    assert!(out.contains("still waiting for running handlers of: work"), "{out}");
    assert!(began.elapsed() >= Duration::from_secs(1), "it waited as long as a stop would");
    let vhost = &slow.vhost;
    slow.daemon.wait_until("the rest went back", BROKER_TIMEOUT, |_| vhost.ready("work") == Some(8));
    let status = slow.daemon.status().expect("it answers");
    assert_eq!((&status["jobs"]["work"]["state"], &status["jobs"]["work"]["running"]), (&"draining".into(), &2.into()));
    assert_eq!(status["reload"]["waits_for"], serde_json::json!(["work"]));
    assert!(problems(&slow.daemon).contains("job work: has taken no messages for"), "{}", problems(&slow.daemon));
    // Another reload meanwhile only changes what comes then.
    slow.change("concurrency = 3", "concurrency = 4");
    let out = reload(&slow.daemon);
    assert!(out.starts_with("jobs.work.concurrency: 3 -> 4 (job restarts)\n"), "{out}");
    assert_eq!(slow.daemon.counter("work", "running"), 2, "it is still the first one");
    slow.let_slow_ones_end();
    wait_for_reload(&mut slow.daemon, 2, "done");
    slow.daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 8);
    assert_eq!(problems(&slow.daemon), "[]");
    assert!(slow.daemon.terminate().success());
    slow.assert_each_ran_once(10);
}

#[test]
fn a_stop_in_the_middle_of_a_reload_is_as_orderly_as_any() {
    let mut slow = slow("[shutdown]\ntimeout = \"3s\"\n");
    slow.daemon.start();
    slow.publish(["slow 1".to_owned(), "slow 2".to_owned(), "slow 3".to_owned()]);
    slow.wait("running", 2);
    slow.change("concurrency = 2", "concurrency = 3");
    slow.daemon.signal(Signal::HUP);
    slow.daemon.wait_until("it drains", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["state"] == "draining")
    });
    slow.daemon.signal(Signal::TERM);
    slow.daemon.wait_until("it stops", DAEMON_TIMEOUT, |daemon| daemon.log().contains("stopping: running handlers"));
    slow.let_slow_ones_end();
    assert_eq!(slow.daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(0));
    assert_eq!((slow.journal.len(), slow.vhost.ready("work")), (2, Some(1)));
    slow.daemon.spawn(&["--until-empty"]);
    assert!(slow.daemon.wait_exit(DAEMON_TIMEOUT).success());
    slow.assert_each_ran_once(3);
}

#[test]
fn a_faulty_configuration_changes_nothing_and_is_told_until_it_is_mended() {
    let mut slow = slow(STEADY);
    slow.daemon.start();
    let before = tags(&slow.vhost, &["steady", "work"]);
    slow.change("concurrency = 2", "concurrency = 3\ncolour = 1\norder = \"best\"");
    let (code, out, err) = run(&slow.daemon, &["reload"]);
    assert_eq!((code, &*out), (Some(78), ""));
    assert!(err.contains("unknown key `colour`") && err.contains("colour = 1") && err.contains("\"best\""), "{err}");
    assert!(err.contains("the configuration has 2 errors"), "{err}");
    assert!(problems(&slow.daemon).contains("failed: the configuration has 2 errors"), "{}", problems(&slow.daemon));
    assert_eq!(run(&slow.daemon, &["status"]).0, Some(78), "other commands need the whole file");
    // Only to ask is no attempt.
    assert_eq!(run(&slow.daemon, &["reload", "--check"]).0, Some(78));
    assert_eq!(last(&slow.daemon), (1, "failed".to_owned()));
    slow.daemon.signal(Signal::HUP);
    wait_for_reload(&mut slow.daemon, 2, "failed");
    let log = slow.daemon.log();
    assert!(log.contains("unknown key `colour`") && log.contains("the reload by SIGHUP failed"), "{log}");
    // Not even TOML: it is still known where the daemon listens.
    let path = slow.daemon.config_path();
    let text = fs::read_to_string(&path).expect("it was written");
    fs::write(&path, format!("{text}\n[jobs.x\n")).expect("it is writable");
    let (code, _, err) = run(&slow.daemon, &["reload", "--json"]);
    assert!(code == Some(78) && err.contains("the configuration has"), "{err}");
    assert_eq!(tags(&slow.vhost, &["steady", "work"]), before, "nobody was disturbed");
    slow.change("concurrency = 3\ncolour = 1\norder = \"best\"", "concurrency = 2");
    let out = reload(&slow.daemon);
    assert!(out.contains("says what is in force already"), "{out}");
    assert_eq!(problems(&slow.daemon), "[]");
    assert_eq!(tags(&slow.vhost, &["steady", "work"]), before, "nobody was disturbed");
    assert!(slow.daemon.terminate().success());
    let (code, _, err) = run(&slow.daemon, &["reload"]);
    assert!(code == Some(3) && err.contains("not running"), "{err}");
    slow.change("concurrency = 2", "concurrency = none");
    let (code, _, err) = run(&slow.daemon, &["reload"]);
    assert!(code == Some(78) && err.contains("concurrency = none") && err.contains("not running"), "{err}");
}

#[test]
fn what_needs_a_restart_is_refused_with_all_that_comes_with_it() {
    let mut slow = slow("");
    slow.daemon.start();
    slow.change("concurrency = 2", "concurrency = 3");
    let store = slow.daemon.store_path().to_owned();
    slow.daemon.store_at(slow.daemon.folder().join("other.db"));
    let (code, out, err) = run(&slow.daemon, &["reload"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("store.path: ") && out.contains("(needs a restart of warrend)"), "{out}");
    assert!(err.contains("store.path is not what warrend runs with, and that needs a restart"), "{err}");
    assert!(problems(&slow.daemon).contains("needs a restart"), "{}", problems(&slow.daemon));
    slow.daemon.store_at(store);
    let out = reload(&slow.daemon);
    assert!(out.contains("jobs.work.concurrency: 2 -> 3"), "nothing of it had been taken up: {out}");
    assert_eq!(problems(&slow.daemon), "[]");
}

#[test]
fn jobs_come_and_go_and_asking_changes_nothing() {
    let mut slow = slow("");
    slow.vhost.declare("steady");
    slow.daemon.start();
    let work = slow.daemon.jobs();
    slow.daemon.set_jobs(&format!("{work}{STEADY}{GUEST}"));
    let (code, out, _) = run(&slow.daemon, &["reload", "--dry-run"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("jobs.guest (added: job starts)\njobs.steady (added: job starts)\n"), "{out}");
    assert!(out.contains("can be reloaded"), "{out}");
    let names = |daemon: &Daemon| {
        let status = daemon.status().expect("it answers");
        status["jobs"].as_object().map(|jobs| jobs.keys().cloned().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names(&slow.daemon).as_deref(), Some("work"));
    assert_eq!(last(&slow.daemon).0, 0);
    reload(&slow.daemon);
    assert_eq!(names(&slow.daemon).as_deref(), Some("guest steady work"));
    slow.vhost.publish("steady", "x", with_id("one"));
    slow.daemon.wait_until("the new job works", DAEMON_TIMEOUT, |daemon| daemon.counter("steady", "done") == 1);
    // A pause is remembered for a job that goes, and a key too.
    assert_eq!(run(&slow.daemon, &["pause", "guest"]).0, Some(0));
    slow.daemon.set_jobs(&format!("{work}{STEADY}enabled = false\n"));
    let out = reload(&slow.daemon);
    let told = "jobs.guest (removed: job ends)\njobs.steady.enabled: true -> false (job ends)\n";
    assert!(out.starts_with(told), "{out}");
    assert_eq!(names(&slow.daemon).as_deref(), Some("work"));
    let vhost = &slow.vhost;
    slow.daemon.wait_until("they consume no more", BROKER_TIMEOUT, |_| vhost.consumers("steady") == Some(0));
    slow.vhost.publish("steady", "x", with_id("one"));
    slow.daemon.set_jobs(&format!("{work}{STEADY}{GUEST}"));
    let (code, out, _) = run(&slow.daemon, &["reload", "--json"]);
    let json: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!((code, &json["verdict"], &json["reload"]["state"]), (Some(0), &"accepted".into(), &"done".into()));
    assert_eq!(json["changes"][0]["key"], "jobs.guest");
    slow.daemon.wait_until("its key is remembered", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("steady", "duplicates") == 1 && daemon.counter("steady", "done") == 0
    });
    let status = slow.daemon.status().expect("it answers");
    assert_eq!(status["jobs"]["guest"]["state"], "paused");
}

/// A pause by hand is kept by a job that starts anew.
#[test]
fn a_paused_job_restarts_paused() {
    let mut slow = slow("");
    slow.daemon.start();
    assert_eq!(run(&slow.daemon, &["pause", "work", "--reason", "look"]).0, Some(0));
    slow.change("concurrency = 2", "concurrency = 3");
    reload(&slow.daemon);
    slow.publish(["a".to_owned()]);
    slow.daemon.wait_until("it is paused", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["paused"]["reason"] == "look")
    });
    assert_eq!(run(&slow.daemon, &["resume", "work"]).0, Some(0));
    slow.wait("done", 1);
}

/// There is no room for the stacks of so many threads.
#[test]
fn a_job_that_cannot_start_leaves_the_others_alone_and_is_tried_again() {
    let mut slow = slow(STEADY);
    slow.daemon.set_limits("-v 2500000");
    slow.daemon.start();
    let before = tags(&slow.vhost, &["steady"]);
    slow.change("concurrency = 2", "concurrency = 1024");
    let (code, out, err) = run(&slow.daemon, &["reload"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("job work cannot be started: its threads cannot be started"), "{err}");
    assert!(problems(&slow.daemon).contains("job work cannot be started"), "{}", problems(&slow.daemon));
    // The same files again: they are in force, and what they ask for does not run.
    let (code, out, err) = run(&slow.daemon, &["reload"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("job work cannot be started"), "{err}");
    assert_eq!(tags(&slow.vhost, &["steady"]), before);
    slow.change("concurrency = 1024", "concurrency = 3");
    reload(&slow.daemon);
    slow.publish(["a".to_owned()]);
    slow.wait("done", 1);
    assert_eq!(problems(&slow.daemon), "[]");
}

#[test]
fn systemd_hears_when_it_begins_and_when_it_is_over() {
    let mut slow = slow("");
    let path = slow.daemon.folder().join("notify");
    let socket = UnixDatagram::bind(&path).expect("the folder takes a socket");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("it is above zero");
    slow.daemon.env("NOTIFY_SOCKET", &path.display().to_string());
    let mut heard: Vec<String> = Vec::new();
    let mut listen = |daemon: &mut Daemon, what: &str, enough: &dyn Fn(&str) -> bool| {
        heard.clear();
        daemon.wait_until(what, DAEMON_TIMEOUT, |_| {
            let mut buffer = [0; 4096];
            if let Ok(length) = socket.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..length]).replace('\n', " "));
            }
            heard.last().is_some_and(|said| enough(said))
        });
        heard.join("|")
    };
    slow.daemon.spawn(&[]);
    listen(&mut slow.daemon, "READY", &|said| said.contains("READY=1"));
    slow.change("concurrency = 2", "concurrency = 3");
    slow.daemon.signal(Signal::HUP);
    let heard = listen(&mut slow.daemon, "READY again", &|said| said.contains("READY=1"));
    assert!(heard.starts_with("RELOADING=1 MONOTONIC_USEC=") && heard.contains("STATUS=running 1 jobs"), "{heard}");
    slow.change("concurrency = 3", "concurrency = 0");
    slow.daemon.signal(Signal::HUP);
    let heard = listen(&mut slow.daemon, "READY after a faulty one", &|said| said.contains("READY=1"));
    assert!(
        heard.starts_with("RELOADING=1") && heard.contains("STATUS=running 1 jobs; the reload by SIGHUP"),
        "{heard}"
    );
}

/// In a terminal SIGHUP also says that this is closed, and then there is nobody to run for.
#[test]
fn a_closed_terminal_ends_a_daemon_that_was_started_in_it() {
    const TERMINAL: &str = "import os, pty, sys\n\
        pid, terminal = pty.fork()\n\
        if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
        sys.stdin.readline()\n\
        os.close(terminal)\n\
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, STEADY);
    let mut terminal = Command::new("python3");
    terminal.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_warrend"), "-c"]).arg(daemon.config_path()).arg("run");
    let mut terminal = terminal.stdin(Stdio::piped()).spawn().expect("python3 is there");
    daemon.wait_until("it runs", DAEMON_TIMEOUT, |daemon| daemon.status().is_some());
    let pid = daemon.status().and_then(|status| status["pid"].as_i64()).expect("it says so");
    // While the terminal stands, it is the order that it is elsewhere.
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("it fits")).expect("it is above zero");
    rustix::process::kill_process(pid, Signal::HUP).expect("it can be signalled");
    wait_for_reload(&mut daemon, 1, "done");
    drop(terminal.stdin.take());
    assert!(terminal.wait().expect("it ends").success());
    assert!(daemon.status().is_none());
}
