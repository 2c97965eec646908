//! `warrend audit`: who did what, whether or not the daemon runs, and that the trail of it shows when it was tampered with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::scene::{DEAD, QUEUE};

/// Messages whose id begins with `bad` are given up.
const HANDLER: &str = "case $WARREND_KEY in bad*) exit 65 ;; esac";

struct Bench {
    vhost: Vhost,
    daemon: Daemon,
}

impl Bench {
    fn new() -> Self {
        let vhost = Vhost::new();
        vhost.declare(QUEUE);
        vhost.declare(DEAD);
        let jobs = format!(
            "[jobs.work]\nqueue = \"{QUEUE}\"\ndead_letter.queue = \"{DEAD}\"\n\
             [jobs.work.handler]\ncommand = [\"sh\", \"-c\", '{HANDLER}']\n"
        );
        let daemon = Daemon::new(&vhost, &jobs);
        Self { vhost, daemon }
    }

    /// Once it is recorded, and its copy lies there.
    fn give_up(&mut self, id: &str, lie: u32) {
        self.vhost.publish(QUEUE, "x", with_id(id));
        self.wait_for_letters(lie);
    }

    fn wait_for_letters(&mut self, lie: u32) {
        let vhost = &self.vhost;
        self.daemon.wait_until("they lie there", DAEMON_TIMEOUT, |_| vhost.ready(DEAD) == Some(lie));
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.daemon.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    /// What a command says that must leave nothing unsaid on stderr.
    #[track_caller]
    fn quiet(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }

    fn rows(&self, filter: &[&str]) -> Vec<Value> {
        let output = self.run(&[&["audit", "list", "--json"], filter].concat());
        let list: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(list["schema"], 1);
        list["rows"].as_array().expect("it is a list").clone()
    }

    fn acts(&self, filter: &[&str]) -> Vec<String> {
        self.rows(filter).iter().map(|row| row["act"].as_str().expect("it is text").to_owned()).collect()
    }

    /// Whole, with so many rows.
    #[track_caller]
    fn assert_whole(&self, rows: usize) -> Vec<String> {
        let output = self.run(&["audit", "verify", "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let (whole, counted) = (&said["whole"], &said["rows"]);
        assert_eq!((whole, counted), (&Value::from(true), &Value::from(rows)), "{said}");
        let ends = said["ends"].as_array().expect("it is a list");
        ends.iter().map(|end| end.as_str().expect("it is text").to_owned()).collect()
    }

    fn stop(&mut self) {
        assert!(self.daemon.terminate().success(), "{}", self.daemon.log_tail());
    }

    /// What somebody does who may write the file.
    fn tamper(&self, sql: &str) {
        let connection = Connection::open(self.daemon.store_path()).expect("it is there");
        let triggers =
            ["appended_to", "not_changed", "not_deleted"].map(|name| format!("DROP TRIGGER audit_is_{name};"));
        connection.execute_batch(&(triggers.concat() + sql)).expect("it can be written");
    }
}

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, expect: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && said.contains(expect), "{code} and {expect:?}, not {output:?}");
}

#[test]
fn what_people_do_and_what_the_daemon_gives_up_is_written_down() {
    let mut bench = Bench::new();
    assert_refused(&bench.daemon.run(&["audit", "list"]), 74, "is not there: `warrend run` makes it");
    bench.daemon.start();
    assert_eq!(bench.acts(&[]), [""; 0]);
    bench.give_up("bad-1", 1);
    bench.run(&["pause", "work", "--reason", "the API is down"]);
    bench.run(&["resume", "work"]);
    assert_eq!(bench.daemon.run(&["pause", "wrok"]).status.code(), Some(1), "nothing is done");
    bench.run(&["store", "prune"]);
    let jobs = bench.daemon.jobs().replace("queue = \"work\"", "queue = \"work\"\nretry.max_attempts = 7");
    bench.daemon.set_jobs(&jobs);
    bench.run(&["reload"]);
    bench.quiet(&["dead", "replay", "work", "--yes", "--class", "rejected"]);
    bench.daemon.wait_until("it is dead again", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "dead") == 1);
    let expected = ["dead", "paused", "resumed", "pruned", "reloaded", "replay", "replayed", "dead"];
    let mut acts = bench.acts(&[]);
    // The letter may have been given up again before the replay said that it had ended.
    acts[6..].sort_by_key(|act| act != "replayed");
    assert_eq!(acts, expected);
    let rows = bench.rows(&["--job", "work"]);
    assert_eq!(rows.len(), 6, "the store is no job's, nor are the files");
    let reloaded = bench.rows(&[]).into_iter().find(|row| row["act"] == "reloaded").expect("it is there");
    assert_eq!((&reloaded["uid"], &reloaded["count"], &reloaded["job"]), (&me().into(), &1.into(), &Value::Null));
    let dead = &rows[0];
    let told = ["act", "by", "key", "detail"].map(|name| dead[name].as_str().unwrap_or("-"));
    assert_eq!((told, &dead["uid"]), (["dead", "warrend", "bad-1", "rejected"], &Value::Null), "{dead}");
    let paused = &rows[1];
    assert_eq!((&paused["uid"], &paused["detail"]), (&me().into(), &"the API is down".into()), "{paused}");
    let of = |act: &str| rows.iter().find(|row| row["act"] == act).unwrap_or_else(|| panic!("{act}: {rows:?}"));
    assert_eq!((&of("replay")["detail"], &of("replay")["count"]), (&"class rejected".into(), &Value::Null));
    assert_eq!((&of("replayed")["count"], &of("replayed")["uid"]), (&1.into(), &me().into()));
    assert!(bench.acts(&["--since", "2100-01-01T00:00:00Z"]).is_empty());
    assert!(bench.acts(&["--job", "other"]).is_empty());
    let text = String::from_utf8(bench.run(&["audit", "list"]).stdout).expect("UTF-8");
    assert!(text.lines().any(|line| line.contains("  paused    work  the API is down")), "{text}");

