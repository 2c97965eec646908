//! Three nodes with quorum queues, one or two of which end.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::row::{Figures, Row, Run, Trial};
use crate::support::broker::{BROKER_TIMEOUT, Vhost};
use crate::support::cluster::Cluster;
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::node::Node;
use crate::support::scene::{Kind, QUEUE, Scene, Setup, WORK_TIMEOUT};
use crate::support::{holds_within, wait_until};

/// Within this time of the loss of a node, or of a majority being back, work goes on.
const RESUME: Duration = Duration::from_secs(15);

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "cluster-leader",
            fault: "three nodes, quorum queues: `kill -9` of the node that leads the work queue",
            promises: "P1 P3 P7",
            short: 0,
            long: 30,
            seconds: 25.0,
            run: Run::Here(leader),
        },
        Row {
            name: "cluster-rolling",
            fault: "three nodes, a quorum queue, and dead letters in a classic one: each node in turn stopped in good order and \
                    started again",
            promises: "P1 P3 P7",
            short: 0,
            long: 9,
            seconds: 30.0,
            run: Run::Here(rolling),
        },
        Row {
            name: "cluster-minority",
            fault: "three nodes, quorum queues: two of them killed, so that no queue takes or gives anything until they are back",
            promises: "P1 P3 P7",
            short: 0,
            long: 6,
            seconds: 40.0,
            run: Run::Here(minority),
        },
    ]
}

/// The dead-letter queue follows the work queue's type.
const JOB: &str = "queues = [{ name = \"work\", type = \"quorum\" }]";
/// Letters that wait for their queue's node hold their place in the prefetch: there is room for all of a load's.
const CLASSIC_DEAD: &str =
    "queues = [{ name = \"work\", type = \"quorum\" }]\ndead_letter = { type = \"classic\" }\nprefetch = 1000";

fn scene(cluster: &Cluster, job: &'static str) -> Scene {
    let setup = Setup {
        broker: "",
        job,
        quorum: true,
        tap: false,
        delay: "3s",
        handler: Kind::Worker(1, Duration::from_millis(20)),
        ..Setup::default()
    };
    let mut scene = Scene::new(Vhost::on(cluster.broker()), &setup);
    scene.daemon.start();
    scene
}

fn all_run(cluster: &Cluster) {
    wait_until("all nodes see each other", 3 * BROKER_TIMEOUT, || cluster.running() == cluster.nodes().len());
}

/// Published before the fault: what a node takes with it unconfirmed would be the publisher's to send again.
fn put_to_work(scene: &mut Scene) {
    scene.publish(1500);
    scene.wait_for_runs(fastrand::u64(20..150));
    scene.note_outage();
}

fn leader(trial: &Trial) -> Figures {
    let cluster = Cluster::start();
    let mut scene = scene(&cluster, JOB);
    for _ in 0..trial.count {
        all_run(&cluster);
        put_to_work(&mut scene);
        let node = leading(&cluster, &scene);
        node.kill();
        wait_for_deliveries(&mut scene);
        node.start_again();
    }
    end(scene, trial.count)
}

fn rolling(trial: &Trial) -> Figures {
    let cluster = Cluster::start();
    let mut scene = scene(&cluster, CLASSIC_DEAD);
    for turn in 0..trial.count {
        all_run(&cluster);
        put_to_work(&mut scene);
        let node = &cluster.nodes()[turn % cluster.nodes().len()];
        node.stop();
        // A stop takes its time, in which all may be done. Two nodes are a majority.
        let (since, before) = (Instant::now(), received(&scene.daemon));
        scene.publish(100);
        // Failures may have to wait for the node of their queue; nothing else does.
        wait_for_more(&mut scene, since, before);
        node.start_again();
    }
    let stuck = hand_on(&cluster, &scene);
    let mut figures = end(scene, trial.count);
    if stuck > 0 {
        figures.note = format!("{stuck} times a level of the ladder handed nothing on until it got another leader");
    }
    figures
}

