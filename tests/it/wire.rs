//! The network between daemon and broker is slow, cuts frames into pieces, swallows them or breaks.
//!
//! All of it goes by way of the fault proxy, and the tap judges every frame: see `support/tap.rs` for its rules. Whatever the
//! network does, nothing is lost (promise P1), nothing is acknowledged before its record and the confirm of its copy (P2),
//! nothing that was recorded runs again (P3), no ack reaches past an open delivery (P4), and the daemon comes back (P7).

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::broker::Vhost;
use crate::support::daemon::DAEMON_TIMEOUT;
use crate::support::number_from;
use crate::support::proxy::{Door, Faults, Proxy, Way};
use crate::support::scene::{Fate, Kind, Scene, Setup};
use crate::support::tap::Role;

/// The smallest heartbeat there is.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The daemon goes by two heartbeats since it last heard something; the second more is for a busy machine.
const TWO: Duration = Duration::from_secs(2 * HEARTBEAT.as_secs() + 1);
/// RabbitMQ looks once a heartbeat whether anything came, and hangs up when nothing did for the second time.
const THREE: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs() + 1);
/// How long it may take to connect again once nothing is in the way.
const RESUME: Duration = Duration::from_secs(5);
/// So slow that a load lasts for a while.
const SLOW: &str = "sleep 0.02";

const BLACK: Faults = Faults { latency: Duration::ZERO, jitter: Duration::ZERO, slice: None, rate: None, hole: true };

/// A daemon that gives a silent broker up quickly, and comes back quickly.
fn impatient() -> Scene {
    let broker = "heartbeat = \"1s\"\nconnect_timeout = \"1s\"\nreconnect = { initial = \"10ms\", max = \"100ms\" }";
    Scene::new(Vhost::new(), &Setup { broker, handler: Kind::Command(SLOW), ..Setup::default() })
}

/// Whatever the pace of the bytes.
fn a_load_passes(faults: Faults) -> String {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    Way::BOTH.into_iter().for_each(|way| scene.daemon.wire().set(way, faults));
    scene.publish(200);
    scene.daemon.start();
    scene.wait_until_settled();
    scene.stop();
    let verdict = scene.judge();
    let report = scene.daemon.wire().report();
    assert_eq!(report.connections, 2, "one of the job, one of the publisher; none was lost");
    let [to_broker, to_daemon] = Way::BOTH.map(|way| report.bytes(way));
    format!("{verdict}; {to_broker} bytes to the broker, {to_daemon} to the daemon")
}

#[test]
fn a_load_passes_in_slices_of_one_byte() {
    eprintln!("{}", a_load_passes(Faults { slice: Some(1), ..Faults::default() }));
}

#[test]
fn a_load_passes_with_latency() {
    let (latency, jitter) = (Duration::from_millis(30), Duration::from_millis(30));
    eprintln!("{}", a_load_passes(Faults { latency, jitter, ..Faults::default() }));
}

#[test]
fn a_load_passes_with_little_bandwidth() {
    eprintln!("{}", a_load_passes(Faults { rate: Some(30_000), ..Faults::default() }));
}

/// The connections that the daemon has not left, and that are as old as that.
fn is_left(wire: &Proxy, newest: u64) -> bool {
    wire.report().links.iter().all(|link| link.left || link.number > newest)
}

/// What befalls the daemon's connections in the middle of something, and how soon it must have left them.
/// `WARREND_LOSSES=20` is the long form.
fn check_loss(what: &str, limit: Duration, strike: impl Fn(&Proxy), mend: impl Fn(&Proxy)) -> String {
    let mut told = String::new();
    let mut scene = impatient();
    scene.daemon.start();
    let losses = number_from("WARREND_LOSSES", 2);
    for loss in 0..losses {
        let busy = loss % 2 == 1;
        if busy {
            scene.publish(200);
            scene.wait_for_runs(30);
        }
        scene.note_outage();
        let newest = scene.daemon.wire().report().linked;
        let struck = Instant::now();
        strike(scene.daemon.wire());
        scene.daemon.wait_until(&format!("{what} is noticed"), limit, |daemon| is_left(daemon.wire(), newest));
        let noticed = struck.elapsed();
        mend(scene.daemon.wire());
        let mended = Instant::now();
        scene.daemon.wait_until("it is connected again", RESUME, |daemon| {
            let links = daemon.wire().report().links;
            let has = |role| links.iter().any(|link| !link.left && link.number > newest && link.role == role);
            has(Role::Job) && has(Role::Publisher)
        });
        let place = if busy { "under load" } else { "while idle" };
        let mended = mended.elapsed();
        told += &format!("{what} {place}: noticed after {noticed:?}, connected {mended:?} after it was mended\n");
        // Not only connected.
        scene.publish(10);
        scene.wait_until_settled();
    }
    scene.stop();
    format!("{told}{losses} losses of both connections; {}", scene.judge())
}

