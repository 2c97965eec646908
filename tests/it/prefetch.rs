//! `prefetch = "auto"`: what is in force follows what a task takes.

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::scene::QUEUE;

fn prefetch(daemon: &Daemon) -> u64 {
    daemon.status().and_then(|status| status["jobs"]["work"]["prefetch"].as_u64()).unwrap_or(0)
}

#[test]
fn a_slow_handler_keeps_little_and_a_fast_one_much() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(
        &vhost,
        "[jobs.work]\nqueue = \"work\"\nprefetch = \"auto\"\nconcurrency = 2\n\
         [jobs.work.handler]\ncommand = [\"sh\", \"-c\", '[ -e fast ] || sleep 0.3']\ncwd = \".\"\n",
    );
    daemon.start();
    assert_eq!(prefetch(&daemon), 4, "two that run and two that wait");
    vhost.publish_all(QUEUE, (0..20).map(|n| (Vec::new(), with_id(&format!("slow-{n}")))));
    daemon.wait_until("the slow ones are done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 20);
    assert_eq!(prefetch(&daemon), 4, "more would only lie here");

    std::fs::write(daemon.folder().join("fast"), "").expect("its folder can be written");
    let mut published = 0;
    daemon.wait_until("it has grown", DAEMON_TIMEOUT, |daemon| {
        // A slow machine is not given more than it works off.
        if daemon.counter("work", "done") + 400 < published {
            return prefetch(daemon) > 20;
        }
        vhost.publish_all(QUEUE, (published..published + 200).map(|n| (Vec::new(), with_id(&format!("fast-{n}")))));
        published += 200;
        prefetch(daemon) > 20
    });
    daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 20 + published);
    assert!(String::from_utf8_lossy(&daemon.run(&["status"]).stdout).contains("by measurement"));
    assert_eq!((daemon.counter("work", "duplicates"), vhost.ready(QUEUE)), (0, Some(0)));
    assert!(daemon.terminate().success());
}
