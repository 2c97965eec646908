//! What a daemon costs that has nothing to do, and what it needs while a long queue waits.

use std::time::{Duration, Instant};

use crate::contestants::{Warrend, fill};
use crate::goals::Figures;
use crate::support::broker::Vhost;
use crate::support::{random_uuid, wait_until};
use crate::tree::{self, Memory};
use crate::{NAME, PREFETCH};

/// How long CPU time is gathered: a hundredth of a second is the kernel's unit, so this resolves 0.04 %.
const WATCHED: Duration = Duration::from_secs(25);
/// Messages that are drained of the long queue.
const DRAINED: u32 = 100_000;
const TOO_LONG: Duration = Duration::from_secs(120);

/// 1, 20 and 100 jobs, each with an empty queue of its own.
pub fn idle_jobs(figures: &mut Figures) {
    println!("\nIdle jobs, each with an empty queue, over {} s\n", WATCHED.as_secs());
    println!("{:>5}  {:>14}  {:>8}  {:>8}", "jobs", "% of one core", "PSS MiB", "peak MiB");
    for jobs in [1, 20, 100] {
        let vhost = Vhost::new();
        let mut tables = String::new();
        for job in 0..jobs {
            vhost.declare(&format!("idle-{job}"));
            let table =
                format!("[jobs.idle-{job}]\nqueue = \"idle-{job}\"\n[jobs.idle-{job}.handler]\ndiscard = true\n\n");
            tables.push_str(&table);
        }
        let mut warrend = Warrend::with_jobs(&vhost, &tables);
        warrend.daemon.start();
        // What follows the start once, and tells nobody that it is over.
        std::thread::sleep(Duration::from_secs(3));
        let (begin, before) = (Instant::now(), tree::cpu_seconds());
        // The time that is measured.
        std::thread::sleep(WATCHED);
        let percent = (tree::cpu_seconds() - before) / begin.elapsed().as_secs_f64() * 100.0;
        let mut memory = Memory::default();
        memory.sample();
        println!("{jobs:>5}  {percent:>14.2}  {:>8.1}  {:>8.1}", memory.tree, memory.largest);
        if jobs == 100 {
            figures.idle_percent = Some(percent);
        }
        warrend.end();
        tree::nothing_left();
    }
}

/// A tenth of a long queue is drained, by each of two handlers, while the rest waits.
pub fn long_queue(waiting: u32, figures: &mut Figures) {
    println!("\nMemory with {waiting} messages waiting, prefetch {PREFETCH}; a part of them is drained\n");
    println!("{:10}  {:>9}  {:>16}  {:>8}", "handler", "drained", "daemon peak MiB", "all MiB");
    let vhost = Vhost::new();
    fill(&vhost, waiting, random_uuid);
    let mut left = waiting;
    let mut highest: f64 = 0.0;
    for (name, handler) in
        [("discard", "discard = true"), ("worker", "worker = [\"PYTHON\", \"SCRIPTS/worker.py\"]\nbatch = 50")]
    {
        let mut warrend = Warrend::new(&vhost, &format!("concurrency = 2\nprefetch = {PREFETCH}"), handler, "");
        warrend.daemon.spawn(&[]);
        let enough = left.saturating_sub(DRAINED);
        let mut memory = Memory::default();
        wait_until("a part of the queue is drained", TOO_LONG, || {
            memory.sample();
            warrend.is_alive() && vhost.ready(NAME) <= Some(enough)
        });
        memory.sample();
        let peak = tree::peak_mib(warrend.daemon.pid().expect("it runs"));
        warrend.end();
        tree::nothing_left();
        let now = vhost.ready(NAME).unwrap_or_default();
        println!("{name:10}  {:>9}  {peak:>16.1}  {:>8.1}", left - now, memory.tree);
        left = now;
        highest = highest.max(peak);
    }
    figures.waiting_mib = Some(highest);
}