#[test]
fn what_swallows_all_that_the_daemon_sends_is_noticed_in_time() {
    eprintln!("{}", check_hole(&[Way::ToBroker], THREE));
}

#[test]
fn what_swallows_all_that_the_broker_sends_is_noticed_in_time() {
    eprintln!("{}", check_hole(&[Way::ToDaemon], TWO));
}

#[test]
fn what_swallows_everything_is_noticed_in_time() {
    eprintln!("{}", check_hole(&Way::BOTH, TWO));
}

fn check_hole(ways: &[Way], limit: Duration) -> String {
    let each = |wire: &Proxy, faults| ways.iter().for_each(|way| wire.set(*way, faults));
    let what = format!("a black hole {ways:?}");
    check_loss(&what, limit, |wire| each(wire, BLACK), |wire| each(wire, Faults::default()))
}

#[test]
fn half_a_connection_is_no_connection() {
    for way in Way::BOTH {
        let what = format!("half a close {way:?}");
        eprintln!("{}", check_loss(&what, RESUME, |wire| wire.half_close(way), |_| {}));
    }
}

#[test]
fn a_broker_that_refuses_is_asked_until_it_does_not() {
    let strike = |wire: &Proxy| {
        wire.door(Door::Refuse);
        wire.reset_all();
    };
    eprintln!("{}", check_loss("a refusal", RESUME, strike, |wire| wire.door(Door::Open)));
}

/// Let in and then left alone, be it by a broker that hangs or by a network that swallows one way of the handshake.
#[test]
fn a_handshake_that_stalls_is_given_up_and_begun_again() {
    type Change = fn(&Proxy);
    let stalls: [(Change, Change); 3] = [
        (|wire| wire.door(Door::Stall), |wire| wire.door(Door::Open)),
        (|wire| wire.set(Way::ToBroker, BLACK), |wire| wire.set(Way::ToBroker, Faults::default())),
        (|wire| wire.set(Way::ToDaemon, BLACK), |wire| wire.set(Way::ToDaemon, Faults::default())),
    ];
    for (stall, go_on) in stalls {
        let mut scene = impatient();
        stall(scene.daemon.wire());
        scene.publish(20);
        scene.daemon.spawn(&[]);
        // Job and publisher, three times each: `connect_timeout` is a second.
        scene.daemon.wait_until("it has tried again and again", DAEMON_TIMEOUT, |daemon| {
            daemon.wire().report().connections >= 6
        });
        assert_eq!(scene.journal.len(), 0, "nothing was delivered");
        let status = scene.daemon.status().expect("it answers meanwhile");
        assert_eq!(status["broker"]["connected"], false, "{status:#}");
        go_on(scene.daemon.wire());
        scene.wait_until_settled();
        scene.stop();
        eprintln!("{}", scene.judge());
    }
}

/// Longer than the broker puts up with. What it handed to others meanwhile, or hands out again, runs once all the same.
#[test]
fn a_daemon_that_was_stopped_comes_back() {
    let mut scene = impatient();
    scene.daemon.start();
    scene.publish(200);
    scene.wait_for_runs(30);
    scene.note_outage();
    let newest = scene.daemon.wire().report().linked;
    scene.daemon.signal(Signal::STOP);
    scene.daemon.wait_until("the broker hangs up", THREE, |daemon| {
        daemon.wire().report().links.iter().all(|link| link.hung_up)
    });
    scene.daemon.signal(Signal::CONT);
    scene.daemon.wait_until("it has left them", RESUME, |daemon| is_left(daemon.wire(), newest));
    scene.wait_until_settled();
    scene.stop();
    eprintln!("{}", scene.judge());
}

/// The session that is reset: messages of three fates, so that acks, dead letters, retries and their confirms are in it.
const SCRIPT: [Fate; 3] = [Fate::Plain, Fate::Rejected, Fate::Again];

/// `WARREND_RST=all` is the long form: a reset after every byte that way, each followed by the next connection.
///
/// The session of a job: handshake, declarations, consume, deliveries, acks. That of a publisher: handshake, confirm mode,
/// copies, confirms. Their ends are in [`a_stop_is_reset_at_every_byte`].
struct Resets {
    scene: Scene,
    role: Role,
    way: Way,
    /// The connection that stands.
    link: u64,
    places: Places,
}

impl Resets {
    /// Lets one session work undisturbed, to learn its length.
    fn new(role: Role, way: Way) -> Self {
        let broker = "reconnect = { initial = \"1ms\", max = \"20ms\" }";
        let mut scene = Scene::new(Vhost::new(), &Setup { broker, ..Setup::default() });
        scene.daemon.start();
        scene.publish_fates(SCRIPT);
        scene.wait_until_settled();
        let mut links = scene.daemon.wire().report().links.into_iter();
        let link = links.find(|link| link.role == role).expect("job and publisher are connected");
        Self { scene, role, way, link: link.number, places: Places::new(link.bytes(way), 40) }
    }

