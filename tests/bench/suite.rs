//! `make bench`: what warrend and its peers cost on this machine, in one run.
//!
//! The table: in each round every contestant of `contestants.rs` gets a fresh durable queue with persistent messages of
//! 256 bytes and drains it; the order is turned round from round to round, so that none always gets the warmer broker. What is
//! shown are medians over the rounds. `measure.rs` says how time is taken, `tree.rs` how CPU time and memory.
//! Then come measurements of their own: waiting times (`waits.rs`), drains with a full store (`stored.rs`), idle jobs and
//! a long queue (`idle.rs`), `warrend status` with many jobs (`status.rs`); and `goals.rs` says what of this was meant to be reached.
//!
//! Every message must be settled: the queue empty when its consumer is gone, and warrend's counters equal to what was
//! published. Anything else fails the run. Slowness does not.
//!
//! The environment changes what runs: `ROUNDS` (5), `MESSAGES` (of the fastest contestants; the others' follow, 200000),
//! `ONLY` (names or their beginnings, with commas between them), `MILLIONS` (of stored keys, 0,1,10), `WAITING` (messages
//! of the long queue, 1000000), `BASELINE` (another build of warrend that drains too). The binary calls itself with `bare` for one contestant.
#![expect(clippy::print_stdout, reason = "the tables are what this program is for")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod support;

mod bare;
mod contestants;
mod goals;
mod idle;
mod machine;
mod measure;
mod status;
mod stored;
mod table;
mod tree;
mod waits;

use std::process::ExitCode;

use goals::Figures;
use support::broker::Broker;

/// Unacknowledged messages, where a contestant takes that many.
const PREFETCH: u16 = 1000;
/// Messages for one ack.
const ACK_BATCH: usize = 100;
/// Bytes of a message.
const BODY: usize = 256;
/// The queue, and the job that drains it.
const NAME: &str = "bench";
/// What `MESSAGES` is if it is not said.
const MESSAGES: usize = 200_000;

fn main() -> ExitCode {
    // `cargo bench` adds a flag for its own harness.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["bare", url, queue, messages] => {
            bare::consume(url, queue, messages.parse().expect("a number of messages"));
        }
        _ => drive(&Plan::from_environment()),
    }
    ExitCode::SUCCESS
}

/// What is to run.
struct Plan {
    rounds: usize,
    messages: usize,
    /// Nothing means everything.
    only: Vec<String>,
    millions: Vec<u32>,
    waiting: u32,
}

impl Plan {
    fn from_environment() -> Self {
        let words = |text: String| text.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>();
        let plan = Self {
            rounds: number_from("ROUNDS", 5),
            messages: number_from("MESSAGES", MESSAGES),
            only: text_from("ONLY").map(words).unwrap_or_default(),
            millions: text_from("MILLIONS").map_or_else(
                || vec![0, 1, 10],
                |text| words(text).iter().map(|word| word.parse().expect("MILLIONS are whole numbers")).collect(),
            ),
            waiting: u32::try_from(number_from("WAITING", 1_000_000)).expect("a sane number"),
        };
        let names = contestants::ALL.iter().map(|contestant| contestant.name);
        let names: Vec<&str> = names.chain(["latency", "priority", "stored", "idle", "waiting", "status"]).collect();
        let unknown = plan.only.iter().find(|word| !names.iter().any(|name| name.starts_with(word.as_str())));
        assert!(unknown.is_none(), "ONLY={} matches none of {}", unknown.unwrap_or(&String::new()), names.join(", "));
        plan
    }

    fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.starts_with(word.as_str()))
    }
}

/// What stands in the environment and is not empty.
fn text_from(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}

fn number_from(variable: &str, default: usize) -> usize {
    text_from(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a whole number: {text}")))
}

/// Everything that was asked for. A loss or a wrong count panics, which is exit code 101.
fn drive(plan: &Plan) {
    tree::adopt_orphans();
    println!("{}", machine::facts(Broker::get()));
    let mut figures = Figures::default();
    table::run(plan, &mut figures);
    if plan.has("latency") {
        waits::latency(plan.rounds, &mut figures);
    }
    if plan.has("priority") {
        waits::priority(plan.rounds, &mut figures);
    }
    if plan.has("stored") {
        stored::run(plan, &mut figures);
    }
    if plan.has("idle") {
        idle::idle_jobs(&mut figures);
    }
    if plan.has("waiting") {
        idle::long_queue(plan.waiting, &mut figures);
    }
    if plan.has("status") {
        status::run(&mut figures);
    }
    goals::print(&figures);
}
