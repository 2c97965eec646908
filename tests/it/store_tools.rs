//! `warrend store`: counting, forgetting, copying and checking, beside a daemon that runs and without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::baddisk::BadDisk;
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use crate::support::records::Records;
use crate::support::scene::{Fate, Scene, Setup};

const QUEUE: &str = "work";

/// A daemon with one job whose messages named `slow…` run until a file is there, and those named `dead…` are rejected.
struct Bench {
    vhost: Vhost,
    daemon: Daemon,
    journal: Journal,
    end: PathBuf,
}

impl Bench {
    /// `job` stands in `[jobs.work]`.
    fn new(job: &str) -> Self {
        let vhost = Vhost::new();
        vhost.declare(QUEUE);
        let mut daemon = Daemon::new(&vhost, "");
        let end = daemon.folder().join("end");
        let wait = format!("until [ -e '{}' ]; do sleep 0.02; done", end.display());
        let journal =
            Journal::new(daemon.folder(), &format!("case $WARREND_KEY in slow*) {wait} ;; dead*) exit 65 ;; esac"));
        daemon.set_jobs(&format!("[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n{job}\n", journal.command()));
        Self { vhost, daemon, journal, end }
    }

    fn publish(&self, id: &str) {
        self.vhost.publish(QUEUE, b"", with_id(id));
    }

    fn wait(&mut self, counter: &str, value: u64) {
        let what = format!("{counter} is {value}");
        self.daemon.wait_until(&what, DAEMON_TIMEOUT, |daemon| daemon.counter("work", counter) == value);
    }

    /// The daemon stops, whose jobs know nothing of that the store forgets without it.
    fn stop(&mut self) {
        assert!(self.daemon.terminate().success(), "{}", self.daemon.log_tail());
    }

    /// What a command says once nothing that it means is in flight: an ack may be under way for a moment.
    fn once_acked(&mut self, command: &[&str]) -> Output {
        let mut output = self.daemon.run(command);
        self.daemon.wait_until("all is acknowledged", DAEMON_TIMEOUT, |daemon| {
            let waits = String::from_utf8_lossy(&output.stderr).contains("in flight");
            if waits {
                output = daemon.run(command);
            }
            !waits
        });
        output
    }

    fn runs(&self, id: &str) -> usize {
        self.journal.runs().get(id).map_or(0, Vec::len)
    }

