//! The broker ends, hangs, hangs up, or takes nothing more.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::dead_letters;
use crate::row::{Figures, Row, Run, Trial};
use crate::support::broker::{BROKER_TIMEOUT, Vhost};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::node::Node;
use crate::support::scene::{DEAD, Kind, QUEUE, Scene, Setup, WORK_TIMEOUT};
use crate::support::wait_until;

/// Within this time of the broker being back, work goes on.
pub(super) const RESUME: Duration = Duration::from_secs(5);
/// So slow that a load lasts for a while.
const SLOW: Kind = Kind::Worker(1, Duration::from_millis(20));

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "broker-kill",
            fault: "`kill -9` of the broker under load; default settings",
            promises: "P1 P3 P7",
            short: 1,
            long: 100,
            seconds: 14.0,
            run: Run::Here(|trial| restart(trial, 300, Node::kill)),
        },
        Row {
            name: "broker-stop",
            fault: "the same with a stop in good order",
            promises: "P1 P3 P7",
            short: 1,
            long: 20,
            seconds: 14.0,
            run: Run::Here(|trial| restart(trial, 900, Node::stop)),
        },
        Row {
            name: "dead-letter-workers",
            fault: "virtual hosts of others deleted while queues are being declared in them, until RabbitMQ has ended its \
                    processes that hand expired retries on; once retries are stuck, they are begun anew, and every second time the \
                    broker is stopped and started",
            promises: "P1 P3 P7",
            short: 2,
            long: 6,
            seconds: 25.0,
            run: Run::Here(dead_letters::end_workers),
        },
        Row {
            name: "broker-sigstop",
            fault: "SIGSTOP of the broker for more than two heartbeats; status answers all the time",
            promises: "P1 P3 P7",
            short: 1,
            long: 30,
            seconds: 10.0,
            run: Run::Here(freeze),
        },
        Row {
            name: "connections-closed",
            fault: "all connections closed by the management API under load",
            promises: "P1 P3 P7",
            short: 4,
            long: 500,
            seconds: 2.0,
            run: Run::Here(close_connections),
        },
        Row {
            name: "publisher-closed",
            fault: "the publisher's connection closed by the management API while copies are unconfirmed",
            promises: "P1 P2 P7",
            short: 4,
            long: 100,
            seconds: 2.0,
            run: Run::Here(close_publisher),
        },
        Row {
            name: "queue-deleted",
            fault: "the work queue deleted and made anew while handlers run and retries wait; what the broker strands is put \
                    back by hand",
            promises: "P1 P3 P7",
            short: 4,
            long: 100,
            seconds: 1.5,
            run: Run::Here(delete_queue),
        },
        Row {
            name: "alarm",
            fault: "memory alarm, and every second time disk alarm, for 60 s (5 s in the short form)",
            promises: "P1 P2 P8",
            short: 2,
            long: 4,
            seconds: 75.0,
            run: Run::Here(alarm),
        },
        Row {
            name: "queue-full",
            fault: "the dead-letter queue, and every second time the work queue that retries come back to, full with \
                    `reject-publish`",
            promises: "P1 P2 P8",
            short: 2,
            long: 20,
            seconds: 12.0,
            run: Run::Here(fill),
        },
    ]
}

/// Ends the broker and starts it again. A round has more messages than are worked while it ends, however slow the machine.
fn restart(trial: &Trial, round: usize, end_it: fn(&Node)) -> Figures {
    let node = Node::start();
    let mut scene = on_two_levels(&node);
    for _ in 0..trial.count {
        scene.publish(round);
        scene.wait_for_runs(fastrand::u64(20..100));
        scene.note_outage();
        end_it(&node);
        bring_back(&node, &mut scene);
    }
    scene.wait_until_settled();
    within(RESUME, end(scene, trial.count))
}

/// With a delay that takes a retry over two levels of the ladder.
pub(super) fn on_two_levels(node: &Node) -> Scene {
    let setup = Setup { broker: "", delay: "3s", handler: SLOW, tap: false, ..Setup::default() };
    let mut scene = Scene::new(Vhost::on(node.broker()), &setup);
    scene.daemon.start();
    scene
}

/// Starts it again; work resumes once it accepts, which is before it says that it has started.
pub(super) fn bring_back(node: &Node, scene: &mut Scene) {
    std::thread::scope(|scope| {
        let back = scope.spawn(|| {
            let address = node.broker().address();
            wait_until("the broker accepts", 2 * BROKER_TIMEOUT, || TcpStream::connect(&address).is_ok());
            Instant::now()
        });
        node.start_again();
        scene.wait_for_work(back.join().expect("it only waits"));
    });
}

