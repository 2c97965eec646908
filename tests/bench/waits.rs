//! How long a message waits for its handler: under a light load, and in front of a long queue.
//!
//! The worker notes when a task starts (`worker.py`); what it is compared with is the clock of the same machine.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use amiquip::{AmqpValue, FieldTable};
use tempfile::TempPath;

use crate::contestants::{Warrend, body};
use crate::goals::Figures;
use crate::measure::{median, percentile};
use crate::support::broker::{Vhost, with_id};
use crate::support::{random_uuid, wait_until};
use crate::{NAME, tree};

/// Messages a second.
const RATE: u32 = 200;
/// Messages of a round, the first second apart.
const PACED: u32 = 5 * RATE;
/// Messages in front of the urgent ones.
const LOW: u32 = 20_000;
/// Urgent messages of a round, one at a time.
const URGENT: usize = 10;
/// What a handler takes there.
const HANDLER: Duration = Duration::from_millis(10);
/// How long a message may wait before something is wrong.
const TOO_LONG: Duration = Duration::from_secs(30);

const WORKER: &str = "worker = [\"PYTHON\", \"SCRIPTS/worker.py\"]";

/// From just before the publish to the start of the Python worker's task, at 200 messages a second.
pub fn latency(rounds: usize, figures: &mut Figures) {
    println!("\nFrom publishing to the start in the Python worker, {RATE} messages/s, ms\n");
    println!("{:>5}  {:>7}  {:>7}  {:>7}  {:>7}", "round", "p50", "p90", "p99", "most");
    let mut p99 = Vec::new();
    for round in 1..=rounds {
        let waits = paced();
        let at = |share| percentile(waits.clone(), share);
        println!("{round:>5}  {:>7.2}  {:>7.2}  {:>7.2}  {:>7.2}", at(0.5), at(0.9), at(0.99), at(1.0));
        p99.push(at(0.99));
    }
    figures.latency_p99 = Some(median(p99));
}

fn paced() -> Vec<f64> {
    let vhost = Vhost::new();
    vhost.declare(NAME);
    let (mut warrend, starts) = worker(&vhost, "concurrency = 2", 0);
    warrend.daemon.start();
    // The first second is for what happens once.
    let all = RATE + PACED;
    let begin = Instant::now();
    let published = vhost.with_channel(|channel| {
        for n in 0..all {
            let due = begin + Duration::from_secs(1) / RATE * n;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let id = random_uuid().to_string();
            let body = body(&id, &stamp(now_nanos()));
            channel.basic_publish("", amiquip::Publish::with_properties(&body, NAME, with_id(&id)))?;
        }
        Ok(())
    });
    published.expect("the broker takes the messages");
    wait_until("every message has started", TOO_LONG, || lines(&starts) >= all as usize);
    let waits = read(&starts).into_iter().map(|(sent, started)| millis(sent, started));
    let waits = waits.skip(RATE as usize).collect();
    warrend.stop(all);
    tree::nothing_left();
    waits
}

/// From the publisher's confirm of a message of priority 9 to its start, with 20,000 of priority 0 in the queue.
pub fn priority(rounds: usize, figures: &mut Figures) {
    let handler = HANDLER.as_secs_f64() * 1000.0;
    println!("\nThe wait of a message of priority 9 behind {LOW} of priority 0, ms; the handler takes {handler} ms\n");
    println!("{:>5}  {:>11}  {:>7}  {:>7}  {:>13}", "round", "concurrency", "median", "most", "most/handler");
    let mut worst = Vec::new();
    for round in 1..=rounds {
        for concurrency in [1, 2] {
            let waits = urgent(concurrency);
            let most = waits.iter().copied().fold(0.0, f64::max);
            println!("{round:>5}  {concurrency:>11}  {:>7.2}  {most:>7.2}  {:>13.2}", median(waits), most / handler);
            // A single worker is the harder case: the wait holds what is left of the task in hand.
            if concurrency == 1 {
                worst.push(most / handler);
            }
        }
    }
    figures.priority = Some(median(worst));
}

fn urgent(concurrency: usize) -> Vec<f64> {
    let vhost = Vhost::new();
    let mut arguments = FieldTable::new();
    arguments.insert("x-max-priority".to_owned(), AmqpValue::ShortShortInt(10));
    vhost.declare_with(NAME, arguments);
    let low = |_| {
        let id = random_uuid().to_string();
        (body(&id, ""), with_id(&id).with_priority(0))
    };
    vhost.publish_all(NAME, (0..LOW).map(low));
    let table = format!("concurrency = {concurrency}\nprefetch = 8");
    let (mut warrend, starts) = worker(&vhost, &table, HANDLER.as_millis());
    warrend.daemon.start();
    wait_until("the queue is being worked off", TOO_LONG, || vhost.ready(NAME) < Some(LOW - 20));
    let mut waits = Vec::new();
    for n in 0..URGENT {
        let id = random_uuid().to_string();
        let message = body(&id, &stamp(n as u128));
        vhost.publish(NAME, message, with_id(&id).with_priority(9));
        let confirmed = now_nanos();
        wait_until("an urgent message has started", TOO_LONG, || lines(&starts) > n);
        let (_, started) = read(&starts)[n];
        // It may start before its confirm is here.
        waits.push(millis(confirmed, started.max(confirmed)));
        // At another point of the task in hand each time.
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..60)));
    }
    warrend.end();
    tree::nothing_left();
    waits
}

/// A daemon with the Python worker, and the file in which the worker notes its starts.
fn worker(vhost: &Vhost, table: &str, sleep_ms: u128) -> (Warrend, TempPath) {
    let starts = tempfile::Builder::new().prefix("warrend-starts-").tempfile().expect("a temporary file can be made");
    let starts = starts.into_temp_path();
    let handler = format!("{WORKER}\nenv = {{ BENCH_STARTS = {:?}, BENCH_SLEEP_MS = \"{sleep_ms}\" }}", &*starts);
    (Warrend::new(vhost, table, &handler, ""), starts)
}

fn stamp(value: u128) -> String {
    format!(", \"stamp\": {value}")
}

fn lines(starts: &Path) -> usize {
    read(starts).len()
}

/// Stamp and time of each start, in the order of the starts.
fn read(starts: &Path) -> Vec<(u128, u128)> {
    let text = std::fs::read_to_string(starts).unwrap_or_default();
    // A line that is being written has no end yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers = |line: &str| {
        let (stamp, now) = line.split_once(' ')?;
        Some((stamp.parse().ok()?, now.parse().ok()?))
    };
    whole.lines().filter_map(numbers).collect()
}

fn now_nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos()
}

fn millis(from: u128, to: u128) -> f64 {
    (to as f64 - from as f64) / 1e6
}
