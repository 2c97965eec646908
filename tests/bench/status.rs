//! How long `warrend status` takes with fifty jobs, from the start of its process to its end.

use std::time::{Duration, Instant};

use crate::contestants::Warrend;
use crate::goals::Figures;
use crate::support::broker::Vhost;
use crate::tree;

const JOBS: usize = 50;
const LOOKS: usize = 200;
/// Longer than the daemon takes a count for fresh: each look asks the broker for all queues.
const BETWEEN: Duration = Duration::from_millis(600);

/// Idle jobs, and then the same while one of them works.
pub fn run(figures: &mut Figures) {
    println!("\n`warrend status` with {JOBS} jobs, {LOOKS} times\n");
    println!("{:26}  {:>8}  {:>8}", "daemon", "p50 ms", "p99 ms");
    let vhost = Vhost::new();
    let job = |n| format!("[jobs.job-{n}]\nqueue = \"queue-{n}\"\n[jobs.job-{n}.handler]\ndiscard = true\n\n");
    let mut warrend = Warrend::with_jobs(&vhost, &(0..JOBS).map(job).collect::<String>());
    warrend.daemon.start();
    let idle = looks(&warrend, || {});
    println!("{:26}  {:>8.1}  {:>8.1}", "idle", at(&idle, 50), at(&idle, 99));
    let load = (0..2000).map(|n| format!("message {n}").into_bytes()).collect::<Vec<_>>();
    let busy =
        looks(&warrend, || vhost.publish_all("queue-7", load.iter().map(|body| (body.clone(), Default::default()))));
    println!("{:26}  {:>8.1}  {:>8.1}", "2000 messages before each", at(&busy, 50), at(&busy, 99));
    figures.status_p99 = Some(at(&idle, 99).max(at(&busy, 99)));
    warrend.end();
    tree::nothing_left();
}

/// Milliseconds, in order.
fn looks(warrend: &Warrend, mut before: impl FnMut()) -> Vec<f64> {
    let look = |_| {
        std::thread::sleep(BETWEEN);
        before();
        let begin = Instant::now();
        let output = warrend.daemon.run(&["status"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        begin.elapsed().as_secs_f64() * 1000.0
    };
    let mut took: Vec<f64> = (0..LOOKS).map(look).collect();
    took.sort_by(f64::total_cmp);
    took
}

/// The nearest rank: the smallest of them that so many percent are not above.
fn at(took: &[f64], percent: usize) -> f64 {
    took[(took.len() * percent).div_ceil(100).saturating_sub(1)]
}
