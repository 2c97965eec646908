//! Faults of the daemon's own process: it is killed, aborted, stopped, frozen, and its threads panic.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::row::{Figures, Row, Run, Trial};
use crate::support::broker::{BROKER_TIMEOUT, Vhost};
use crate::support::daemon::DAEMON_TIMEOUT;
use crate::support::scene::{Kind, QUEUE, Scene, Setup, WORK_TIMEOUT};
use crate::support::wait_until;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "daemon-kill",
            fault: "`kill -9` of the daemon at a random moment under load, also while it starts",
            promises: "P1 P2 P3 P4",
            short: 8,
            long: 1000,
            seconds: 0.7,
            run: Run::Here(kill),
        },
        Row {
            name: "daemon-abort",
            fault: "the daemon aborts at a failpoint, one in each crash window of a message, all of them in turn",
            promises: "P1 P2 P3 P4",
            short: 11,
            long: 220,
            seconds: 1.5,
            run: Run::Here(abort),
        },
        Row {
            name: "daemon-sigterm",
            fault: "SIGTERM under load; every fourth time a second one, which ends running handlers",
            promises: "P1 P3",
            short: 6,
            long: 200,
            seconds: 1.0,
            run: Run::Here(sigterm),
        },
        Row {
            name: "daemon-sigstop",
            fault: "SIGSTOP of the daemon until the broker has given it up, 90 s in the long form, then SIGCONT",
            promises: "P1 P3 P7",
            short: 1,
            long: 2,
            seconds: 95.0,
            run: Run::Here(sigstop),
        },
        Row {
            name: "thread-panic",
            fault: "a worker thread (inside of its handler, or outside), the recorder, the publisher, the thread of a job or one \
                    that connects panics at a failpoint: the daemon lives on, or ends with 70",
            promises: "P1 P3 P5",
            short: 10,
            long: 100,
            seconds: 1.8,
            run: Run::Here(panic),
        },
    ]
}

/// Worker processes are the cheapest handlers that can write a journal: a thousand messages a kill in the long form.
fn kill(trial: &Trial) -> Figures {
    let each = if trial.long { 1000 } else { 200 };
    let setup = Setup {
        job: "queue = \"work\"\nprefetch = 400",
        concurrency: 2,
        handler: Kind::Worker(20, Duration::ZERO),
        cycle: if trial.long { 100 } else { 10 },
        ..Setup::default()
    };
    let mut scene = Scene::new(Vhost::new(), &setup);
    scene.publish(each * trial.count);
    for _ in 0..trial.count {
        if fastrand::u8(..10) == 0 {
            scene.daemon.spawn(&[]);
            std::thread::sleep(Duration::from_millis(fastrand::u64(..300)));
        } else {
            scene.spawn();
            // So spread that the load lasts for all kills.
            scene.wait_for_runs(fastrand::u64(1..2 * each as u64 * 8 / 10));
        }
        scene.kill9();
    }
    scene.finish();
    Figures::of(trial.count, scene.verdict())
}

/// Messages published before each abort.
const ROUND: usize = 60;

/// Every failpoint that a message passes in `warrend run`, and about how many passes of it a load of [`ROUND`] messages makes.
const FAILPOINTS: [(&str, u64); 10] = [
    ("connect", 2),
    ("before-run", 60),
    ("command-started", 60),
    ("after-run", 60),
    ("before-commit", 25),
    ("after-commit", 25),
    ("before-publish", 12),
    ("after-publish", 12),
    ("before-ack", 10),
    ("after-ack", 10),
];
/// Those of worker processes.
const WORKER_FAILPOINTS: [(&str, u64); 1] = [("worker-answered", 4)];

fn abort(trial: &Trial) -> Figures {
    same_as_in_the_sources();
    // Aborts on purpose leave nothing to look at.
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    setrlimit(Resource::Core, limit).expect("a limit can be lowered");
    let all = FAILPOINTS.len() + WORKER_FAILPOINTS.len();
    let of_commands = (0..trial.count).map(|turn| turn % all).filter(|turn| *turn < FAILPOINTS.len());
    let of_commands: Vec<_> = of_commands.map(|turn| FAILPOINTS[turn]).collect();
    let of_workers = vec![WORKER_FAILPOINTS[0]; trial.count - of_commands.len()];
    let worker = Setup { concurrency: 2, handler: Kind::Worker(20, Duration::ZERO), ..Setup::default() };
    abort_at(&Setup::default(), &of_commands).and(abort_at(&worker, &of_workers))
}

fn abort_at(setup: &Setup, places: &[(&str, u64)]) -> Figures {
    let mut scene = Scene::new(Vhost::new(), setup);
    for (name, passes) in places {
        scene.publish(ROUND);
        let place = format!("{name}:{}", fastrand::u64(1..=*passes));
        scene.daemon.env("WARREND_FAILPOINT", &place);
        scene.daemon.spawn(&[]);
        let status = scene.daemon.wait_exit(WORK_TIMEOUT);
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{place}: {status}\n{}", scene.daemon.log_tail());
        scene.note_crash();
    }
    scene.daemon.env_remove("WARREND_FAILPOINT");
    scene.finish();
    Figures::of(places.len(), scene.verdict())
}

/// Those of one-shot commands, and of threads that only answer: no message is in their hands.
const OTHER_FAILPOINTS: [&str; 6] =
    ["replay-confirmed", "watch-drawn", "control-asked", "alerts-look", "web-accepted", "web-asked"];

