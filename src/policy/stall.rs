//! Whether a queue that this job consumes still delivers to it.
//!
//! A consumer can look well from here while the broker does not count it any more, or counts it and gives it nothing. No
//! heartbeat sees that: the connection lives. So a queue from which nothing came for a while is looked at with a passive
//! declare, which tells how many messages are ready and how many consumers there are. Two sights are suspicious:
//!
//! - **Unconsumed**: the broker counts no consumer at all, although this job is one.
//! - **Starved**: messages are ready, this job has room for them, and none comes.
//!
//! One look proves nothing: a cancel may be on its way, or the first bytes of a large message. What is seen at every look
//! for a while, with nothing coming in between, is a stall, and the session is made anew.
//!
//! Starvation can also be in order: the queue has a single active consumer, and it is another one; consumers of a higher
//! priority take all. The first is believed where the queue's `arguments` say so. For the rest, each session that was made
//! anew in vain doubles how long the next one takes, until something comes: ten sessions in the first day, one in the
//! second, and what is seen stands in `status`. Being unconsumed is never in order, so there the waits end at an hour.

use std::time::{Duration, Instant};

use crate::config;
use crate::config::QueueKind;
use crate::task::{HeaderValue, QueueIndex};

/// The unit of all waits is the heartbeat, within these bounds: how soon a dead connection is to be noticed is also how
/// soon a dead consumer is.
const PACES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// That unit where heartbeats are off.
const PACE: Duration = Duration::from_secs(15);
/// The longest wait for a session that may change something about an unconsumed queue.
const LONGEST: Duration = Duration::from_secs(3600);
/// The argument that makes all consumers of a queue but one wait.
const SINGLE_ACTIVE: &str = "x-single-active-consumer";

/// What is known of a queue at the moment at which it was looked at.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    /// Messages that wait in it.
    pub ready: u32,
    /// Consumers that the broker counts, on all connections.
    pub consumers: u32,
    /// Whether this job has fewer open deliveries than its prefetch.
    pub room: bool,
}

/// What is wrong with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// The broker counts no consumer.
    Unconsumed,
    /// It has messages and gives us none.
    Starved,
}

/// A stall for which the session was made anew and which is not seen to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What is wrong.
    pub stall: Stall,
    /// Messages that waited at the last look.
    pub ready: u32,
    /// Since when.
    pub since: Instant,
    /// Sessions made anew because of it.
    pub rebuilds: u32,
}

/// The watch over the queues of one job; see the module's documentation.
#[derive(Debug)]
pub struct StallWatch {
    pace: Duration,
    queues: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    single_active: bool,
    quorum: bool,
    /// When it is looked at next; `None` while it is not consumed.
    due: Option<Instant>,
    /// What every look since then has shown.
    doubt: Option<(Stall, Instant)>,
    /// Sessions made anew because it was unconsumed, since it was last seen with a consumer.
    unconsumed: u32,
    /// Sessions made anew because it was starved, since something came last.
    starved: u32,
    seen: Option<Seen>,
}

