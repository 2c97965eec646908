//! `make soak`: an hour of steady work with a fault every minute, after which nothing must have grown.
//!
//! Messages are published at a steady rate, the daemon runs a program for each, and keys are remembered for two minutes, so
//! that after a while as much is forgotten as comes in: from then on whatever grows is a leak. Every minute something
//! happens that the daemon must survive. The same oracle as that of the rows judges the end.
//!
//! The environment: `SOAK` (minutes, 60), `RATE` (messages a second, 500), `SEED`.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::plan::{minutes, text_from};
use crate::support::broker::Vhost;
use crate::support::node::Node;
use crate::support::number_from;
use crate::support::scene::{Kind, Scene, Setup};

/// How long keys are remembered.
const RETENTION: &str = "queue = \"work\"\nidempotency = { retention = \"2m\" }\nprefetch = 100";
/// Samples from then on count: what is kept for [`RETENTION`] has been forgotten for the first time, and the allocator has
/// seen every kind of fault.
const WARM: Duration = Duration::from_secs(240);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const FAULT_EVERY: Duration = Duration::from_secs(60);
/// How long broker or job stand still.
const STANDSTILL: Duration = Duration::from_secs(4);

type Fault = fn(&mut Scene, &Node);

/// What happens every minute, in turn.
const FAULTS: [(&str, Fault); 5] = [
    ("handlers killed", kill_handlers),
    ("connections closed", close_connections),
    ("broker frozen", freeze_broker),
    ("memory alarm", alarm),
    ("job paused", pause),
];

fn kill_handlers(scene: &mut Scene, _: &Node) {
    let children = scene.daemon.children();
    scene.note_spent(children.len());
    for child in children {
        // One that ended meanwhile was quicker.
        let _ = kill_process(child, Signal::KILL);
    }
}

fn close_connections(scene: &mut Scene, _: &Node) {
    scene.note_outage();
    scene.vhost.close_connections();
}

fn freeze_broker(_: &mut Scene, node: &Node) {
    node.freeze();
    std::thread::sleep(STANDSTILL);
    node.thaw();
}

fn alarm(_: &mut Scene, node: &Node) {
    node.alarm(true);
    std::thread::sleep(STANDSTILL);
    node.alarm(false);
}

fn pause(scene: &mut Scene, _: &Node) {
    assert!(scene.daemon.run(&["pause", "work"]).status.success(), "{}", scene.daemon.log_tail());
    std::thread::sleep(STANDSTILL);
    assert!(scene.daemon.run(&["resume", "work"]).status.success(), "{}", scene.daemon.log_tail());
}

/// What the daemon had at one moment.
struct Sample {
    /// Since the start.
    at: Duration,
    /// In the order of [`GAUGES`].
    values: [f64; GAUGES.len()],
}

/// What is measured, and how much more of it there may be at the end of the time that counts than at its beginning, by the
/// line through all samples. A leak of one thing a fault would be some fifty in an hour, and one of ten bytes a message
/// eighteen megabytes; an allocator that settles, and a sample in the
/// middle of a fault, stay below these.
const GAUGES: [(&str, f64); 5] =
    [("memory MiB", 4.0), ("descriptors", 2.0), ("threads", 2.0), ("children", 2.0), ("store MiB", 8.0)];

impl Sample {
    /// The least of several looks: a handler that runs has a process and five descriptors, and a leak has them always.
    fn take(scene: &Scene, at: Duration) -> Self {
        const LOOKS: usize = 20;
        let mut values = [f64::MAX; GAUGES.len()];
        for _ in 0..LOOKS {
            let looked = Self::look(scene);
            values = std::array::from_fn(|place| values[place].min(looked[place]));
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { at, values }
    }

    fn look(scene: &Scene) -> [f64; GAUGES.len()] {
        let id = scene.daemon.pid().expect("the daemon of the soak is started");
        let count = |folder: &str| fs::read_dir(format!("/proc/{id}/{folder}")).map_or(0, Iterator::count) as f64;
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let resident: f64 = resident.and_then(|text| text.parse().ok()).expect("a living process has a size");
        let store = fs::metadata(scene.daemon.store_path()).map_or(0, |file| file.len()) as f64;
        let children = scene.daemon.children().len() as f64;
        [resident / 1024.0, count("fd"), count("task"), children, store / 1024.0 / 1024.0]
    }

    fn print(&self, published: usize, what: &str) {
        let [memory, descriptors, threads, children, store] = self.values;
        println!(
            "{:>7}  {published:>9}  {memory:>10.1}  {descriptors:>11}  {threads:>7}  {children:>8}  {store:>9.1}  {what}",
            format!("{} s", self.at.as_secs()),
        );
    }
}

/// Least squares: how much a value grows in an hour.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if below == 0.0 { 0.0 } else { above / below }
}