    fn stats(&self) -> Value {
        let output = self.daemon.run(&["store", "stats", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

#[track_caller]
fn done(output: &Output, expect: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(expect), "{expect:?} is missing in {output:?}");
}

#[track_caller]
fn refused(output: &Output, code: i32, expect: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && said.contains(expect), "{code} and {expect:?}, not {output:?}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
}

#[test]
fn stats_count_what_is_remembered_whether_or_not_the_daemon_runs() {
    let mut bench = Bench::new("");
    refused(&bench.daemon.run(&["store", "stats"]), 74, "is not there: `warrend run` makes it");
    bench.daemon.start();
    for id in ["a", "b", "dead-1", "a"] {
        bench.publish(id);
    }
    bench.wait("duplicates", 1);
    bench.wait("done", 2);
    bench.wait("forwarding", 0);
    for _ in 0..2 {
        let stats = bench.stats();
        let job = &stats["jobs"]["work"];
        let counted = ["keys", "attempts", "done", "retried", "dead", "over"].map(|name| job[name].as_u64());
        assert_eq!(counted, [3, 3, 2, 0, 1, 0].map(Some), "{stats}");
        assert_eq!((stats["schema"].as_u64(), job["retention_s"].as_u64()), (Some(1), Some(14 * 86_400)), "{stats}");
        assert!(job["oldest_ms"].as_i64() <= job["newest_ms"].as_i64() && stats["bytes"].as_u64() > Some(0), "{stats}");
        let text = bench.daemon.run(&["store", "stats"]);
        done(&text, "3 attempts of 3 keys in 0 generations and");
        done(&text, "14 d 0 h");
        if bench.daemon.is_alive() {
            bench.stop();
        }
    }
}

/// Every command, as JSON where it has some; none of them needs a terminal. `copy` is where the copy goes.
fn commands(copy: &str) -> [Vec<&str>; 7] {
    [
        vec!["store", "stats", "--json"],
        vec!["store", "prune", "--dry-run", "--json"],
        vec!["store", "prune", "--json"],
        vec!["store", "backup", copy, "--json"],
        vec!["store", "verify", "--json"],
        vec!["store", "forget", "work", "a", "--yes", "--json"],
        vec!["store", "forget", "work", "--all", "--yes", "--json"],
    ]
}

#[test]
fn each_command_has_its_json_whether_or_not_the_daemon_runs() {
    for with_daemon in [true, false] {
        let mut bench = Bench::new("");
        bench.daemon.start();
        for id in ["a", "b"] {
            bench.publish(id);
        }
        bench.wait("done", 2);
        if !with_daemon {
            bench.stop();
        }
        let copy = bench.daemon.folder().join("copy.db");
        let said = commands(copy.to_str().expect("UTF-8")).map(|command| {
            let output = bench.once_acked(&command);
            assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
            let json: Value = serde_json::from_slice(&output.stdout).expect("one object");
            assert_eq!(json["schema"], 1, "{command:?}: {json}");
            json
        });
        let [_, dry, pruned, copied, verified, one, all] = &said;
        assert_eq!([&dry["forgotten"], &pruned["forgotten"]], [0, 0], "{dry} {pruned}");
        assert_eq!([&one["forgotten"], &all["forgotten"]], [1, 1], "{one} {all}");
        assert_eq!((&one["key"], &all["key"]), (&Value::from("a"), &Value::Null));
        assert_eq!(copied["bytes"].as_u64(), fs::metadata(&copy).ok().map(|metadata| metadata.len()));
        assert_eq!((&verified["sound"], &verified["keys"]), (&Value::from(true), &Value::from(2)), "{verified}");
        if with_daemon {
            bench.stop();
        }
    }
}

#[test]
fn a_store_is_not_made_by_looking_for_it_and_another_version_is_left_alone() {
    let mut bench = Bench::new("");
    let store = bench.daemon.store_path().to_owned();
    let copy = bench.daemon.folder().join("copy.db");
    let all = commands(copy.to_str().expect("UTF-8"));
    let before = fs::read_dir(bench.daemon.folder()).expect("it is there").count();
    for command in &all {
        refused(&bench.daemon.run(command), 74, "is not there: `warrend run` makes it");
    }
    assert_eq!(fs::read_dir(bench.daemon.folder()).expect("it is there").count(), before);
    bench.daemon.start();
    bench.stop();
    let set = |version: i64| {
        let connection = Connection::open(&store).expect("the daemon made it");
        connection.pragma_update(None, "user_version", version).expect("it is writable");
    };
    for (version, expect) in [(99, "install the newer version again"), (0, "start `warrend run` once")] {
        set(version);
        let bytes = fs::read(&store).expect("it is there");
        for command in &all {
            refused(&bench.daemon.run(command), 74, expect);
        }
        // The daemon refuses a newer one too.
        if version == 99 {
            bench.daemon.spawn(&[]);
            assert_eq!(bench.daemon.wait_exit(DAEMON_TIMEOUT).code(), Some(74), "{}", bench.daemon.log_tail());
            assert!(bench.daemon.log_tail().contains(expect), "{}", bench.daemon.log_tail());
        }
        assert!(fs::read(&store).expect("it is there") == bytes, "nothing touched it");
    }
    assert!(!copy.exists());
    bench.daemon.set_jobs("[jobs.work]\nqueue = 7\n");
    for command in &all {
        assert_eq!(bench.daemon.run(command).status.code(), Some(78), "{command:?}");
    }
}

/// A configuration with the same store and another socket: whoever has it does not reach the daemon, and only looks.
#[test]
fn nobody_writes_beside_a_daemon_that_it_cannot_ask() {
    let mut bench = Bench::new("");
    bench.daemon.start();
    bench.publish("a");
    bench.wait("done", 1);
    let mut stranger = Daemon::new(&bench.vhost, "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n");
    stranger.store_at(bench.daemon.store_path().to_owned());
    let copy = stranger.folder().join("copy.db");
    let held = format!("another warrend holds the store (process {}", bench.daemon.pid().expect("it runs"));
    for command in commands(copy.to_str().expect("UTF-8")) {
        let output = stranger.run(&command);
        match (command[1], command.contains(&"--dry-run")) {
            ("forget", _) | ("prune", false) => refused(&output, 75, &held),
            _ => assert!(output.status.success(), "{command:?}: {output:?}"),
        }
    }
    bench.publish("a");
    bench.wait("duplicates", 1);
    bench.stop();
}

#[test]
fn a_full_disk_is_told_to_whoever_has_something_forgotten() {
    let mut bench = Bench::new("");
    let disk = BadDisk::below(&mut bench.daemon);
    bench.daemon.start();
    (0..50).for_each(|n| bench.publish(&format!("m-{n}")));
    bench.wait("done", 50);
    disk.fill();
    // Its log is short, and has no room from earlier.
    let full = "its disk is full: make a little room, and ask again";
    refused(&bench.once_acked(&["store", "forget", "work", "--all", "--yes"]), 74, full);
    refused(&bench.daemon.run(&["store", "forget", "work", "m-7", "--yes"]), 74, full);
    assert_eq!(bench.stats()["jobs"]["work"]["keys"].as_u64(), Some(50), "what could not be forgotten stays");
    disk.make_room();
    done(&bench.daemon.run(&["store", "forget", "work", "m-7", "--yes"]), "forgot m-7");
    done(&bench.daemon.run(&["store", "forget", "work", "--all", "--yes"]), "forgot 49 records");
    done(&bench.daemon.run(&["store", "verify"]), "is sound: 0 keys");
    bench.stop();
}

#[test]
fn a_forgotten_key_runs_again_and_not_while_it_is_in_flight() {
    let mut bench = Bench::new("");
    bench.daemon.start();
    for id in ["a", "dead-1"] {
        bench.publish(id);
    }
    bench.wait("done", 1);
    bench.wait("dead", 1);
    bench.wait("forwarding", 0);
    bench.publish("a");
    bench.wait("duplicates", 1);

    refused(&bench.daemon.run(&["store", "forget", "work", "a"]), 2, "there is no terminal to ask on: give --yes");
    let forget = |bench: &Bench, job: &str, id: &str| bench.daemon.run(&["store", "forget", job, id, "--yes"]);
    refused(&forget(&bench, "work", "b"), 1, "does not remember \"b\"");
    refused(&forget(&bench, "mail", "a"), 1, "the store knows no job \"mail\"; it has work");
    done(&forget(&bench, "work", "a"), "forgot a: the next delivery of its message runs");
    bench.publish("a");
    bench.wait("done", 2);
    assert_eq!(bench.runs("a"), 2);
    bench.publish("a");
    bench.wait("duplicates", 2);
    assert!(bench.daemon.log().contains("the store forgets \"a\" of job \"work\""), "{}", bench.daemon.log_tail());

    bench.publish("slow-1");
    bench.wait("running", 1);
    done(&forget(&bench, "work", "dead-1"), "forgot dead-1");
    bench.publish("dead-1");
    bench.wait("dead", 2);
    assert_eq!(bench.runs("dead-1"), 2);
    let in_flight = bench.daemon.run(&["store", "forget", "work", "--all", "--yes"]);
    refused(&in_flight, 1, "messages in flight: `warrend pause work` first");
    fs::write(&bench.end, "").expect("the folder is writable");
    bench.wait("done", 3);
    bench.stop();

    // Without a daemon.
    done(&forget(&bench, "work", "slow-1"), "forgot slow-1");
    bench.publish("slow-1");
    bench.daemon.spawn(&["--until-empty"]);
    assert!(bench.daemon.wait_exit(DAEMON_TIMEOUT).success());
    assert_eq!((bench.runs("slow-1"), bench.runs("a")), (2, 2));
}

#[test]
fn a_key_in_flight_is_not_forgotten() {
    let mut bench = Bench::new("");
    bench.daemon.start();
    bench.publish("slow-1");
    bench.wait("running", 1);
    fs::write(&bench.end, "").expect("the folder is writable");
    bench.wait("done", 1);
    fs::remove_file(&bench.end).expect("it was written");
    done(&bench.daemon.run(&["store", "forget", "work", "slow-1", "--yes"]), "forgot slow-1");
    bench.publish("slow-1");
    bench.wait("running", 1);
    // The record of the first run is gone, so there is nothing to ask about.
    refused(&bench.daemon.run(&["store", "forget", "work", "slow-1", "--yes"]), 1, "does not remember");
    let request = r#"{"command":"forget","job":"work","key":"slow-1"}"#;
    let answer = bench.daemon.ask(request).expect("it runs");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("it is in flight in job work")), "{answer}");
    fs::write(&bench.end, "").expect("the folder is writable");
    bench.wait("done", 2);
    bench.stop();
}

#[test]
fn everything_of_a_job_can_be_forgotten() {
    for with_daemon in [true, false] {
        let mut bench = Bench::new("");
        bench.daemon.start();
        (0..50).for_each(|n| bench.publish(&format!("m-{n}")));
        bench.wait("done", 50);
        if !with_daemon {
            bench.stop();
        }
        done(&bench.once_acked(&["store", "forget", "work", "--all", "--yes"]), "forgot 50 records");
        assert_eq!(bench.stats()["jobs"]["work"]["keys"].as_u64(), Some(0));
        done(&bench.daemon.run(&["store", "verify"]), "is sound: 0 keys");
        if !with_daemon {
            bench.daemon.start();
        }
        bench.publish("m-7");
        bench.daemon.wait_until("it runs again", DAEMON_TIMEOUT, |_| bench.journal.runs()["m-7"].len() == 2);
        bench.stop();
    }
}

#[test]
fn what_is_over_is_pruned_at_once_and_the_disk_gets_its_room_back() {
    for with_daemon in [true, false] {
        let mut bench = Bench::new("");
        bench.daemon.start();
        bench.daemon.terminate();
        let path = bench.daemon.store_path().to_owned();
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        fill(&path, 200_000);
        let before = size(&path);
        done(&bench.daemon.run(&["store", "prune", "--dry-run"]), "would forget 150 000 records of 200 000");
        if with_daemon {
            // It has begun by itself, and would take minutes: a thousand records ten times a second.
            bench.daemon.start();
        }
        let pruned = bench.daemon.run(&["store", "prune"]);
        let said = String::from_utf8_lossy(&pruned.stdout).into_owned();
        let forgot = said.contains("forgot 150 000 records") || (with_daemon && said.starts_with("forgot 1"));
        assert!(pruned.status.success() && forgot, "{pruned:?}");
        let stats = bench.stats();
        assert_eq!(stats["jobs"]["work"]["keys"].as_u64(), Some(50_000), "{stats}");
        done(&bench.daemon.run(&["store", "verify"]), "is sound: 50 000 keys");
        assert!(size(&path) < before / 3, "{} of {before} bytes are left: {said}", size(&path));
        if with_daemon {
            bench.publish("a");
            bench.wait("done", 1);
            bench.stop();
        }
    }
}

/// Four generations, of which three ended a year ago.
fn fill(path: &Path, keys: u32) {
    let connection = Connection::open(path).expect("the daemon made it");
    let year = 365 * 86_400_000_i64;
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()).expect("it fits");
    let fill = || {
        connection.execute_batch("BEGIN")?;
        for generation in 1..=4 {
            let at = if generation == 4 { now } else { now - year };
            let rows = keys / 4;
            connection.execute(
                "INSERT INTO records (generation, job, key, attempt, outcome, at, ran)
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?3)
                 SELECT ?1, (SELECT id FROM jobs), randomblob(17), 1, 3, ?2, 5 FROM n",
                (generation, at, rows),
            )?;
            connection.execute("INSERT INTO generations VALUES (?1, ?2, 0)", (generation, rows))?;
        }
        connection.execute_batch("COMMIT")
    };
    fill().expect("it can be filled");
}

