//! Faults of the store: its disk is full, fails, or goes away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::row::{Figures, Row, Run, Trial};
use crate::support::baddisk::{BadDisk, Call, How};
use crate::support::broker::{BROKER_TIMEOUT, Vhost};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::scene::{Fate, QUEUE, Scene, Setup, WORK_TIMEOUT};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "disk-full",
            fault: "the store's disk has no room (ENOSPC from a preloaded library) until every job has paused, then it has",
            promises: "P1 P2 P3",
            short: 2,
            long: 50,
            seconds: 6.0,
            run: Run::Here(disk_full),
        },
        Row {
            name: "tmpfs-full",
            fault: "the same with a file system of 4 MiB that is full, where one can be mounted",
            promises: "P1 P3",
            short: 1,
            long: 10,
            seconds: 7.0,
            run: Run::Here(tmpfs_full),
        },
        Row {
            name: "eio-sync",
            fault: "the n-th fsync of the store fails with EIO (a preloaded library), for every n: exit 74, then a start",
            promises: "P1 P2 P3",
            short: 25,
            long: 200,
            seconds: 1.2,
            run: Run::Here(sync),
        },
        Row {
            name: "eio-sync-loses",
            fault: "the same, and what was written since the file's last fsync is gone, as after a power cut",
            promises: "P1 P2 P3",
            short: 25,
            long: 200,
            seconds: 1.2,
            run: Run::Here(sync_that_loses),
        },
        Row {
            name: "eio-write",
            fault: "the n-th write to the store fails with EIO and leaves half of its bytes, for every n (in short, for some)",
            promises: "P1 P2 P3",
            short: 20,
            long: 400,
            seconds: 1.2,
            run: Run::Here(write),
        },
        Row {
            name: "store-vanishes",
            fault: "the store, its log or its lock is moved away, or replaced by a copy, under the daemon: exit 74; it is put back",
            promises: "P1 P3",
            short: 4,
            long: 100,
            seconds: 2.0,
            run: Run::Here(vanish),
        },
    ]
}

/// The exit code of a store that cannot do its part.
const EXIT_STORE: i32 = 74;
/// What `status` says of a full disk, in part.
const FULL: &str = "the disk of the store is full: make room";

fn disk_full(trial: &Trial) -> Figures {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    let disk = BadDisk::below(&mut scene.daemon);
    scene.daemon.start();
    for turn in 0..trial.count {
        begin_anew(&mut scene, turn);
        fill_and_make_room(&mut scene, || disk.fill(), || disk.make_room(), || disk.calls_so_far());
    }
    scene.stop();
    Figures::of(trial.count, scene.verdict())
}

/// Room for the log of a few faults.
const DISK_KIB: u32 = 4 << 10;

/// Each fault adds some half a MiB to the store's log, which is written from its beginning again after 4 MiB: then work would go
/// on in the room that the file has already, and no disk be full. A stop in good order takes the log away.
fn begin_anew(scene: &mut Scene, turn: usize) {
    if turn > 0 && turn.is_multiple_of(4) {
        scene.stop();
        scene.daemon.start();
    }
}

fn tmpfs_full(trial: &Trial) -> Figures {
    let mut scene = Scene::new(Vhost::new(), &Setup { tap: false, ..Setup::default() });
    let Some(small) = SmallDisk::mount(DISK_KIB) else {
        return Figures::not_tried("this user may not mount a file system; disk-full stands in for it");
    };
    scene.daemon.store_at(small.path().join("warrend.db"));
    scene.daemon.start();
    for turn in 0..trial.count {
        begin_anew(&mut scene, turn);
        fill_and_make_room(&mut scene, || small.fill(), || small.make_room(), || usize::MAX);
    }
    scene.stop();
    Figures::of(trial.count, scene.verdict())
}

/// The disk fills up under load, and is given room again. `tries` counts what the recorder has tried to write, as far as
/// that can be seen.
fn fill_and_make_room(scene: &mut Scene, fill: impl Fn(), make_room: impl Fn(), tries: impl Fn() -> usize) {
    scene.publish(120);
    scene.wait_for_runs(fastrand::u64(5..40));
    let said = times_said(scene);
    fill();
    scene.daemon.wait_until("status tells of the full disk", DAEMON_TIMEOUT, |daemon| problems(daemon).contains(FULL));
    scene.daemon.wait_until("nothing is consumed", BROKER_TIMEOUT, |daemon| {
        let status = daemon.status().unwrap_or_default();
        let job = &status["jobs"]["work"];
        let idle = job["running"] == 0 && job["buffered"] == 0 && job["queues"][QUEUE]["consumers"] == 0;
        idle && job["state"] == "paused" && job["reason"] == "the disk of the store is full"
    });
    assert!(scene.vhost.ready(QUEUE) > Some(0), "it was filled before all was done");
    let runs = scene.journal.len();
    let tried = tries();
    scene.daemon.wait_until("the recorder tries again", DAEMON_TIMEOUT, |_| tries() >= tried.saturating_add(3));
    assert_eq!(scene.journal.len(), runs, "handlers ran though nothing can be recorded");
    assert_eq!(times_said(scene), said + 1, "it is said once\n{}", scene.daemon.log_tail());

    make_room();
    scene.wait_until_settled();
    scene.daemon.wait_until("all is well", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["healthy"] == true)
    });
}