/// Runs it to its end; the exit code says whether all was well.
pub fn run() -> ExitCode {
    let length = Duration::from_secs(60 * number_from("SOAK", 60) as u64);
    let rate = number_from("RATE", 500);
    let seed = text_from("SEED").and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(1..1_000_000_000));
    fastrand::seed(seed);
    let node = Node::start();
    let setup = Setup {
        job: RETENTION,
        retry: "max_crashes = 100",
        handler: Kind::Command(""),
        cycle: 100,
        forgets: true,
        ..Setup::default()
    };
    let mut scene = Scene::new(Vhost::on(node.broker()), &setup);
    scene.daemon.start();
    println!("{} at {rate} messages a second, a fault every minute, seed {seed}\n", minutes(length));
    println!("   time  published  memory MiB  descriptors  threads  children  store MiB");
    let samples = work(&mut scene, &node, length, rate);
    scene.wait_until_counted();
    scene.stop();
    let verdict = scene.verdict();
    println!("\n{verdict}");
    let flat = judge(&samples);
    for wrong in &verdict.wrong {
        println!("{wrong}");
    }
    if flat && verdict.wrong.is_empty() && verdict.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Publishes, injects and samples until the time is over.
fn work(scene: &mut Scene, node: &Node, length: Duration, rate: usize) -> Vec<Sample> {
    /// At one time: after a standstill the rest follows little by little.
    const AT_ONCE: usize = 500;
    let started = Instant::now();
    let (mut samples, mut published, mut faults) = (Vec::new(), 0, 0);
    while started.elapsed() < length {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as usize;
        let count = due.saturating_sub(published).min(AT_ONCE);
        scene.publish(count);
        published += count;
        let now = started.elapsed();
        let mut what = "";
        if now >= FAULT_EVERY * (faults as u32 + 1) {
            let (name, inject) = FAULTS[faults % FAULTS.len()];
            (what, faults) = (name, faults + 1);
            inject(scene, node);
        }
        if !what.is_empty() || now >= SAMPLE_EVERY * samples.len() as u32 {
            let sample = Sample::take(scene, started.elapsed());
            if !what.is_empty() || samples.len() % 12 == 0 {
                sample.print(published, what);
            }
            samples.push(sample);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(scene.daemon.is_alive(), "the daemon ended\n{}", scene.daemon.log_tail());
    samples
}

/// Prints the slopes; whether nothing grew by more than it may.
fn judge(samples: &[Sample]) -> bool {
    let Some(last) = samples.last() else { return false };
    // A run that is too short to get warm is judged by its second half.
    let from = WARM.min(last.at / 2);
    let counted: Vec<_> = samples.iter().filter(|sample| sample.at >= from).collect();
    let hours = (last.at - from).as_secs_f64() / 3600.0;
    println!("\n{} samples of the last {}, by the line through them:\n", counted.len(), minutes(last.at - from));
    println!("{:12}  {:>10}  {:>12}  {:>12}  {:>9}", "", "mean", "slope / h", "grew by", "may grow");
    let mut flat = true;
    for (place, (name, most)) in GAUGES.iter().enumerate() {
        let points: Vec<_> =
            counted.iter().map(|sample| (sample.at.as_secs_f64() / 3600.0, sample.values[place])).collect();
        let mean = points.iter().map(|(_, value)| value).sum::<f64>() / points.len() as f64;
        let slope = slope(&points);
        let grew = slope * hours;
        let word = if grew > *most { "GROWS" } else { "flat" };
        flat &= grew <= *most;
        println!("{name:12}  {mean:>10.2}  {slope:>+12.2}  {grew:>+12.2}  {most:>9.1}  {word}");
    }
    flat
}