#[test]
fn a_copy_is_whole_while_the_daemon_works_and_can_be_put_in_its_place() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    let copy = scene.daemon.folder().join("copy.db");
    let file = copy.to_str().expect("UTF-8").to_owned();
    scene.publish(400);
    scene.spawn();
    let mut copies = 0;
    while scene.journal.len() < scene.runs_needed() {
        done(&scene.daemon.run(&["store", "backup", &file, "--force"]), &format!("to {file}"));
        done(&scene.daemon.run(&["store", "verify", &file]), "is sound");
        copies += 1;
    }
    assert!(copies > 1, "{copies}");
    scene.wait_until_settled();
    scene.stop();
    done(&scene.daemon.run(&["store", "verify"]), "is sound: 400 keys");

    refused(&scene.daemon.run(&["store", "backup", &file]), 74, "that file exists; --force replaces it");
    let store = scene.daemon.store_path().to_owned();
    let own = store.to_str().expect("UTF-8");
    for own in [own.to_owned(), format!("{own}-wal"), format!("{own}.lock")] {
        refused(&scene.daemon.run(&["store", "backup", &own, "--force"]), 74, "is the store itself");
    }
    let nowhere = scene.daemon.folder().join("none/copy.db");
    refused(
        &scene.daemon.run(&["store", "backup", nowhere.to_str().expect("UTF-8")]),
        74,
        "the store cannot be copied",
    );
    done(&scene.daemon.run(&["store", "backup", &file, "--force"]), "wrote ");
    let left: Vec<_> = fs::read_dir(scene.daemon.folder()).expect("it is there").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("partial")), "{left:?}");

    // As the help says: in its place it knows what the store knew.
    let known = Records::read(&store).ended;
    fs::remove_file(&store).expect("the daemon does not run");
    fs::rename(&copy, &store).expect("both are in one folder");
    assert_eq!(Records::read(&store).ended, known);
    scene.publish_again(100);
    scene.finish();
    scene.judge();
}

