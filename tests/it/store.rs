//! Faults of the store: a disk that is full, fails or goes away, a file that is damaged, replaced, too old or too new.
//!
//! The disk fails at the border between SQLite and libc (`support/baddisk.c`); the daemon, the files and the broker are
//! real. What the whole suite wants of a crash holds here too: nothing is lost, and nothing that was recorded runs again.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::support::baddisk::{BadDisk, Call, How};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::scene::{Fate, QUEUE, Scene, Setup, WORK_TIMEOUT};

/// The exit code of a store that cannot do its part.
const EXIT_STORE: i32 = 74;
/// What `status` says of a full disk, in part.
const FULL: &str = "the disk of the store is full: make room";

/// A daemon that needs no broker: it starts, and never reaches one.
fn lonely() -> Daemon {
    let jobs = "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n";
    Daemon::with_broker("urls = [\"amqp://127.0.0.1:1\"]", jobs)
}

fn wait_ready(daemon: &mut Daemon) {
    daemon.wait_until("the daemon answers", DAEMON_TIMEOUT, |daemon| {
        assert!(daemon.is_alive(), "it ended\n{}", daemon.log_tail());
        daemon.status().is_some()
    });
}

/// It ended because of its store, and its last words say so and hold `expect`.
#[track_caller]
fn assert_store_failed(daemon: &Daemon, status: ExitStatus, expect: &str) {
    assert_eq!(status.code(), Some(EXIT_STORE), "{status}\n{}", daemon.log_tail());
    let log = daemon.log();
    // Another thread may have had a word to say after it.
    let last = log.lines().rfind(|line| line.starts_with("warrend: ")).unwrap_or_default();
    assert!(last.contains(expect), "{expect:?} is missing\n{}", daemon.log_tail());
}

fn problems(daemon: &Daemon) -> String {
    daemon.status().map(|status| status["problems"].to_string()).unwrap_or_default()
}

/// The log has room left from earlier, the file has none: records are kept as long as that goes well.
#[test]
fn a_full_disk_is_told_when_the_log_cannot_be_brought_into_the_file() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    let disk = BadDisk::below(&mut scene.daemon);
    scene.daemon.start();
    let said =
        |daemon: &Daemon| daemon.log().contains("the work goes on by itself: records still find room in its log");
    let stops = |daemon: &Daemon| daemon.log().matches("no job takes messages").count();
    for _ in 0..5 {
        // The log is brought into the file, and begins anew in the room that it has.
        let before = disk.syncs_of("warrend.db");
        while disk.syncs_of("warrend.db") == before {
            scene.publish_fates([Fate::Rejected; 300]);
            scene.wait_until_settled();
        }
        let stopped = stops(&scene.daemon);
        disk.fill();
        while !said(&scene.daemon) && stops(&scene.daemon) == stopped {
            scene.publish_fates([Fate::Rejected; 20]);
            let (journal, runs) = (&scene.journal, scene.runs_needed());
            scene.daemon.wait_until("the log grows", WORK_TIMEOUT, |daemon| {
                said(daemon) || stops(daemon) > stopped || journal.len() >= runs
            });
        }
        if said(&scene.daemon) {
            break;
        }
        // Whoever read the store in that moment kept the log from beginning anew, and it had to grow.
        disk.make_room();
        scene.wait_until_settled();
    }
    assert!(said(&scene.daemon), "{}", scene.daemon.log_tail());
    assert!(problems(&scene.daemon).contains(FULL));
    disk.make_room();
    scene.wait_until_settled();
    scene.stop();
    let verdict = scene.judge();
    assert_eq!((verdict.crashes, verdict.extra_runs), (0, 0));
}

#[test]
fn a_daemon_that_is_stopped_while_its_disk_is_full_ends_in_time_and_loses_nothing() {
    let broker = "reconnect = { initial = \"50ms\", max = \"500ms\" }\n[shutdown]\ntimeout = \"500ms\"";
    let mut scene = Scene::new(Vhost::new(), &Setup { broker, ..Setup::default() });
    let disk = BadDisk::below(&mut scene.daemon);
    scene.publish(100);
    scene.daemon.start();
    scene.wait_for_runs(20);
    disk.fill();
    scene.daemon.wait_until("status tells of the full disk", DAEMON_TIMEOUT, |daemon| problems(daemon).contains(FULL));
    let status = scene.daemon.terminate();
    assert_store_failed(&scene.daemon, status, "its disk is still full; those messages go back to their queues");
    scene.note_crash();

    scene.daemon.spawn(&[]);
    let status = scene.daemon.wait_exit(DAEMON_TIMEOUT);
    assert_store_failed(&scene.daemon, status, "its disk is full: make room, and start again");
    disk.make_room();
    scene.finish();
    eprintln!("stopped while full: {}", scene.judge());
}