    // Each act was logged with its hash, and both ends once it has stopped.
    let ends = bench.assert_whole(8);
    let log = bench.daemon.log();
    for row in rows.iter().filter(|row| row["act"] != "dead") {
        let id = row["id"].as_str().expect("it is text");
        assert!(log.contains(&format!("audit {id}: {}", row["act"].as_str().expect("text"))), "{id}: {log}");
    }
    bench.stop();
    assert!(ends.len() == 2 && ends.iter().all(|end| bench.daemon.log().contains(end)), "{}", bench.daemon.log_tail());
    assert_eq!(bench.assert_whole(8), ends);
    bench.run(&["audit", "verify", "--expect", &ends[0], "--expect", &ends[1]]);
}

/// What is held back of a log that repeats itself would be what nobody can hold against a trail that was cut.
#[test]
fn each_act_is_in_the_log() {
    let mut bench = Bench::new();
    bench.daemon.start();
    for _ in 0..8 {
        bench.quiet(&["pause", "work"]);
        bench.quiet(&["resume", "work"]);
    }
    let rows = bench.rows(&[]).len();
    assert!(rows >= 16, "{rows}");
    bench.daemon.terminate();
    let log = bench.daemon.log();
    let told = log.lines().filter(|line| line.contains(" audit ") && !line.contains("the end of its chain")).count();
    assert_eq!(told, rows, "{log}");
}

#[test]
fn without_a_daemon_whoever_runs_the_command_is_written_down() {
    let mut bench = Bench::new();
    bench.daemon.start();
    bench.give_up("bad-1", 1);
    bench.give_up("bad-2", 2);
    bench.stop();
    let file = bench.daemon.folder().join("letters.ndjson");
    let file = file.to_str().expect("UTF-8");
    bench.quiet(&["dead", "export", "work", file, "--id", "bad-1"]);
    bench.wait_for_letters(2);
    bench.quiet(&["dead", "purge", "work", "--yes"]);
    bench.quiet(&["dead", "import", "work", file, "--yes"]);
    bench.wait_for_letters(1);
    let refused = bench.daemon.run(&["dead", "replay", "work", "--yes", "--to", "elsewhere"]);
    assert_refused(&refused, 1, "elsewhere");
    bench.wait_for_letters(1);
    bench.quiet(&["store", "forget", "work", "bad-1", "--yes"]);
    bench.quiet(&["store", "forget", "work", "--all", "--yes"]);
    bench.quiet(&["store", "prune"]);
    let acts = [
        "dead", "dead", "export", "exported", "purge", "purged", "import", "imported", "replay", "replayed", "forgot",
        "forgot", "pruned",
    ];
    assert_eq!(bench.acts(&[]), acts);
    let rows = bench.rows(&[]);
    assert!(rows[2..].iter().all(|row| row["uid"] == me()), "{rows:?}");
    let detail = |at: usize| rows[at]["detail"].as_str().unwrap_or("-");
    assert_eq!(detail(2), format!("into {file}, ids bad-1"));
    assert!(detail(4).contains("dead-work-"), "{}", detail(4));
    assert_eq!((detail(6), detail(11)), (&*format!("from {file}"), "everything it had recorded"));
    assert!(detail(9).starts_with("ended early: "), "no queue has that name: {}", detail(9));
    assert_eq!([3, 5, 7, 9].map(|at| rows[at]["count"].as_u64()), [1, 2, 1, 0].map(Some));
    assert_eq!(rows[10]["key"], "bad-1");
    bench.assert_whole(13);
    // The daemon goes on where they ended.
    bench.daemon.start();
    bench.give_up("bad-3", 2);
    bench.assert_whole(14);
    bench.stop();
}

