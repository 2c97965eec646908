//! The broker goes away, hangs or blocks while the daemon works, and comes back.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::broker::{BROKER_TIMEOUT, Vhost};
use crate::support::daemon::DAEMON_TIMEOUT;
use crate::support::journal::Journal;
use crate::support::node::Node;
use crate::support::scene::{Kind, Scene, Setup};
use crate::support::{holds_within, number_from, wait_until};

/// Within this time of the broker being back, work goes on.
const RESUME: Duration = Duration::from_secs(5);
/// So slow that a load lasts for a while.
const SLOW: &str = "sleep 0.02";

/// `WARREND_RESTARTS=5` is the long form. With default settings; every second time the broker is away for 20 s, which lets
/// a backoff grow.
#[test]
fn a_restarted_broker_finds_the_work_going_on_within_seconds() {
    let node = Node::start();
    let setup = Setup { broker: "", handler: Kind::Command(SLOW), ..Setup::default() };
    let mut scene = Scene::new(Vhost::on(node.broker()), &setup);
    scene.daemon.start();
    for restart in 0..number_from("WARREND_RESTARTS", 2) {
        // More than is worked while the node is being stopped, however slow the machine.
        scene.publish(1200);
        scene.wait_for_runs(fastrand::u64(20..100));
        let gone = Instant::now();
        scene.note_outage();
        if restart % 2 == 0 {
            node.kill();
        } else {
            node.stop();
            std::thread::sleep(Duration::from_secs(16).saturating_sub(gone.elapsed()));
        }
        let journal = &scene.journal;
        let resumed = std::thread::scope(|scope| {
            let watch = scope.spawn(|| time_to_resume(&node, journal));
            node.start_again();
            watch.join().expect("the watch only waits")
        });
        eprintln!("away for {:?}, work resumed {resumed:?} after the broker was back", gone.elapsed());
        assert!(resumed <= RESUME, "{resumed:?}\n{}", scene.daemon.log_tail());
    }
    scene.wait_until_settled();
    scene.stop();
    eprintln!("{}", scene.judge());
}

/// From the moment at which the broker accepts connections to the next run of a handler.
fn time_to_resume(node: &Node, journal: &Journal) -> Duration {
    wait_until("the broker accepts", Duration::from_secs(100), || TcpStream::connect(node.broker().address()).is_ok());
    let (back, runs) = (Instant::now(), journal.bytes());
    // Its own limit is the caller's to judge.
    holds_within(4 * RESUME, || journal.bytes() > runs);
    back.elapsed()
}

/// `WARREND_CLOSES=50` is the long form.
#[test]
fn connections_closed_by_an_administrator_cost_nothing() {
    let mut scene = Scene::new(Vhost::new(), &Setup { handler: Kind::Command(SLOW), ..Setup::default() });
    scene.daemon.start();
    for _ in 0..number_from("WARREND_CLOSES", 3) {
        // That of the job and that of the publisher. The list lags behind by seconds: it comes before the work.
        wait_until("the broker lists both connections", BROKER_TIMEOUT, || scene.vhost.connections().len() == 2);
        scene.publish(100);
        scene.wait_for_runs(fastrand::u64(10..60));
        let before = scene.daemon.counter("work", "reconnects");
        scene.note_outage();
        assert_eq!(scene.vhost.close_connections(), 2);
        let closed = Instant::now();
        scene.daemon.wait_until("the job has another connection", RESUME, |daemon| {
            daemon.counter("work", "reconnects") > before
        });
        scene.wait_for_runs(1);
        assert!(closed.elapsed() <= RESUME, "work resumed after {:?}", closed.elapsed());
    }
    scene.wait_until_settled();
    scene.stop();
    eprintln!("{}", scene.judge());
}

/// Successes go on and are acknowledged, the copies of failures wait, and status says so.
#[test]
fn a_memory_alarm_stops_nothing_but_copies() {
    let node = Node::start();
    // The copies that wait hold their place in the prefetch; the others need acks to get through.
    let setup = Setup { job: "queue = \"work\"\nprefetch = 150", handler: Kind::Command(SLOW), ..Setup::default() };
    let mut scene = Scene::new(Vhost::on(node.broker()), &setup);
    scene.daemon.start();
    // A publisher can be blocked once it has published.
    scene.publish(10);
    scene.wait_until_settled();
    scene.publish(400);
    node.alarm(true);
    scene.daemon.wait_until("status says blocked", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["broker"]["blocked"] == true)
    });
    // The 8 of before, and 7 of 10; of the others some may have got through before the alarm.
    scene.daemon.wait_until("all that needs no copy is done", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("work", "done") >= 288 && daemon.counter("work", "buffered") == 0
    });
    let status = scene.daemon.status().expect("the daemon answers");
    assert_eq!(status["broker"]["blocked"], true, "{status:#}");
    assert!(status["jobs"]["work"]["forwarding"].as_u64() > Some(0), "{status:#}");
    node.alarm(false);
    scene.wait_until_settled();
    scene.daemon.wait_until("status is healthy", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["healthy"] == true)
    });
    assert_eq!(scene.daemon.counter("work", "reconnects"), 0, "{}", scene.daemon.log_tail());
    scene.stop();
    eprintln!("{}", scene.judge());
}

/// `WARREND_HANG=40` is the long form: seconds.
#[test]
fn a_broker_that_hangs_is_left_and_found_again() {
    let hang = Duration::from_secs(number_from("WARREND_HANG", 15) as u64);
    let node = Node::start();
    let setup = Setup { broker: "heartbeat = \"5s\"", handler: Kind::Command(SLOW), ..Setup::default() };
    let mut scene = Scene::new(Vhost::on(node.broker()), &setup);
    scene.daemon.start();
    scene.publish(400);
    scene.wait_for_runs(50);
    let frozen = Instant::now();
    scene.note_outage();
    node.freeze();
    while frozen.elapsed() < hang {
        let asked = Instant::now();
        let status = scene.daemon.status();
        assert!(status.is_some(), "no status while the broker hangs\n{}", scene.daemon.log_tail());
        assert!(asked.elapsed() < RESUME, "status took {:?}", asked.elapsed());
    }
    let runs = scene.journal.bytes();
    node.thaw();
    let thawed = Instant::now();
    scene.daemon.wait_until("work resumes", RESUME, |_| scene.journal.bytes() > runs);
    eprintln!("work resumed {:?} after a hang of {hang:?}", thawed.elapsed());
    scene.wait_until_settled();
    scene.stop();
    eprintln!("{}", scene.judge());
}
