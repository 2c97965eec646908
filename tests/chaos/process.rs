//! Faults of the daemon's own process, and of those that it starts.

use std::time::Duration;

use crate::row::{Figures, Row, Trial};
use crate::support::broker::Vhost;
use crate::support::scene::{Kind, Scene, Setup};

pub fn rows() -> Vec<Row> {
    vec![Row {
        name: "daemon-kill",
        fault: "`kill -9` of the daemon at a random moment under load, also while it starts",
        promises: "P1 P2 P3 P4",
        short: 15,
        long: 1000,
        seconds: 0.7,
        run: daemon_kill,
    }]
}

/// Worker processes are the cheapest handlers that can write a journal: a thousand messages a kill in the long form.
fn daemon_kill(trial: &Trial) -> Figures {
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