#[test]
fn what_cannot_be_written_down_is_done_and_said() {
    let mut bench = Bench::new();
    let note = "warrend: note: this is not in the audit trail: ";
    let replay = ["dead", "replay", "work", "--yes"];
    let no_store = bench.run(&replay);
    let said = String::from_utf8_lossy(&no_store.stderr).into_owned();
    assert!(said.starts_with(note) && said.contains("is not there") && said.lines().count() == 1, "{said}");
    assert!(!bench.daemon.store_path().exists(), "nothing is made by looking");
    bench.daemon.start();
    bench.quiet(&replay);
    assert_eq!(bench.acts(&[]), ["replay", "replayed"]);
    if !rustix::process::geteuid().is_root() {
        let socket = bench.daemon.socket_path();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).expect("it is ours");
        let forbidden = bench.run(&replay);
        let said = String::from_utf8_lossy(&forbidden.stderr).into_owned();
        assert!(said.starts_with(note) && said.contains("no permission to use"), "{said}");
    }
    bench.stop();
    // Whoever else has the store keeps it.
    let lock = PathBuf::from(format!("{}.lock", bench.daemon.store_path().display()));
    let held = std::fs::File::open(&lock).expect("it is there");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
    let locked = bench.run(&replay);
    assert!(String::from_utf8_lossy(&locked.stderr).contains("another warrend holds the store"), "{locked:?}");
    drop(held);
    assert_eq!(bench.acts(&[]).len(), 2);
}

#[test]
fn nobody_may_say_that_he_did_what_only_the_daemon_does() {
    let mut bench = Bench::new();
    bench.daemon.start();
    for act in ["paused", "resumed", "forgot", "pruned", "dead", "dropped"] {
        let request = format!("{{\"command\":\"note\",\"act\":\"{act}\",\"job\":\"work\"}}");
        let answer = bench.daemon.ask(&request).expect("it answers");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains("by the daemon alone")), "{answer}");
    }
    bench.assert_whole(0);
    // Long and odd text does no harm.
    let detail = "\\u0000\\n\\u001b[2J".repeat(400);
    let request = format!("{{\"command\":\"note\",\"act\":\"purged\",\"job\":\"x\\ny\",\"detail\":\"y\\n{detail}\"}}");
    assert_eq!(bench.daemon.ask(&request).expect("it answers")["done"], true);
    bench.assert_whole(1);
    let text = String::from_utf8(bench.run(&["audit", "list"]).stdout).expect("UTF-8");
    assert!(text.lines().count() == 2 && !text.contains('\u{1b}'), "{text}");
    bench.stop();
}

#[test]
fn a_trail_that_was_tampered_with_is_told_with_its_first_broken_row() {
    let mut bench = Bench::new();
    bench.daemon.start();
    for _ in 0..3 {
        bench.run(&["pause", "work"]);
        bench.run(&["resume", "work"]);
    }
    bench.give_up("bad-1", 1);
    bench.stop();
    let copy = bench.daemon.folder().join("copy.db");
    let copy = copy.to_str().expect("UTF-8");
    bench.run(&["store", "backup", copy]);
    let ends = bench.assert_whole(7);
    bench.tamper("UPDATE audit SET by = 'eve' WHERE chain = 1 AND seq = 4");
    let output = bench.daemon.run(&["audit", "verify"]);
    assert_refused(&output, 1, "is not as it was written, from acts:4 on");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("acts:4 was changed") && said.lines().count() == 1, "{said}");
    let output = bench.daemon.run(&["audit", "verify", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&said["whole"], &said["broken"][0]["row"]), (&false.into(), &4.into()), "{said}");
    // The copy is as it was, and cut off at its end only who has seen the end finds out.
    bench.run(&["audit", "verify", copy]);
    let connection = Connection::open(copy).expect("it is there");
    let cut = "DROP TRIGGER audit_is_not_deleted; DROP TRIGGER audit_ends_go_forward;
               DELETE FROM audit WHERE chain = 1 AND seq = 6;
               UPDATE audit_ends SET last = 5, hash = (SELECT hash FROM audit WHERE chain = 1 AND seq = 5) WHERE chain = 1";
    connection.execute_batch(cut).expect("it can be written");
    drop(connection);
    bench.run(&["audit", "verify", copy]);
    let output = bench.daemon.run(&["audit", "verify", copy, "--expect", &ends[0]]);
    assert_refused(&output, 1, "from acts:6 on");
    assert_refused(&bench.daemon.run(&["audit", "verify", "--expect", "acts:6"]), 2, "CHAIN:ROW:HASH");
    // A trail that was tampered with stops no daemon: it goes on behind what it finds.
    bench.daemon.start();
    bench.run(&["pause", "work"]);
    assert_eq!(bench.acts(&[]).len(), 8);
    assert_refused(&bench.daemon.run(&["audit", "verify"]), 1, "from acts:4 on");
    bench.stop();
}
