//! `make bench`: how fast warrend empties a queue, measured against a bare consumer on the same machine and broker.
//!
//! In each round a fresh durable queue is filled with persistent messages and drained, once by a bare amiquip consumer
//! (prefetch 1000, one `multiple` ack for every 100 messages, nothing else) and once by `warrend run` with a `discard`
//! handler (the same prefetch and ack batch, idempotency on, every record on the disk before its ack). Which of the
//! two goes first changes from round to round, so that neither always gets the warmer broker.
//!
//! What makes the two comparable:
//! - Each is a process of its own; CPU time and peak memory are those of the whole process, start and end included.
//! - The time is taken by the driver, from outside, in the same way for both: it asks the broker every few milliseconds
//!   how many messages are ready, and counts from the first that was handed out to the last. So neither process's
//!   start-up counts, nor how it finds out that it is done. Handing out the last message takes the acks of all but the
//!   last 1000 before it (the prefetch), so what is measured is the same 99.5 % of the work on both sides.
//! - One thing is not the same: warrend makes its job threads batch workers (`src/background.rs`), and the bare consumer
//!   keeps the default policy. `chrt -b 0 make bench` gives it to both, where the broker runs already.
//! - Afterwards everything must be settled: the queue empty when its consumer is gone, and warrend's counters equal to
//!   what was published. Anything else fails the run. Slowness does not.
//!
//! `ROUNDS` and `MESSAGES` in the environment change the defaults. The binary calls itself with `bare` for the consumer.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod support;

mod bare;
mod machine;
mod measure;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use measure::{Measured, measure};
use support::broker::{Broker, Vhost, with_id};
use support::daemon::{DAEMON_TIMEOUT, Daemon};

/// Unacknowledged messages.
const PREFETCH: u16 = 1000;
/// Messages for one ack.
const ACK_BATCH: usize = 100;
/// Bytes of a message.
const BODY: usize = 256;
/// The queue, and the job that drains it.
const NAME: &str = "bench";

fn main() -> ExitCode {
    // `cargo bench` adds a flag for its own harness.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["bare", url, queue, messages] => {
            bare::consume(url, queue, messages.parse().expect("a number of messages"));
        }
        _ => drive(number_from("ROUNDS", 3), u32::try_from(number_from("MESSAGES", 200_000)).expect("a sane number")),
    }
    ExitCode::SUCCESS
}

fn number_from(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a whole number: {text}")),
        Err(_) => default,
    }
}

/// All rounds, and what they come to. A loss or a wrong count panics, which is exit code 101.
fn drive(rounds: usize, messages: u32) {
    println!("{}", machine::facts(Broker::get()));
    println!("{messages} persistent messages of {BODY} bytes, prefetch {PREFETCH}, an ack for every {ACK_BATCH}\n");
    println!(
        "{:>5}  {:8}  {:>10}  {:>8}  {:>10}  {:>6}",
        "round", "consumer", "messages/s", "CPU us", "peak MiB", "ratio"
    );
    let mut bare = Vec::new();
    let mut warrend = Vec::new();
    for round in 1..=rounds {
        let warrend_first = round % 2 == 0;
        for second in [false, true] {
            let vhost = Vhost::new();
            fill(&vhost, messages);
            if warrend_first == second {
                bare.push(drain_bare(&vhost, messages));
            } else {
                warrend.push(drain_warrend(&vhost, messages));
            }
        }
        let (bare, warrend) = (&bare[round - 1], &warrend[round - 1]);
        row(round, "bare", bare, messages, "");
        row(round, "warrend", warrend, messages, &format!("{:.3}", ratio(bare, warrend)));
    }
    let pairs = || bare.iter().zip(&warrend);
    println!();
    println!(
        "median ratio warrend to bare   {:.3}",
        median(pairs().map(|(bare, warrend)| ratio(bare, warrend)).collect())
    );
    let cpu = |all: &[Measured]| median(all.iter().map(|one| cpu_micros(one, messages)).collect());
    println!("median CPU us a message        bare {:.1}, warrend {:.1}", cpu(&bare), cpu(&warrend));
    let peak = |all: &[Measured]| all.iter().map(|one| one.peak_mib).fold(0.0, f64::max);
    println!("highest peak MiB               bare {:.1}, warrend {:.1}", peak(&bare), peak(&warrend));
}

fn row(round: usize, name: &str, measured: &Measured, messages: u32, ratio: &str) {
    let rate = f64::from(messages) / measured.drain.as_secs_f64();
    let cpu = cpu_micros(measured, messages);
    println!("{round:>5}  {name:8}  {rate:>10.0}  {cpu:>8.1}  {:>10.1}  {ratio:>6}", measured.peak_mib);
}

/// The ratio of the rates is the inverse of that of the times.
fn ratio(bare: &Measured, warrend: &Measured) -> f64 {
    bare.drain.as_secs_f64() / warrend.drain.as_secs_f64()
}

fn cpu_micros(measured: &Measured, messages: u32) -> f64 {
    measured.cpu.as_secs_f64() * 1e6 / f64::from(messages)
}

/// Of an even number, the mean of the middle two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

fn fill(vhost: &Vhost, messages: u32) {
    vhost.declare(NAME);
    vhost.publish_all(NAME, (0..messages).map(|_| (vec![b'.'; BODY], with_id(&support::random_uuid().to_string()))));
    assert_eq!(vhost.ready(NAME), Some(messages), "the queue is filled");
}

fn drain_bare(vhost: &Vhost, messages: u32) -> Measured {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["bare", &vhost.url(), NAME, &messages.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .expect("this program can be started again");
    let measured = measure(vhost, NAME, messages, child.id(), || {});
    assert!(child.wait().expect("a child can be waited for").success(), "the bare consumer failed");
    assert_eq!(vhost.ready(NAME), Some(0), "the bare consumer left messages behind");
    measured
}

fn drain_warrend(vhost: &Vhost, messages: u32) -> Measured {
    let job = format!(
        "[jobs.{NAME}]\nqueue = \"{NAME}\"\nprefetch = {PREFETCH}\n\n[jobs.{NAME}.handler]\ndiscard = true\n\n\
         [jobs.{NAME}.ack]\nbatch = {ACK_BATCH}\n"
    );
    let mut daemon = Daemon::new(vhost, &job);
    // On the disk where the build is: a commit into memory would cost nothing.
    let folder =
        tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the build's folder can be written");
    daemon.store_at(folder.path().join("warrend.db"));
    // Without --until-empty: its counters are asked for before it goes.
    daemon.spawn(&[]);
    let pid = daemon.pid().expect("it is started");
    let measured = measure(vhost, NAME, messages, pid, || {
        let expected = u64::from(messages);
        daemon.wait_until("every message is counted as done", DAEMON_TIMEOUT, |daemon| {
            daemon.counter(NAME, "done") >= expected
        });
        let counted = |name| (name, daemon.counter(NAME, name));
        let counters = ["received", "done", "duplicates", "retried", "dead"].map(counted);
        let right = [("received", expected), ("done", expected), ("duplicates", 0), ("retried", 0), ("dead", 0)];
        assert_eq!(counters, right, "warrend's counters");
        daemon.signal(rustix::process::Signal::TERM);
    });
    let status = daemon.wait_exit(Duration::from_secs(40));
    assert!(status.success(), "warrend ended with {status}\n{}", daemon.log_tail());
    assert_eq!(vhost.ready(NAME), Some(0), "warrend left messages behind");
    measured
}