impl StallWatch {
    /// Nothing is consumed yet.
    pub fn new<'q>(queues: impl IntoIterator<Item = &'q config::Queue>, heartbeat: Duration) -> Self {
        let pace = if heartbeat.is_zero() { PACE } else { heartbeat.clamp(PACES.0, PACES.1) };
        Self { pace, queues: queues.into_iter().map(Watched::new).collect() }
    }

    /// A consumer was made. `random`, drawn evenly from 0 to 1, spreads the looks of many jobs that start together.
    pub fn subscribed(&mut self, queue: QueueIndex, now: Instant, random: f64) {
        let quiet = self.quiet();
        let watched = &mut self.queues[queue];
        // Where it had stalled, soon: it is to be known whether the new session helped.
        let first = if watched.seen.is_some() { self.pace / 2 } else { quiet.mul_f64(0.5 + random / 2.0) };
        (watched.due, watched.doubt) = (Some(now + first), None);
    }

    /// The queue is not consumed now, in good order or because the broker ended the consumer.
    pub fn unsubscribed(&mut self, queue: QueueIndex) {
        let watched = &mut self.queues[queue];
        (watched.due, watched.doubt, watched.seen) = (None, None, None);
    }

    /// The session is over. What is wrong with a queue may be wrong in the next one too.
    pub fn lost(&mut self) {
        for watched in &mut self.queues {
            (watched.due, watched.doubt) = (None, None);
        }
    }

    /// Messages came from the queue: its consumer lives.
    pub fn arrived(&mut self, queue: QueueIndex, now: Instant) {
        let quiet = self.quiet();
        let watched = &mut self.queues[queue];
        // What comes after the consumer's end was on its way before.
        if watched.due.is_some() {
            watched.due = Some(now + quiet);
        }
        (watched.doubt, watched.seen, watched.starved) = (None, None, 0);
    }

    /// A queue to look at now; tell [`StallWatch::saw`] what was seen.
    pub fn due(&self, now: Instant) -> Option<QueueIndex> {
        self.queues.iter().position(|queue| queue.due.is_some_and(|due| due <= now))
    }

    /// What a look has shown; `None` where that cannot be known. Gives the stall for which the session must be made anew.
    pub fn saw(&mut self, queue: QueueIndex, now: Instant, sight: Option<Sight>) -> Option<Stall> {
        let (pace, quiet) = (self.pace, self.quiet());
        let watched = &mut self.queues[queue];
        let stall = sight.and_then(|sight| watched.judge(sight));
        let (Some(stall), Some(sight)) = (stall, sight) else {
            (watched.due, watched.doubt) = (Some(now + quiet), None);
            return None;
        };
        let since = watched.doubt.filter(|(doubted, _)| *doubted == stall).map_or(now, |(_, since)| since);
        let patience = watched.patience(stall, pace);
        if let Some(seen) = watched.seen.as_mut().filter(|seen| seen.stall == stall) {
            seen.ready = sight.ready;
        }
        if now < since + patience {
            watched.doubt = Some((stall, since));
            // A long wait needs no closer look than a queue that is well.
            watched.due = Some(now + (patience / 4).clamp(pace / 2, quiet));
            return None;
        }
        let first = watched.seen.filter(|seen| seen.stall == stall).map_or(since, |seen| seen.since);
        let rebuilds = watched.count(stall);
        *rebuilds = rebuilds.saturating_add(1);
        let rebuilds = *rebuilds;
        watched.seen = Some(Seen { stall, ready: sight.ready, since: first, rebuilds });
        (watched.due, watched.doubt) = (None, None);
        Some(stall)
    }

    /// The stalls that are not seen to be over.
    pub fn seen(&self) -> impl Iterator<Item = (QueueIndex, Seen)> + '_ {
        self.queues.iter().enumerate().filter_map(|(index, queue)| Some((index, queue.seen?)))
    }

    /// How long nothing comes before the broker is asked, and between two looks while all is well.
    fn quiet(&self) -> Duration {
        2 * self.pace
    }
}

impl Watched {
    fn new(queue: &config::Queue) -> Self {
        Self {
            single_active: queue.arguments.get(SINGLE_ACTIVE) == Some(&HeaderValue::Bool(true)),
            quorum: queue.kind == QueueKind::Quorum,
            due: None,
            doubt: None,
            unconsumed: 0,
            starved: 0,
            seen: None,
        }
    }

    /// What one look shows; nothing where all is well, or not known. What it disproves is forgotten.
    fn judge(&mut self, sight: Sight) -> Option<Stall> {
        let Sight { ready, consumers, room } = sight;
        if consumers == 0 {
            // RabbitMQ says so of a quorum queue too whose leader does not answer within 250 ms. Nothing waits there.
            return if self.quorum && ready == 0 { None } else { Some(Stall::Unconsumed) };
        }
        self.unconsumed = 0;
        if ready > 0 && room && !self.single_active {
            self.seen = self.seen.filter(|seen| seen.stall == Stall::Starved);
            return Some(Stall::Starved);
        }
        // It may be starved again when the next message waits, and be counted on; for now nobody waits.
        self.seen = None;
        None
    }

    /// How long a stall must last. From the second session on that was made anew in vain, twice as long as before.
    fn patience(&mut self, stall: Stall, pace: Duration) -> Duration {
        let doubled = 1_u32 << (*self.count(stall)).min(30);
        match stall {
            Stall::Unconsumed => pace.saturating_mul(doubled).min(LONGEST),
            Stall::Starved => (2 * pace).saturating_mul(doubled),
        }
    }