fn problems(daemon: &Daemon) -> String {
    daemon.status().map(|status| status["problems"].to_string()).unwrap_or_default()
}

fn times_said(scene: &Scene) -> usize {
    scene.daemon.log().matches("no job takes messages meanwhile").count()
}

/// A file system in memory that is unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Of that many KiB. `None` where mounting is not allowed.
    fn mount(kib: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("warrend-small-").tempdir().expect("a folder can be made").keep();
        let size = format!("size={kib}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        let disk = Self(folder);
        mounted.then_some(disk)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut size = 1 << 20;
        let mut ballast = Vec::new();
        while size >= 512 {
            ballast.resize(ballast.len() + size, 0);
            if fs::write(self.path().join("ballast"), &ballast).is_err() {
                ballast.truncate(ballast.len() - size);
                size /= 2;
            }
        }
        // The last one that did not fit is there in part: it takes what was left.
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).expect("the disk was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}

fn sync(trial: &Trial) -> Figures {
    fail_each(trial, Call::Sync, How::Once)
}

fn sync_that_loses(trial: &Trial) -> Figures {
    fail_each(trial, Call::Sync, How::Lose)
}

fn write(trial: &Trial) -> Figures {
    fail_each(trial, Call::Write, How::Once)
}

/// Lets one call after another fail, each in a daemon of its own, from the first to the last of a whole run, and begins
/// anew until there were as many faults as asked for. Few faults are spread over a run.
fn fail_each(trial: &Trial, call: Call, how: How) -> Figures {
    /// About as many writes has a run. Syncs are fewer, and none is left out.
    const WRITES: usize = 80;
    let step = if call == Call::Write { WRITES.div_ceil(trial.count) as u64 } else { 1 };
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    // What fails while the file is made is another test.
    scene.finish();
    let disk = BadDisk::below(&mut scene.daemon);
    let (mut faults, mut number, mut rounds) = (0, fastrand::u64(1..=step), 0);
    while faults < trial.count || rounds == 0 {
        let mut fates = vec![Fate::Plain; 6];
        fates.extend([Fate::Rejected; 2]);
        // Waits a second for its retry.
        fates.extend((number % 5 == 0).then_some(Fate::Again));
        scene.publish_fates(fates);
        disk.fail(&mut scene.daemon, call, number, how);
        scene.daemon.spawn(&["--until-empty"]);
        let status = scene.daemon.wait_exit(WORK_TIMEOUT);
        let calls = disk.take_calls();
        if calls.failed {
            assert_eq!(status.code(), Some(EXIT_STORE), "{status}\n{}", scene.daemon.log_tail());
            assert!(calls.changes_after.is_empty(), "after number {number}: {:?}", calls.changes_after);
            scene.note_crash();
            faults += 1;
            number += step;
        } else {
            // The whole run had fewer calls.
            assert_eq!(status.code(), Some(0), "{status}\n{}", scene.daemon.log_tail());
            (number, rounds) = (fastrand::u64(1..=step), rounds + 1);
        }
    }
    disk.away(&mut scene.daemon);
    scene.finish();
    let mut figures = Figures::of(faults, scene.verdict());
    figures.note = format!("{rounds} times every {step}. call of a run");
    figures
}

fn vanish(trial: &Trial) -> Figures {
    let mut scene = Scene::new(Vhost::new(), &Setup { tap: false, ..Setup::default() });
    for turn in 0..trial.count {
        scene.publish(60);
        scene.spawn();
        scene.wait_for_runs(fastrand::u64(1..30));
        let (name, is_replaced) =
            [("warrend.db", false), ("warrend.db", true), ("warrend.db-wal", false), ("warrend.db.lock", false)]
                [turn % 4];
        let path = scene.daemon.folder().join(name);
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).expect("the file is there");
        if is_replaced {
            fs::copy(&aside, &path).expect("there is room for a copy");
        }
        let status = scene.daemon.wait_exit(DAEMON_TIMEOUT);
        let what = if is_replaced { "was replaced while" } else { "was deleted or moved while" };
        let told = format!("warrend: the store {} {what}", path.display());
        assert_eq!(status.code(), Some(EXIT_STORE), "{status}\n{}", scene.daemon.log_tail());
        assert!(scene.daemon.log_tail().contains(&told), "{told} is missing\n{}", scene.daemon.log_tail());
        // As it says: put back, nothing is lost.
        fs::rename(&aside, &path).expect("the file is aside");
        scene.note_crash();
    }
    scene.finish();
    Figures::of(trial.count, scene.verdict())
}