/// Syncs and writes of a file that is just being made; no broker is needed to find that the disk fails.
#[test]
fn a_first_start_that_fails_anywhere_is_made_good_by_the_next() {
    let mut failed = [0, 0];
    for (index, call) in [Call::Sync, Call::Write].into_iter().enumerate() {
        for number in 1.. {
            let mut daemon = lonely();
            let disk = BadDisk::below(&mut daemon);
            disk.fail(&mut daemon, call, number, How::Once);
            daemon.spawn(&[]);
            daemon.wait_until("it answers or ends", DAEMON_TIMEOUT, |daemon| {
                !daemon.is_alive() || daemon.status().is_some_and(|status| status["store"]["path"].is_string())
            });
            if disk.take_calls().failed {
                let status = daemon.wait_exit(DAEMON_TIMEOUT);
                assert_store_failed(&daemon, status, "the store cannot");
                failed[index] += 1;
            } else {
                daemon.kill9();
                break;
            }
            disk.away(&mut daemon);
            daemon.spawn(&[]);
            wait_ready(&mut daemon);
            assert!(daemon.terminate().success(), "{}", daemon.log_tail());
        }
    }
    assert!(failed[0] >= 5 && failed[1] >= 30, "{failed:?}");
    eprintln!("first starts: {} syncs and {} writes failed", failed[0], failed[1]);
}

#[test]
fn a_dead_disk_stops_every_start_before_a_handler_runs() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    scene.finish();
    let disk = BadDisk::below(&mut scene.daemon);
    scene.publish(20);
    for call in [Call::Sync, Call::Write] {
        disk.fail(&mut scene.daemon, call, 2, How::On);
        for _ in 0..3 {
            scene.daemon.spawn(&[]);
            let status = scene.daemon.wait_exit(DAEMON_TIMEOUT);
            assert_store_failed(&scene.daemon, status, "the disk fails, or a quota is used up");
            scene.note_crash();
        }
    }
    assert_eq!(scene.journal.len(), 0);
    disk.away(&mut scene.daemon);
    scene.finish();
    scene.judge();
}

/// The job asks what is recorded of a message, and the disk gives no answer.
#[test]
fn a_look_up_that_fails_ends_the_daemon() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    let disk = BadDisk::below(&mut scene.daemon);
    disk.fail(&mut scene.daemon, Call::Read, 1, How::On);
    disk.disarm(&mut scene.daemon);
    scene.publish(20);
    scene.daemon.start();
    scene.wait_until_settled();
    // Empties what the job's connection has cached.
    for command in ["pause", "resume"] {
        assert!(scene.daemon.run(&[command, "work"]).status.success());
    }
    disk.arm();
    // Keys that are dead are looked for in the file too.
    for id in ["rejected-8", "rejected-18"] {
        scene.vhost.publish(QUEUE, b"", with_id(id));
    }
    let status = scene.daemon.wait_exit(WORK_TIMEOUT);
    assert_store_failed(&scene.daemon, status, "the store cannot look up a key: ");
    assert!(disk.take_calls().changes_after.is_empty());
    scene.note_crash();
    disk.away(&mut scene.daemon);
    scene.finish();
    scene.judge();
}

/// The log is brought into the file every thousand pages, after a commit that succeeded.
#[test]
fn a_checkpoint_that_cannot_sync_ends_the_daemon() {
    // Nobody else may read the file once the disk has lost what was brought into it: SQLite's index, which readers share while
    // any of them lives, takes it for there. The next start finds all of it in the log. So no tap looks records up here.
    let mut scene = Scene::new(Vhost::new(), &Setup { tap: false, ..Setup::default() });
    let disk = BadDisk::below(&mut scene.daemon);
    disk.fail(&mut scene.daemon, Call::Sync, 1, How::Lose);
    disk.only(&mut scene.daemon, "warrend.db");
    disk.disarm(&mut scene.daemon);
    scene.daemon.start();
    disk.arm();
    scene.publish_fates([Fate::Rejected; 1000]);
    let status = scene.daemon.wait_exit(WORK_TIMEOUT);
    assert_store_failed(&scene.daemon, status, "the store cannot bring its log into the file: disk I/O error");
    scene.note_crash();
    disk.away(&mut scene.daemon);
    scene.finish();
    eprintln!("checkpoint: {}", scene.judge());
}