/// RabbitMQ 3.10 may leave a level of the ladder whose leader has moved without the process that hands its messages on
/// (rabbitmq-server#7677). They wait there until the leader moves again, which an administrator has to see to.
fn hand_on(cluster: &Cluster, scene: &Scene) -> usize {
    /// Longer than a retry of this row takes over the whole ladder.
    const STUCK: Duration = Duration::from_secs(15);
    let levels = || {
        let path = format!("/api/queues/{}?columns=name,messages,leader,online", scene.vhost.name());
        let listing = cluster.broker().management().call("GET", &path, None).unwrap_or_default();
        let all = listing.as_array().cloned().unwrap_or_default();
        let waits = |queue: &Value| {
            let is_level = queue["name"].as_str().is_some_and(|name| name.starts_with("warrend.delay."));
            is_level && queue["messages"].as_u64().is_some_and(|messages| messages > 0)
        };
        all.into_iter().filter(waits).collect::<Vec<_>>()
    };
    let mut moved = 0;
    all_run(cluster);
    while !holds_within(STUCK, || levels().is_empty()) {
        assert!(moved < 20, "the ladder does not become empty: {:?}", levels());
        for level in levels() {
            let (name, leader) = (level["name"].as_str().unwrap_or_default(), &level["leader"]);
            let other = level["online"].as_array().into_iter().flatten().find(|node| *node != leader);
            let (Some(leader), Some(other)) = (leader.as_str(), other.and_then(Value::as_str)) else { continue };
            let queue = format!("'{}_{name}'", scene.vhost.name());
            cluster.nodes()[0]
                .eval(&format!("ra:transfer_leadership({{{queue}, '{leader}'}}, {{{queue}, '{other}'}})."));
            moved += 1;
        }
    }
    moved
}

fn minority(trial: &Trial) -> Figures {
    let cluster = Cluster::start();
    let mut scene = scene(&cluster, JOB);
    for turn in 0..trial.count {
        all_run(&cluster);
        put_to_work(&mut scene);
        let down: Vec<&Node> = (1..3).map(|next| &cluster.nodes()[(turn + next) % 3]).collect();
        std::thread::scope(|scope| down.iter().for_each(|node| drop(scope.spawn(|| node.kill()))));
        scene
            .daemon
            .wait_until("work has stopped", 2 * DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") == 0);
        down[0].start_again();
        scene.wait_for_work(Instant::now());
        down[1].start_again();
    }
    end(scene, trial.count)
}

/// How long it takes until messages come again. Handlers have some in stock, so their runs say little.
fn wait_for_deliveries(scene: &mut Scene) {
    let (since, before) = (Instant::now(), received(&scene.daemon));
    wait_for_more(scene, since, before);
}

/// The same since an earlier moment, when so many had come.
fn wait_for_more(scene: &mut Scene, since: Instant, before: u64) {
    scene.daemon.wait_until("messages come", WORK_TIMEOUT, |daemon| received(daemon) > before);
    scene.note_resumed(since.elapsed());
}

fn received(daemon: &Daemon) -> u64 {
    daemon.counter("work", "received")
}

fn leading<'c>(cluster: &'c Cluster, scene: &Scene) -> &'c Node {
    let mut leader = None;
    wait_until("the work queue has a leader", BROKER_TIMEOUT, || {
        leader = cluster.leader(&scene.vhost, QUEUE);
        leader.is_some()
    });
    leader.expect("it was found")
}

fn end(mut scene: Scene, faults: usize) -> Figures {
    scene.wait_until_settled();
    scene.stop();
    let mut figures = Figures::of(faults, scene.verdict());
    if let Some(slowest) = figures.slowest.filter(|slowest| *slowest > RESUME) {
        figures.wrong.push(format!("work resumed after {slowest:?}, and {RESUME:?} are allowed"));
    }
    figures
}
