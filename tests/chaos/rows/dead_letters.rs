//! The broker's processes that hand expired retries on end for good.

use std::time::{Duration, Instant};

use amiquip::{AmqpValue, FieldTable};

use super::broker::{RESUME, SECOND, TWO_SECONDS, bring_back, end, on_two_levels, within};
use crate::row::{Figures, Trial};
use crate::support::broker::Vhost;
use crate::support::node::Node;
use crate::support::scene::WORK_TIMEOUT;
use crate::support::wait_until;

/// Virtual hosts that come and go at one time, and the queues that are declared in each.
const NEIGHBOURS: usize = 6;
const LEVELS: usize = 28;

/// Retries are stuck until somebody sees to it, in one of the two ways that `warrend check --online` names.
pub fn end_workers(trial: &Trial) -> Figures {
    let node = Node::start();
    let mut scene = on_two_levels(&node);
    for turn in 0..trial.count {
        scene.publish(900);
        scene.wait_for_runs(fastrand::u64(20..100));
        scene.note_outage();
        strand(&node, &scene.vhost);
        if turn % 2 == 0 {
            node.eval(WORKERS_ANEW);
            scene.wait_for_work(Instant::now());
        } else {
            node.stop();
            bring_back(&node, &mut scene);
        }
    }
    scene.wait_until_settled();
    within(RESUME, end(scene, trial.count))
}

/// One supervisor has all processes of a node that hand expired messages on. The queue of such a process that is deleted while it
/// is still being declared makes it crash; begun anew it crashes again, for want of its queue, and RabbitMQ 3.10 ends the
/// supervisor with the second crash in five seconds. One virtual host deleted at the wrong moment is enough, whoever's it is.
fn strand(node: &Node, vhost: &Vhost) {
    wait_until("the supervisor has given up", WORK_TIMEOUT, || {
        std::thread::scope(|scope| (0..NEIGHBOURS).for_each(|_| drop(scope.spawn(|| come_and_go(node)))));
        node.eval("whereis(rabbit_fifo_dlx_sup).") == "undefined"
    });
    wait_until("retries are stuck", WORK_TIMEOUT, || {
        [SECOND, TWO_SECONDS].iter().any(|level| vhost.count(level, "messages_dlx") > 0)
    });
}

/// As `warrend check --online` has it.
const WORKERS_ANEW: &str = "supervisor:restart_child(rabbit_sup, rabbit_fifo_dlx_sup), \
    [ra:cast_aux_command(amqqueue:get_pid(Queue), {dlx, setup}) || Queue <- rabbit_amqqueue:list_local_quorum_queues()].";

/// Makes a virtual host and has it deleted by somebody else while queues like those of a ladder are being declared in it.
fn come_and_go(node: &Node) {
    let vhost = Vhost::on(node.broker());
    let path = format!("/api/vhosts/{}", vhost.name());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..1000)));
            // With all that went wrong in it, RabbitMQ may say no.
            let _ = node.broker().management().call("DELETE", &path, None);
        });
        for level in 0..LEVELS {
            if vhost.try_declare(&format!("level.{level}"), at_least_once()).is_err() {
                break;
            }
        }
    });
}

/// What makes RabbitMQ start such a process for a queue.
fn at_least_once() -> FieldTable {
    let mut arguments = FieldTable::new();
    for (name, value) in [
        ("x-queue-type", "quorum"),
        ("x-dead-letter-exchange", "amq.topic"),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    ] {
        arguments.insert(name.to_owned(), AmqpValue::LongString(value.to_owned()));
    }
    arguments
}