fn freeze(trial: &Trial) -> Figures {
    let node = Node::start();
    let broker = "heartbeat = \"1s\"\nreconnect = { initial = \"50ms\", max = \"500ms\" }";
    let mut scene =
        Scene::new(Vhost::on(node.broker()), &Setup { broker, handler: SLOW, tap: false, ..Setup::default() });
    scene.daemon.start();
    for _ in 0..trial.count {
        scene.publish(400);
        scene.wait_for_runs(fastrand::u64(20..100));
        scene.note_outage();
        let frozen = Instant::now();
        let hang = Duration::from_secs(if trial.long { fastrand::u64(3..12) } else { 4 });
        node.freeze();
        while frozen.elapsed() < hang {
            let asked = Instant::now();
            assert!(scene.daemon.status().is_some(), "no status while the broker hangs\n{}", scene.daemon.log_tail());
            assert!(asked.elapsed() < RESUME, "status took {:?}", asked.elapsed());
        }
        node.thaw();
        scene.wait_for_work(Instant::now());
        wait_until("the broker answers", BROKER_TIMEOUT, || scene.vhost.ready(QUEUE).is_some());
    }
    scene.wait_until_settled();
    within(RESUME, end(scene, trial.count))
}

fn close_connections(trial: &Trial) -> Figures {
    let mut scene = Scene::new(Vhost::new(), &Setup { handler: SLOW, ..Setup::default() });
    scene.daemon.start();
    for _ in 0..trial.count {
        // That of the job and that of the publisher. The list lags behind by seconds: it comes before the work.
        wait_until("the broker lists both connections", BROKER_TIMEOUT, || scene.vhost.connections().len() == 2);
        scene.publish(60);
        scene.wait_for_runs(fastrand::u64(5..40));
        scene.note_outage();
        scene.vhost.close_connections();
        scene.wait_for_work(Instant::now());
    }
    scene.wait_until_settled();
    within(RESUME, end(scene, trial.count))
}

fn close_publisher(trial: &Trial) -> Figures {
    let setup = Setup { concurrency: 2, handler: Kind::Worker(20, Duration::ZERO), ..Setup::default() };
    let mut scene = Scene::new(Vhost::new(), &setup);
    scene.daemon.start();
    let mut unconfirmed = 0;
    for _ in 0..trial.count {
        let publisher = publisher(&scene.vhost);
        scene.publish(600);
        let under_way = |daemon: &Daemon| daemon.counter("work", "forwarding");
        let mut open = 0;
        scene.daemon.wait_until("copies are under way", WORK_TIMEOUT, |daemon| {
            open = under_way(daemon);
            open > 0
        });
        scene.note_outage();
        let path = format!("/api/connections/{}", crate::support::management::escape(&publisher));
        scene.vhost.broker().management().call("DELETE", &path, None).expect("it is there");
        unconfirmed += open;
        scene.wait_until_settled();
    }
    let job = scene.daemon.counter("work", "reconnects");
    let mut figures = end(scene, trial.count);
    figures.note = format!("{unconfirmed} copies were under way");
    if job > 0 {
        figures.wrong.push(format!("the job lost {job} connections of its own"));
    }
    figures
}

/// The connection that the daemon publishes through, as the management API calls it.
fn publisher(vhost: &Vhost) -> String {
    let mut name = None;
    wait_until("the broker lists the publisher", BROKER_TIMEOUT, || {
        let path = format!("/api/vhosts/{}/connections?columns=name,user_provided_name", vhost.name());
        let listing = vhost.broker().management().call("GET", &path, None).unwrap_or_default();
        let is_publisher =
            |entry: &&Value| entry["user_provided_name"].as_str().is_some_and(|name| name.ends_with(" publisher"));
        let found = listing.as_array().and_then(|all| all.iter().find(is_publisher));
        name = found.and_then(|entry| entry["name"].as_str()).map(str::to_owned);
        name.is_some()
    });
    name.expect("it was listed")
}

/// Where the retries of a scene wait.
pub(super) const SECOND: &str = "warrend.delay.00";
/// The level above it.
pub(super) const TWO_SECONDS: &str = "warrend.delay.01";
/// Where the end of the ladder leaves copies whose work queue is gone.
const STRANDED: &str = "warrend.delay.stranded";