/// The chaos suite takes files away under load; an idle daemon notices it too.
#[test]
fn a_deleted_store_is_noticed_without_a_message() {
    let mut daemon = lonely();
    daemon.spawn(&[]);
    wait_ready(&mut daemon);
    fs::remove_file(daemon.store_path()).expect("the daemon made it");
    let status = daemon.wait_exit(DAEMON_TIMEOUT);
    assert_store_failed(&daemon, status, "put the file back, then start again");
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_what_to_do() {
    let writable = "must be writable for the user that warrend runs as";
    let mut daemon = lonely();
    let disk = BadDisk::below(&mut daemon);
    disk.read_only(&mut daemon);
    for _ in 0..2 {
        // At first there is no file; then there is one.
        daemon.spawn(&[]);
        let status = daemon.wait_exit(DAEMON_TIMEOUT);
        assert_store_failed(&daemon, status, writable);
        disk.away(&mut daemon);
        daemon.spawn(&[]);
        wait_ready(&mut daemon);
        assert!(daemon.terminate().success());
        BadDisk::below(&mut daemon).read_only(&mut daemon);
    }
    disk.away(&mut daemon);
    // A folder that cannot be made.
    daemon.store_at(PathBuf::from("/proc/warrend/warrend.db"));
    daemon.spawn(&[]);
    let status = daemon.wait_exit(DAEMON_TIMEOUT);
    assert_store_failed(&daemon, status, "the store cannot make its folder /proc/warrend");
}

#[test]
fn a_network_file_system_is_refused_and_check_warns_of_it() {
    let mut daemon = lonely();
    let disk = BadDisk::below(&mut daemon);
    let mounts = |folder: &str, kind: &str| {
        format!("22 1 254:1 / / rw - ext4 /dev/root rw\n30 22 0:40 / {folder} rw shared:9 - {kind} there rw\n")
    };
    let folder = daemon.folder().canonicalize().expect("it is there");
    let folder = folder.to_str().expect("UTF-8").to_owned();
    for kind in ["nfs4", "cifs", "fuse.sshfs"] {
        disk.mounts(&mut daemon, &mounts(&folder, kind));
        let expect = format!("lies on a network file system ({kind})");
        daemon.spawn(&[]);
        let status = daemon.wait_exit(DAEMON_TIMEOUT);
        assert_store_failed(&daemon, status, &expect);
        assert!(!daemon.store_path().exists(), "it was not touched");
        let check = daemon.run(&["check"]);
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(check.status.success() && said.contains("warning: ") && said.contains(&expect), "{said}");
    }
    disk.mounts(&mut daemon, &mounts(&folder, "9p"));
    daemon.spawn(&[]);
    wait_ready(&mut daemon);
    assert!(daemon.log().contains("may be shared with other machines (9p)"), "{}", daemon.log_tail());
}

#[test]
fn a_crash_is_followed_by_a_check_and_a_stop_in_good_order_is_not() {
    let mut daemon = lonely();
    let checks = |daemon: &Daemon| daemon.log().matches("checking the store").count();
    for (crashes, expect) in [(false, 0), (true, 0), (false, 1), (false, 1)] {
        daemon.spawn(&[]);
        wait_ready(&mut daemon);
        assert_eq!(checks(&daemon), expect, "{}", daemon.log_tail());
        if crashes {
            daemon.kill9();
        } else {
            assert!(daemon.terminate().success());
        }
    }
    assert!(daemon.log().contains("the store is whole"), "{}", daemon.log_tail());
}

#[test]
fn a_damaged_file_is_refused_after_a_crash_and_says_what_to_do() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    scene.publish(300);
    scene.finish();
    let path = scene.daemon.store_path().to_owned();
    let whole = fs::read(&path).expect("it is there");
    // Pages of tables and of the list of tables; the file's first bytes.
    for (from, to) in [(4096 * 4, 4096 * 5), (4096 * 2, 4096 * 8), (100, 4096), (0, 100)] {
        // A log that a start left would mend the file.
        let _ = fs::remove_file(path.with_extension("db-wal"));
        let mut damaged = whole.clone();
        damaged[from..to].fill(0x55);
        fs::write(&path, damaged).expect("it is writable");
        fs::write(path.with_extension("db.lock"), "1").expect("it is writable");
        scene.daemon.spawn(&[]);
        let status = scene.daemon.wait_exit(DAEMON_TIMEOUT);
        assert_store_failed(&scene.daemon, status, "restore a backup, or move the file away");
    }
    fs::write(&path, whole).expect("it is writable");
    scene.finish();
    scene.judge();
}

/// What a job must ask the file for is not there any more.
#[test]
fn a_file_that_is_damaged_while_it_is_used_ends_the_daemon_at_the_next_look_up() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    scene.publish(20);
    scene.finish();
    let path = scene.daemon.store_path().to_owned();
    let whole = fs::read(&path).expect("it is there");
    scene.daemon.start();
    // Empties what the job's connection has cached.
    for command in ["pause", "resume"] {
        assert!(scene.daemon.run(&[command, "work"]).status.success());
    }
    let file = fs::OpenOptions::new().write(true).open(&path).expect("it is writable");
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x55; whole.len() - 4096], 4096).expect("there is room");
    // A key that is dead is looked for in the file.
    scene.vhost.publish(QUEUE, b"", with_id("rejected-8"));
    let status = scene.daemon.wait_exit(WORK_TIMEOUT);
    assert_store_failed(&scene.daemon, status, "`warrend store verify` tells the damage");
    let verified = scene.daemon.run(&["store", "verify"]);
    assert_eq!(verified.status.code(), Some(EXIT_STORE), "{verified:?}");
    for beside in ["db-wal", "db-shm"] {
        let _ = fs::remove_file(path.with_extension(beside));
    }
    fs::write(&path, whole).expect("it is writable");
    scene.finish();
    scene.judge();
}