    fn run(mut self) -> String {
        let bytes: Vec<u64> = self.places.iter().collect();
        let began = Instant::now();
        let wire = self.scene.daemon.wire();
        wire.reset_each(self.way, bytes.iter().copied());
        // The first of them befalls the next connection.
        wire.reset(self.link);
        reset_all(&mut self.scene, &bytes);
        let took = began.elapsed();
        self.scene.wait_until_settled();
        self.scene.stop();
        let verdict = self.scene.judge();
        let connections = self.scene.daemon.wire().report().linked;
        assert!(connections >= 2 + bytes.len() as u64, "{connections}");
        format!("{} resets in {took:?}; {verdict}", bytes.len())
    }
}

impl std::fmt::Display for Resets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}: {}", self.role, self.way, self.places)
    }
}

#[test]
fn the_session_of_a_job_is_reset_at_every_byte_that_it_sends() {
    let resets = Resets::new(Role::Job, Way::ToBroker);
    eprintln!("{resets}");
    eprintln!("{}", resets.run());
}

#[test]
fn the_session_of_a_job_is_reset_at_every_byte_that_it_gets() {
    let resets = Resets::new(Role::Job, Way::ToDaemon);
    eprintln!("{resets}");
    eprintln!("{}", resets.run());
}

#[test]
fn the_session_of_the_publisher_is_reset_at_every_byte_that_it_sends() {
    let resets = Resets::new(Role::Publisher, Way::ToBroker);
    eprintln!("{resets}");
    eprintln!("{}", resets.run());
}

#[test]
fn the_session_of_the_publisher_is_reset_at_every_byte_that_it_gets() {
    let resets = Resets::new(Role::Publisher, Way::ToDaemon);
    eprintln!("{resets}");
    eprintln!("{}", resets.run());
}

/// Waits until the connection that stood and one for each of `bytes` are reset, with work at hand all the time.
fn reset_all(scene: &mut Scene, bytes: &[u64]) {
    /// Runs that the daemon is behind what was published.
    const WAITING: usize = 30;
    let (mut resets, mut since) = (0, Instant::now());
    while resets <= bytes.len() {
        let now = usize::try_from(scene.daemon.wire().report().resets).expect("it is small");
        if now > resets {
            (resets, since) = (now, Instant::now());
        }
        let log = || scene.daemon.log_tail();
        assert!(
            since.elapsed() < DAEMON_TIMEOUT,
            "no reset after {:?}\n{}",
            bytes.get(resets.saturating_sub(1)),
            log()
        );
        assert!(scene.daemon.is_alive(), "it ended\n{}", scene.daemon.log_tail());
        if scene.journal.len() + WAITING > scene.runs_needed() {
            scene.publish_fates(SCRIPT);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bytes.iter().for_each(|_| scene.note_outage());
}

/// Every place from 0 to the last, or in the short form some of them, at even distances from a random one on.
struct Places {
    first: u64,
    step: u64,
    last: u64,
}

impl Places {
    /// In the short form about `few`.
    fn new(last: u64, few: u64) -> Self {
        match std::env::var("WARREND_RST").as_deref() {
            Ok("all") => Self { first: 0, step: 1, last },
            Ok(other) => panic!("WARREND_RST is {other:?}, not \"all\""),
            Err(_) => {
                let step = (last / few).max(1);
                Self { first: fastrand::u64(..step), step, last }
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        (self.first..=self.last).step_by(usize::try_from(self.step).expect("it is small"))
    }
}

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first, step, last } = self;
        write!(f, "after {first} bytes and each {step} more up to {last}")
    }
}

/// `WARREND_RST=all` is the long form: both connections are reset after every byte of their end in either way.
#[test]
fn a_stop_is_reset_at_every_byte() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    let mut stop = |way, bytes: Option<u64>| {
        scene.daemon.start();
        scene.publish_fates([Fate::Plain, Fate::Rejected]);
        scene.wait_until_settled();
        let before = scene.daemon.wire().report();
        if let Some(bytes) = bytes {
            scene.daemon.wire().reset_after(way, bytes);
            scene.note_outage();
        }
        scene.stop();
        let after = scene.daemon.wire().report();
        (after.bytes(way) - before.bytes(way), after.resets - before.resets)
    };
    let (mut total, mut resets) = (0, 0);
    for way in Way::BOTH {
        // Of both connections, so it is enough for the longer one.
        let (last, _) = stop(way, None);
        let places = Places::new(last, 5);
        eprintln!("{way:?}: {places}");
        for bytes in places.iter() {
            let brought = stop(way, Some(bytes)).1;
            // The longer one has at least half of them all. No two stops are quite alike, but a third it comes to.
            assert!(brought > 0 || 3 * bytes >= last, "no reset after {bytes} of {last} bytes {way:?}");
            total += 1;
            resets += brought;
        }
    }
    let verdict = scene.judge();
    eprintln!("{resets} resets in {total} stops; {verdict}");
}