fn delete_queue(trial: &Trial) -> Figures {
    // All of a load is delivered before the queue goes: what it still holds then is the deleter's to lose.
    let setup = Setup {
        job: "queue = \"work\"\nprefetch = 100",
        handler: Kind::Worker(1, Duration::from_millis(50)),
        ..Setup::default()
    };
    let mut scene = Scene::new(Vhost::new(), &setup);
    scene.daemon.start();
    let mut stranded = 0;
    for _ in 0..trial.count {
        scene.publish(40);
        scene.wait_for_runs(fastrand::u64(1..20));
        scene.note_outage();
        scene.vhost.replace_empty(QUEUE);
        let back = Instant::now();
        let (journal, vhost, runs) = (&scene.journal, &scene.vhost, scene.runs_needed());
        scene.daemon.wait_until("the queue is consumed", DAEMON_TIMEOUT, |_| vhost.consumers(QUEUE) == Some(1));
        let took = back.elapsed();
        scene.daemon.wait_until("all of it has run", WORK_TIMEOUT, |_| {
            // Retries that came to the end of their delay while there was no queue, or one without bindings.
            stranded += vhost.move_all(STRANDED, QUEUE);
            journal.len() >= runs
        });
        scene.note_resumed(took);
    }
    scene.wait_until_settled();
    let mut figures = within(RESUME, end(scene, trial.count));
    figures.note = format!("{stranded} retries were stranded and put back");
    figures
}

fn alarm(trial: &Trial) -> Figures {
    let node = Node::start();
    let lasts = Duration::from_secs(if trial.long { 60 } else { 5 });
    // The copies that wait hold their place in the prefetch; the others need acks to get through.
    let setup = Setup {
        job: "queue = \"work\"\nprefetch = 1000",
        // Work must outlast the command that sets the alarm off: only who publishes is blocked.
        handler: Kind::Worker(1, Duration::from_millis(if trial.long { 100 } else { 80 })),
        ..Setup::default()
    };
    let mut scene = Scene::new(Vhost::on(node.broker()), &setup);
    scene.daemon.start();
    // A publisher can be blocked once it has published.
    scene.publish(10);
    scene.wait_until_settled();
    let mut wrong = Vec::new();
    for turn in 0..trial.count {
        let short = |short| if turn % 2 == 0 { node.alarm(short) } else { node.disk_alarm(short) };
        // Some fail while the alarm is on, and enough succeed for all of its time.
        scene.publish(if trial.long { 2400 } else { 1000 });
        short(true);
        scene.daemon.wait_until("status says blocked", DAEMON_TIMEOUT, is_blocked);
        let (began, before) = (Instant::now(), Acked::of(&scene.daemon));
        scene.daemon.wait_until("the alarm lasts", 2 * lasts, |daemon| {
            let status = daemon.status().unwrap_or_default();
            assert_eq!(status["broker"]["blocked"], true, "{status:#}");
            began.elapsed() >= lasts
        });
        let after = Acked::of(&scene.daemon);
        let status = scene.daemon.status().unwrap_or_default();
        if after.done <= before.done || after.acks <= before.acks {
            wrong.push(format!("nothing went on during the alarm: {before:?}, {after:?}"));
        }
        if after.waiting == 0 || !status["problems"].to_string().contains("takes no messages") {
            wrong.push(format!("status does not tell of the copies that wait: {status}"));
        }
        short(false);
        let ended = Instant::now();
        scene.daemon.wait_until("status is healthy", DAEMON_TIMEOUT, is_healthy);
        scene.daemon.wait_until("copies go on", RESUME, |daemon| Acked::of(daemon).waiting < after.waiting);
        scene.note_resumed(ended.elapsed());
        scene.wait_until_settled();
    }
    let reconnects = scene.daemon.counter("work", "reconnects");
    if reconnects > 0 {
        wrong.push(format!("{reconnects} connections were lost to an alarm"));
    }
    let mut figures = end(scene, trial.count);
    figures.wrong.extend(wrong);
    figures
}

/// What went on, and what waits.
#[derive(Debug)]
struct Acked {
    done: u64,
    acks: u64,
    waiting: u64,
}

impl Acked {
    fn of(daemon: &Daemon) -> Self {
        let status = daemon.status().unwrap_or_default();
        let number = |name: &str| status["jobs"]["work"][name].as_u64().unwrap_or_default();
        Self { done: number("done"), acks: number("acks"), waiting: number("forwarding") }
    }
}

fn is_blocked(daemon: &mut Daemon) -> bool {
    daemon.status().is_some_and(|status| status["broker"]["blocked"] == true)
}