#[test]
fn verify_finds_damage_and_contradictions() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    scene.publish(200);
    scene.publish_fates([Fate::Rejected; 20]);
    scene.finish();
    let store = scene.daemon.store_path().to_owned();
    let sound = fs::read(&store).expect("it is there");
    let verify = |file: &Path| scene.daemon.run(&["store", "verify", file.to_str().expect("UTF-8")]);
    done(&verify(&store), "is sound: 220 keys");

    let job = "(SELECT id FROM jobs)";
    let done_key = "(SELECT key FROM recent WHERE outcome = 3 LIMIT 1)";
    let dead_key = "(SELECT key FROM failures WHERE delay_s IS NULL AND attempt = 1 LIMIT 1)";
    let cases = [
        (
            format!(
                "INSERT INTO recent SELECT 9000, job, key, attempt, 1, at, ran, exit FROM recent WHERE key = {done_key}"
            ),
            "is recorded as done and as failed",
        ),
        (
            format!("INSERT INTO recent SELECT 9000, job, key, 7, 3, at, ran, exit FROM recent WHERE key = {done_key}"),
            "is recorded as done more than once",
        ),
        ("UPDATE recent SET job = 99 WHERE seq = 1".to_owned(), "belongs to a job that the store does not know"),
        ("UPDATE recent SET outcome = 9 WHERE seq = 1".to_owned(), "has an outcome that does not exist"),
        (format!("DELETE FROM recent WHERE key = {dead_key}"), "belongs to no attempt"),
        (
            format!(
                "DELETE FROM recent WHERE key = {dead_key} AND outcome = 2; DELETE FROM failures WHERE key = {dead_key}"
            ),
            "lacks what its copy is made of",
        ),
        ("INSERT INTO generations VALUES (1, 5, 0)".to_owned(), "generation 1 should have 5 records and has 0"),
        (format!("INSERT INTO starts VALUES ({job}, {done_key}, 1, 0)"), "in doubt though they have ended"),
        (
            "INSERT INTO pauses VALUES (99, NULL, 'me', 0)".to_owned(),
            "pauses belong to jobs that the store does not know",
        ),
    ];
    let copy = scene.daemon.folder().join("copy.db");
    for (change, expect) in cases {
        fs::write(&copy, &sound).expect("there is room");
        Connection::open(&copy).and_then(|connection| connection.execute_batch(&change)).expect("it is a store");
        let output = verify(&copy);
        assert_eq!(output.status.code(), Some(74), "{change}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(expect), "{change}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("is not sound: stop the daemon"), "{output:?}");
        for beside in ["copy.db-wal", "copy.db-shm"] {
            // Whoever closed it last has removed them.
            let _ = fs::remove_file(copy.with_file_name(beside));
        }
    }
    // Every page in turn, but for the free ones.
    let pages = sound.len() / 4096;
    let found = (1..pages).filter(|page| {
        let mut damaged = sound.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0x55);
        fs::write(&copy, damaged).expect("there is room");
        verify(&copy).status.code() == Some(74)
    });
    let found = found.count();
    assert!(found >= pages - 2 && pages > 8, "{found} of {pages} damaged pages were found");
    fs::write(&copy, "no store at all, but long enough to be taken for one at first sight".repeat(20))
        .expect("there is room");
    refused(&verify(&copy), 74, "file is not a database");
}