    fn count(&mut self, stall: Stall) -> &mut u32 {
        match stall {
            Stall::Unconsumed => &mut self.unconsumed,
            Stall::Starved => &mut self.starved,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::retry::tests::job;
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(15);
    const WELL: Sight = Sight { ready: 0, consumers: 1, room: true };
    const UNCONSUMED: Sight = Sight { ready: 3, consumers: 0, room: true };
    const STARVED: Sight = Sight { ready: 3, consumers: 2, room: true };

    /// A watch over one queue, and a broker that shows it the same thing for as long as asked.
    struct Scene {
        watch: StallWatch,
        start: Instant,
        now: Instant,
        looks: usize,
    }

    fn queue() -> config::Queue {
        job().queues[0].clone()
    }

    impl Scene {
        fn new(queue: &config::Queue) -> Self {
            let now = Instant::now();
            let mut watch = StallWatch::new([queue], HEARTBEAT);
            watch.subscribed(0, now, 1.0);
            Self { watch, start: now, now, looks: 0 }
        }

        /// Second by second, as the loop turns. The seconds from the start at which the session was made anew.
        fn show(&mut self, sight: Sight, lasting: Duration) -> Vec<u64> {
            let (until, mut rebuilds) = (self.now + lasting, Vec::new());
            while self.now < until {
                self.now += Duration::from_secs(1);
                if self.watch.due(self.now).is_none() {
                    continue;
                }
                self.looks += 1;
                if self.watch.saw(0, self.now, Some(sight)).is_some() {
                    rebuilds.push((self.now - self.start).as_secs());
                    self.watch.lost();
                    self.watch.subscribed(0, self.now, 1.0);
                }
            }
            rebuilds
        }

        fn seen(&self) -> Option<(Stall, u32)> {
            self.watch.seen().next().map(|(_, seen)| (seen.stall, seen.rebuilds))
        }
    }

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn a_queue_that_is_well_is_looked_at_twice_a_minute() {
        let mut scene = Scene::new(&queue());
        assert_eq!(scene.show(WELL, minutes(60)), [0; 0]);
        assert_eq!((scene.looks, scene.seen()), (120, None));
    }

    #[test]
    fn a_queue_that_delivers_is_not_looked_at() {
        let mut scene = Scene::new(&queue());
        for _ in 0..100 {
            assert_eq!(scene.show(UNCONSUMED, Duration::from_secs(29)), [0; 0]);
            scene.watch.arrived(0, scene.now);
        }
        assert_eq!(scene.looks, 0);
    }

    #[test]
    fn a_lost_consumer_is_found_within_a_minute_and_the_first_good_look_ends_it() {
        for lost in [UNCONSUMED, Sight { ready: 0, ..UNCONSUMED }, Sight { room: false, ..UNCONSUMED }] {
            let mut scene = Scene::new(&queue());
            // The looks: after 30 s, every 7.5 s while in doubt, and 15 s of doubt make a stall.
            assert_eq!(scene.show(lost, Duration::from_secs(47)), [46]);
            assert_eq!(scene.seen(), Some((Stall::Unconsumed, 1)));
            scene.show(WELL, Duration::from_secs(8));
            assert_eq!(scene.seen(), None);
            assert_eq!(scene.show(lost, minutes(1)).len(), 1, "the next one is found as soon");
        }
    }

    #[test]
    fn starvation_is_found_within_a_minute_or_so() {
        let mut scene = Scene::new(&queue());
        assert_eq!(scene.show(STARVED, Duration::from_secs(63)), [62]);
        assert_eq!(scene.seen(), Some((Stall::Starved, 1)));
        scene.watch.arrived(0, scene.now);
        assert_eq!(scene.seen(), None);
        assert_eq!(scene.show(STARVED, Duration::from_secs(63)).len(), 1, "the next one is found as soon");
    }

    /// One look shows little: a large message may be on its way, a cancel too.
    #[test]
    fn what_is_not_seen_all_the_time_is_no_stall() {
        for doubtful in [UNCONSUMED, STARVED] {
            for _ in 0..50 {
                let mut scene = Scene::new(&queue());
                assert_eq!(scene.show(doubtful, Duration::from_secs(44)), [0; 0]);
                scene.show(WELL, Duration::from_secs(8));
                assert_eq!(scene.seen(), None);
            }
        }
    }

    #[test]
    fn what_looks_alike_and_is_in_order_makes_no_session() {
        let mut single = queue();
        single.arguments.insert(SINGLE_ACTIVE.to_owned(), HeaderValue::Bool(true));
        let quorum = config::Queue { kind: QueueKind::Quorum, ..queue() };
        for (queue, sight) in [
            // Another one is the active consumer.
            (&single, STARVED),
            // The prefetch is used up by long runs.
            (&queue(), Sight { room: false, ..STARVED }),
            // The leader of a quorum queue does not answer.
            (&quorum, Sight { ready: 0, ..UNCONSUMED }),
        ] {
            let mut scene = Scene::new(queue);
            assert_eq!(scene.show(sight, minutes(600)), [0; 0], "{sight:?}");
            assert_eq!(scene.seen(), None);
        }
        for queue in [&single, &quorum] {
            assert_eq!(Scene::new(queue).show(UNCONSUMED, minutes(1)).len(), 1, "what is never in order still counts");
        }
    }

    /// The standby of a single active consumer of which the configuration does not know.
    #[test]
    fn a_new_session_that_changes_nothing_makes_the_next_one_later() {
        let mut scene = Scene::new(&queue());
        let day = scene.show(STARVED, minutes(24 * 60));
        assert!((8..=11).contains(&day.len()), "{day:?}");
        assert!(scene.show(STARVED, minutes(24 * 60)).len() <= 1);
        assert_eq!(scene.seen().map(|(stall, _)| stall), Some(Stall::Starved));
        // Nobody waits for a moment: that says nothing about the next time.
        scene.show(WELL, minutes(1));
        assert_eq!(scene.seen(), None);
        assert_eq!(scene.show(STARVED, minutes(24 * 60)), [0; 0]);
        scene.watch.arrived(0, scene.now);
        assert_eq!(scene.show(STARVED, minutes(2)).len(), 1);

        let mut scene = Scene::new(&queue());
        let day = scene.show(UNCONSUMED, minutes(24 * 60)).len();
        assert!((25..=32).contains(&day), "{day}");
        assert!((22..=24).contains(&scene.show(UNCONSUMED, minutes(24 * 60)).len()), "one an hour");
    }

    #[test]
    fn what_is_not_consumed_is_not_looked_at() {
        let mut scene = Scene::new(&queue());
        scene.watch.unsubscribed(0);
        scene.watch.arrived(0, scene.now);
        assert_eq!(scene.show(UNCONSUMED, minutes(60)), [0; 0]);
        assert_eq!(scene.looks, 0);
        scene.watch.subscribed(0, scene.now, 0.0);
        assert!(scene.watch.due(scene.now + HEARTBEAT).is_some(), "the first look comes early, to spread many jobs");
    }

    #[test]
    fn the_pace_is_the_heartbeat_within_bounds() {
        for (heartbeat, pace) in [(0, 15), (1, 2), (5, 5), (15, 15), (600, 30)] {
            let watch = StallWatch::new([&queue()], Duration::from_secs(heartbeat));
            assert_eq!(watch.pace, Duration::from_secs(pace));
        }
    }

    fn sights() -> impl Strategy<Value = Option<Sight>> {
        let sight = (0..3_u32, 0..3_u32, any::<bool>());
        proptest::option::weighted(0.95, sight.prop_map(|(ready, consumers, room)| Sight { ready, consumers, room }))
    }

    proptest! {
        /// Whatever is seen: no stall without doubt for the whole of its patience, and none without a look.
        #[test]
        fn a_stall_was_seen_at_every_look_of_its_patience(
            steps in prop::collection::vec((0..40_u64, sights(), any::<bool>()), 0..200),
        ) {
            let mut scene = Scene::new(&queue());
            let mut doubted: Option<(Stall, Instant)> = None;
            for (seconds, sight, came) in steps {
                scene.now += Duration::from_secs(seconds);
                if came {
                    scene.watch.arrived(0, scene.now);
                    doubted = None;
                }
                if scene.watch.due(scene.now).is_none() {
                    continue;
                }
                let shown = sight.and_then(|sight| match sight {
                    Sight { consumers: 0, .. } => Some(Stall::Unconsumed),
                    Sight { ready: 1.., room: true, .. } => Some(Stall::Starved),
                    Sight { .. } => None,
                });
                doubted = match (shown, doubted) {
                    (Some(shown), Some((before, since))) if shown == before => Some((shown, since)),
                    (shown, _) => shown.map(|shown| (shown, scene.now)),
                };
                if let Some(stall) = scene.watch.saw(0, scene.now, sight) {
                    let (shown, since) = doubted.take().expect("a stall is seen");
                    prop_assert_eq!(stall, shown);
                    prop_assert!(scene.now >= since + HEARTBEAT);
                    scene.watch.lost();
                    scene.watch.subscribed(0, scene.now, 0.5);
                }
            }
        }
    }
}
