//! Faults of the processes that the daemon starts.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::row::{Figures, Row, Run, Trial};
use crate::support::broker::Vhost;
use crate::support::scene::{Kind, Scene, Setup, WORK_TIMEOUT};

pub fn rows() -> Vec<Row> {
    vec![Row {
        name: "handler-kill",
        fault: "`kill -9` of a program that handles a message, or of a worker process in the middle of a batch",
        promises: "P1 P3 P5",
        short: 10,
        long: 400,
        seconds: 0.15,
        run: Run::Here(kill),
    }]
}

/// What else than a killed process could spend the attempts of a message is left out of its budget.
const MANY_CRASHES: &str = "max_crashes = 100";

fn kill(trial: &Trial) -> Figures {
    let command = Setup { retry: MANY_CRASHES, handler: Kind::Command("sleep 0.02"), ..Setup::default() };
    let worker = Setup {
        retry: MANY_CRASHES,
        concurrency: 2,
        handler: Kind::Worker(5, Duration::from_millis(2)),
        ..Setup::default()
    };
    let half = trial.count / 2;
    kill_some(&command, half).and(kill_some(&worker, trial.count - half))
}

fn kill_some(setup: &Setup, count: usize) -> Figures {
    let mut scene = Scene::new(Vhost::new(), setup);
    scene.publish(40 * count);
    scene.spawn();
    for _ in 0..count {
        scene.wait_for_runs(fastrand::u64(1..25));
        // One that ends meanwhile is quicker than the signal.
        scene.daemon.wait_until("a handler is killed", WORK_TIMEOUT, |daemon| {
            let children = daemon.children();
            fastrand::choice(&children).is_some_and(|child| kill_process(*child, Signal::KILL).is_ok())
        });
        scene.note_spent(1);
    }
    // What a killed process had taken beside its task may have been handed back when the stop came: it runs again.
    scene.stop();
    scene.finish();
    Figures::of(count, scene.verdict())
}