fn is_healthy(daemon: &mut Daemon) -> bool {
    daemon.status().is_some_and(|status| status["healthy"] == true)
}

fn fill(trial: &Trial) -> Figures {
    let setup = Setup { job: "queue = \"work\"\nprefetch = 200", handler: SLOW, ..Setup::default() };
    let mut scene = Scene::new(Vhost::new(), &setup);
    scene.daemon.start();
    let mut kept = 0;
    for turn in 0..trial.count {
        if turn % 2 == 0 {
            fill_dead_letters(&mut scene);
        } else {
            kept += fill_work(&mut scene);
        }
    }
    let complaints = scene.daemon.log().lines().filter(|line| line.contains("could not be published")).count();
    let mut figures = end(scene, trial.count);
    figures.note =
        format!("the ladder kept {kept} retries back, for 5 to 10 s; with RabbitMQ's default for 3 to 6 minutes");
    if complaints > trial.count {
        figures.wrong.push(format!("{complaints} lines in the log about {} full queues", trial.count));
    }
    figures
}

/// Failures wait unacknowledged, and everything else goes on.
fn fill_dead_letters(scene: &mut Scene) {
    scene.take_dead_letters();
    limit(&scene.vhost, DEAD, true);
    scene.publish(100);
    scene.daemon.wait_until("the refusal is told", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["problems"].to_string().contains("a copy could not be published"))
    });
    let (vhost, done) = (&scene.vhost, scene.to_be_done() as u64);
    scene.daemon.wait_until("all others are done", WORK_TIMEOUT, |daemon| daemon.counter("work", "done") == done);
    assert_eq!(vhost.ready(DEAD), Some(1), "it is full");
    let room = Instant::now();
    limit(&scene.vhost, DEAD, false);
    scene.daemon.wait_until("letters come through", RESUME, |_| scene.vhost.ready(DEAD) > Some(1));
    scene.note_resumed(room.elapsed());
    scene.wait_until_settled();
    scene.daemon.wait_until("status is healthy", DAEMON_TIMEOUT, is_healthy);
}

/// Retries that come to the end of their delay stay on the ladder. Gives their number.
fn fill_work(scene: &mut Scene) -> u64 {
    scene.publish(100);
    scene.wait_for_runs(30);
    assert!(scene.daemon.run(&["pause", "work"]).status.success());
    // What it did not begin is handed back, and fills the queue.
    limit(&scene.vhost, QUEUE, true);
    scene.daemon.wait_until("the retries wait", DAEMON_TIMEOUT, |daemon| {
        let status = daemon.status().unwrap_or_default();
        status["jobs"]["work"]["running"] == 0 && status["jobs"]["work"]["forwarding"] == 0
    });
    let mut kept = 0;
    wait_until("the ladder keeps some", BROKER_TIMEOUT, || {
        kept = scene.vhost.count(SECOND, "messages_dlx");
        kept > 0 && scene.vhost.ready(SECOND) == Some(0)
    });
    limit(&scene.vhost, QUEUE, false);
    assert!(scene.daemon.run(&["resume", "work"]).status.success());
    scene.wait_for_work(Instant::now());
    scene.wait_until_settled();
    kept
}

/// Sets a policy that lets a queue hold one message and refuse all others, or takes it away.
fn limit(vhost: &Vhost, queue: &str, on: bool) {
    let path = format!("/api/policies/{}/full", vhost.name());
    let call = |method, definition: Option<Value>| {
        let policy = definition
            .map(|definition| json!({"pattern": format!("^{queue}$"), "definition": definition, "apply-to": "queues"}));
        vhost.broker().management().call(method, &path, policy.as_ref()).expect("the policy is taken");
    };
    if on {
        // A classic queue that gets both at once takes up the length first, and drops what is above it.
        call("PUT", Some(json!({"overflow": "reject-publish"})));
        call("PUT", Some(json!({"max-length": 1, "overflow": "reject-publish"})));
    } else {
        call("DELETE", None);
    }
}

/// Ends a scene that has settled, and judges it.
pub(super) fn end(mut scene: Scene, faults: usize) -> Figures {
    scene.stop();
    Figures::of(faults, scene.verdict())
}

/// Work went on in time.
pub(super) fn within(limit: Duration, mut figures: Figures) -> Figures {
    if let Some(slowest) = figures.slowest.filter(|slowest| *slowest > limit) {
        figures.wrong.push(format!("work resumed after {slowest:?}, and {limit:?} are allowed"));
    }
    figures
}
