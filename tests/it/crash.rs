//! The daemon is killed at random moments, as by the kernel when memory runs out.

use std::time::Duration;

use crate::support::broker::Vhost;
use crate::support::number_from;
use crate::support::scene::{Scene, Setup};

/// `WARREND_KILLS=100` is the long form: 200 messages a kill.
#[test]
fn killed_at_random_moments_nothing_is_lost_and_nothing_recorded_runs_again() {
    let kills = number_from("WARREND_KILLS", 10);
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    scene.publish(200 * kills);
    // So spread that the load lasts for all kills.
    let between = 2 * scene.runs_needed() as u64 * 7 / 10 / kills as u64;
    for _ in 0..kills {
        scene.daemon.spawn(&[]);
        if fastrand::u8(..10) == 0 {
            // Also while it starts.
            std::thread::sleep(Duration::from_millis(fastrand::u64(..300)));
        } else {
            scene.wait_for_runs(fastrand::u64(1..between));
        }
        scene.daemon.kill9();
        scene.note_crash();
    }
    scene.finish();
    let verdict = scene.judge();
    assert_eq!(verdict.crashes, kills);
    eprintln!("{verdict}");
}