/// A failpoint that is added on the way of a message is one to abort at.
fn same_as_in_the_sources() {
    let known = FAILPOINTS.iter().chain(&WORKER_FAILPOINTS).map(|(name, _)| (*name).to_owned());
    let known: std::collections::BTreeSet<String> = known.chain(OTHER_FAILPOINTS.map(str::to_owned)).collect();
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = std::collections::BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src/ can be read") {
            let path = entry.expect("src/ can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            let names = text.split("failpoint::hit(\"").skip(1).filter_map(|after| after.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
    assert_eq!(known, found, "the failpoints of this row and those in src/");
}

fn sigterm(trial: &Trial) -> Figures {
    let command = Setup { handler: Kind::Command("sleep 0.01"), ..Setup::default() };
    let worker = Setup { concurrency: 2, handler: Kind::Worker(5, Duration::from_millis(1)), ..Setup::default() };
    let half = trial.count / 2;
    terminate(&command, half).and(terminate(&worker, trial.count - half))
}

fn terminate(setup: &Setup, count: usize) -> Figures {
    let mut scene = Scene::new(Vhost::new(), setup);
    scene.publish(150 * count);
    for turn in 0..count {
        scene.spawn();
        scene.wait_for_runs(fastrand::u64(1..100));
        if turn % 4 == 3 {
            scene.daemon.signal(Signal::TERM);
            // Handlers that are ended in the middle run again, like those of a crash.
            scene.stop();
            scene.note_crash();
        } else {
            scene.stop_at_work();
        }
    }
    scene.finish();
    Figures::of(count, scene.verdict())
}

fn sigstop(trial: &Trial) -> Figures {
    let broker = "heartbeat = \"5s\"\nreconnect = { initial = \"50ms\", max = \"500ms\" }";
    let setup = Setup { broker, handler: Kind::Command("sleep 0.02"), ..Setup::default() };
    let mut scene = Scene::new(Vhost::new(), &setup);
    scene.spawn();
    for _ in 0..trial.count {
        scene.publish(400);
        scene.wait_for_runs(fastrand::u64(20..100));
        let frozen = Instant::now();
        scene.note_outage();
        scene.daemon.signal(Signal::STOP);
        wait_until("the broker gives the daemon up", 2 * BROKER_TIMEOUT, || scene.vhost.consumers(QUEUE) == Some(0));
        if trial.long {
            std::thread::sleep(Duration::from_secs(90).saturating_sub(frozen.elapsed()));
        }
        scene.daemon.signal(Signal::CONT);
        scene.wait_for_work(Instant::now());
    }
    scene.wait_until_settled();
    scene.stop();
    Figures::of(trial.count, scene.verdict())
}

/// Where a thread panics, in which kind of handler, and whether the daemon lives on.
const PANICS: [(&str, bool, bool); 10] = [
    // Worker threads, inside of the handler: the attempt failed, and nothing else.
    ("command-started", false, true),
    ("worker-answered", true, true),
    // The same threads outside of it.
    ("before-run", false, false),
    ("after-run", true, false),
    // The recorder, the publisher, the job.
    ("before-commit", false, false),
    ("after-commit", true, false),
    ("before-publish", false, false),
    ("after-publish", false, false),
    ("before-ack", true, false),
    // What connects the job or the publisher.
    ("connect", false, true),
];

fn panic(trial: &Trial) -> Figures {
    let turns = || (0..trial.count).map(|turn| PANICS[turn % PANICS.len()]);
    let worker = Setup { concurrency: 2, handler: Kind::Worker(WORKER_BATCH, Duration::ZERO), ..Setup::default() };
    let of_commands = panic_at(&Setup::default(), turns().filter(|(_, of_workers, _)| !of_workers));
    of_commands.and(panic_at(&worker, turns().filter(|(_, of_workers, _)| *of_workers)))
}

const WORKER_BATCH: usize = 5;

fn panic_at(setup: &Setup, places: impl Iterator<Item = (&'static str, bool, bool)>) -> Figures {
    let mut scene = Scene::new(Vhost::new(), setup);
    let mut count = 0;
    for (name, of_workers, lives) in places {
        count += 1;
        if lives {
            // An attempt that is spent must not be the last one of its message: what waits for its second one goes first.
            scene.daemon.env_remove("WARREND_FAILPOINT");
            scene.finish();
        }
        scene.publish(ROUND);
        // Early, for the same reason.
        let place = format!("{name}:{}:panic", if name == "connect" { 1 } else { fastrand::u64(1..=4) });
        if lives && name != "connect" {
            scene.note_spent(if of_workers { WORKER_BATCH } else { 1 });
        }
        scene.daemon.env("WARREND_FAILPOINT", &place);
        if lives {
            scene.spawn();
            let panicked = format!("the failpoint {name} was told to panic");
            scene.daemon.wait_until("a thread panics", DAEMON_TIMEOUT, |daemon| daemon.log().contains(&panicked));
            scene.wait_until_settled();
            scene.stop_at_work();
        } else {
            scene.daemon.spawn(&[]);
            let status = scene.daemon.wait_exit(WORK_TIMEOUT);
            assert_eq!(status.code(), Some(70), "{place}: {status}\n{}", scene.daemon.log_tail());
            scene.note_crash();
        }
    }
    scene.daemon.env_remove("WARREND_FAILPOINT");
    scene.finish();
    Figures::of(count, scene.verdict())
}
