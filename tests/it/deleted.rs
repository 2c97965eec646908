//! Somebody else deletes what the daemon uses on the broker, while it runs.

use amiquip::{AmqpProperties, AmqpValue, FieldTable};

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::scene::{DEAD, Fate, Kind, QUEUE, Scene, Setup};
use crate::support::wait_until;

/// The queue of the ladder's lowest level: a delay of one second.
const SECOND: &str = "warrend.delay.00";

fn started(setup: &Setup) -> Scene {
    let mut scene = Scene::new(Vhost::new(), setup);
    scene.daemon.start();
    scene
}

/// Handled, retried after a delay, rejected and given up: the daemon that was started does it all as ever.
fn works_as_ever(scene: &mut Scene) {
    scene.publish_fates([Fate::Plain, Fate::Again, Fate::Rejected, Fate::Failing]);
    scene.wait_until_settled();
    scene.daemon.wait_until("status is healthy", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["healthy"] == true)
    });
}

#[test]
fn a_deleted_queue_is_declared_again_and_consumed() {
    let mut scene = started(&Setup::default());
    scene.vhost.delete_queue(QUEUE);
    wait_until("the queue has a consumer", DAEMON_TIMEOUT, || scene.vhost.consumers(QUEUE) == Some(1));
    works_as_ever(&mut scene);
    scene.stop();
    scene.judge();
}

/// With other arguments than the daemon would have given it, and without its bindings.
#[test]
fn a_queue_that_others_replaced_is_consumed_and_its_retries_come_back() {
    let mut scene = started(&Setup::default());
    let mut arguments = FieldTable::new();
    arguments.insert("x-max-length".to_owned(), AmqpValue::LongInt(100_000));
    scene.vhost.replace(QUEUE, &arguments);
    works_as_ever(&mut scene);
    let log = scene.daemon.log_tail();
    assert_eq!(scene.daemon.counter("work", "reconnects"), 0, "{log}");
    scene.stop();
    scene.judge();
}

/// Handlers that run while their queue vanishes end as ever; their acks go nowhere and harm nothing.
#[test]
fn a_queue_replaced_under_running_handlers_harms_no_later_message() {
    // What the queue that is gone had delivered is open still, beside the prefetch of the next consumer: no case for the tap.
    let handler = Kind::Command("[ -n \"$WARREND_KEY\" ] || sleep 0.5");
    let mut scene = started(&Setup { handler, tap: false, ..Setup::default() });
    for _ in 0..3 {
        // Without an id, and not the scene's: they are the deleter's to lose.
        let slow = (b"slow".to_vec(), AmqpProperties::default());
        scene.vhost.publish_all(QUEUE, vec![slow; 20]);
        scene.daemon.wait_until("handlers run", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "running") > 0);
        scene.vhost.replace(QUEUE, &FieldTable::new());
    }
    works_as_ever(&mut scene);
    scene.stop();
    scene.judge();
}

#[test]
fn a_queue_that_may_not_be_created_is_waited_for() {
    let mut scene =
        started(&Setup { job: "queues = [{ name = \"work\", declare = \"passive\" }]", ..Setup::default() });
    scene.vhost.delete_queue(QUEUE);
    scene.daemon.wait_until("status names the queue", DAEMON_TIMEOUT, |daemon| {
        let status = daemon.status().unwrap_or_default();
        let missing = |problem: &serde_json::Value| {
            let problem = problem.as_str().unwrap_or_default();
            problem.contains("queue \"work\" does not exist")
        };
        status["problems"].as_array().is_some_and(|problems| problems.iter().any(missing))
    });
    scene.vhost.declare(QUEUE);
    works_as_ever(&mut scene);
    scene.stop();
    scene.judge();
}

#[test]
fn copies_reach_a_dead_letter_queue_and_a_ladder_that_were_deleted() {
    let mut scene = started(&Setup::default());
    works_as_ever(&mut scene);
    for _ in 0..2 {
        // Empty: what lies in them would be the deleter's to lose.
        scene.take_dead_letters();
        wait_until("no copy waits", BROKER_TIMEOUT, || scene.vhost.ready(SECOND) == Some(0));
        scene.vhost.delete_queue(DEAD);
        scene.vhost.delete_queue(SECOND);
        works_as_ever(&mut scene);
    }
    scene.stop();
    scene.judge();
}

/// RabbitMQ would drop a copy that finds no work queue at the end of its delay.
#[test]
fn a_copy_whose_queue_is_gone_when_its_delay_ends_is_kept() {
    let vhost = Vhost::new();
    let job = "[jobs.work]\nqueue = \"work\"\nretry = { initial = \"4s\", jitter = 0.0 }\n\
               [jobs.work.handler]\ncommand = [\"false\"]\n";
    let mut daemon = Daemon::new(&vhost, job);
    daemon.start();
    vhost.publish(QUEUE, "x", with_id("kept"));
    wait_until("the copy waits", BROKER_TIMEOUT, || vhost.ready("warrend.delay.02") == Some(1));
    assert!(daemon.terminate().success());
    vhost.delete_queue(QUEUE);
    wait_until("the copy is stranded", BROKER_TIMEOUT, || vhost.ready("warrend.delay.stranded") == Some(1));
    let copy = vhost.get("warrend.delay.stranded").expect("it is there");
    assert_eq!(copy.properties.message_id().as_deref(), Some("kept"));
}
