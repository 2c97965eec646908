//! A broker whose administrator has made its frames smaller: what fits into one when it is published need not fit when our
//! own headers and the error text are added.

use amiquip::AmqpValue;

use crate::amqp::{headers, integer, long_text, take, text, with_headers};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use crate::support::node::Node;

const FRAME_MAX: usize = 8192;

#[test]
fn a_copy_fits_the_frames_of_a_broker_that_has_small_ones() {
    let node = Node::start();
    node.eval(&format!("application:set_env(rabbit, frame_max, {FRAME_MAX})."));
    let vhost = Vhost::on(node.broker());
    vhost.declare("work");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(
        folder.path(),
        "case $WARREND_KEY in large) head -c 65536 /dev/zero | tr '\\0' x >&2; exit 75 ;; esac",
    );
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n\
         retry = {{ max_attempts = 2, initial = \"1s\", jitter = 0.0 }}\n",
        journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    // Its content header fills a frame but for some bytes.
    let filler: Vec<(String, AmqpValue)> = (0..7).map(|n| (format!("h{n}"), long_text("v".repeat(1100)))).collect();
    let filler: Vec<(&str, AmqpValue)> = filler.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    vhost.publish("work", "body", with_headers("large", &filler));
    vhost.publish("work", "", with_id("after"));
    daemon.wait_until("it is dead", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    daemon.wait_until("both are counted", DAEMON_TIMEOUT, |daemon| {
        ["done", "dead", "forwarding"].map(|name| daemon.counter("work", name)) == [1, 1, 0]
    });
    let letter = take(&vhost, "work.dead");
    assert_eq!((letter.body.as_slice(), text(&letter, "x-warrend-error").len()), (&b"body"[..], 1024));
    let kept = headers(&letter).keys().filter(|name| name.starts_with('h')).count();
    assert!((2..7).contains(&kept), "{kept} are kept");
    assert!(integer(&letter, "x-warrend-headers-dropped") > 0);
    let status = daemon.status().expect("the daemon runs");
    assert_eq!(status["healthy"], true, "{status:#}");
    assert!(!daemon.log().contains("could not be published"), "{}", daemon.log_tail());
    assert!(daemon.terminate().success());
}
