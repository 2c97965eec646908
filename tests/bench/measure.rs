//! Watches a contestant drain a queue, from outside, in the same way for all.

use std::time::{Duration, Instant};

use crate::NAME;
use crate::support::broker::Vhost;
use crate::support::wait_until;
use crate::tree::{self, Memory};

/// How often the broker is asked. Of a drain of five seconds it is a tenth of a percent.
const POLL: Duration = Duration::from_millis(5);
/// How often memory is looked at: the page tables of each process are walked for it.
const SAMPLE: Duration = Duration::from_millis(250);
/// A drain that takes longer hangs.
const TOO_LONG: Duration = Duration::from_secs(300);

/// What one drain took.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Messages a second.
    pub rate: f64,
    /// CPU time of all processes, microseconds a message.
    pub cpu: f64,
    /// The most memory.
    pub memory: Memory,
}

/// Watches the queue [`NAME`] with `messages` in it while the contestant that was just started drains it. It returns when
/// all are acknowledged. `is_alive` says whether the contestant still runs; one that ends too early fails the run.
///
/// The clock starts when all its `consumers` are there and the first message was handed out, and stops when the last one
/// is: neither the start of an interpreter counts nor how a contestant finds out that it is done. The first few, as many as
/// the prefetch, may be handed out before the clock starts; as many are in hand when it stops.
pub fn watch(vhost: &Vhost, messages: u32, consumers: u32, mut is_alive: impl FnMut() -> bool) -> Measured {
    let deadline = Instant::now() + TOO_LONG;
    let mut memory = Memory::default();
    let mut sampled = Instant::now();
    let mut start: Option<(Instant, u32, f64)> = None;
    let drained = vhost.with_channel(|channel| {
        loop {
            let queue = channel.queue_declare_passive(NAME)?;
            let now = Instant::now();
            let ready = queue.declared_message_count().unwrap_or(messages);
            if start.is_none() && ready < messages && queue.declared_consumer_count() >= Some(consumers) {
                start = Some((now, ready, tree::cpu_seconds()));
            }
            if ready == 0 {
                return Ok(now);
            }
            assert!(now < deadline, "the queue is not drained: {ready} messages are left");
            assert!(is_alive(), "the contestant ended with {ready} messages left");
            if sampled.elapsed() > SAMPLE {
                memory.sample();
                sampled = Instant::now();
            }
            std::thread::sleep(POLL);
        }
    });
    let end = drained.expect("the broker answers");
    let (begin, counted, cpu_before) = start.expect("there were enough messages to measure");
    memory.sample();
    let left = deadline.saturating_duration_since(Instant::now());
    wait_until("every message is acknowledged", left, || is_settled(vhost));
    let cpu = tree::cpu_seconds() - cpu_before;
    memory.sample();
    let counted = f64::from(counted);
    Measured { rate: counted / (end - begin).as_secs_f64(), cpu: cpu * 1e6 / counted, memory }
}

/// Whether no message is waiting or unacknowledged. The management API learns it once a second, on our node; what a
/// contestant burns while it is idle does not show.
fn is_settled(vhost: &Vhost) -> bool {
    let path = format!("/api/queues/{}/{NAME}?columns=messages", vhost.name());
    vhost.broker().management().call("GET", &path, None).is_ok_and(|queue| queue["messages"] == 0)
}

/// Of an even number, the mean of the middle two; `NaN` of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

/// The value below which that share of them lies.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
