//! `forward`: messages published again, to where their routes say.

use amiquip::{AmqpProperties, AmqpValue, ExchangeType};

use crate::amqp::{exchange, headers, long_text, take, text, with_headers};
use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::number_from;
use crate::support::scene::{DEAD, QUEUE, WORK_TIMEOUT};
use crate::support::wait_until;

fn daemon(vhost: &Vhost, forward: &str) -> Daemon {
    Daemon::new(
        vhost,
        &format!(
            "[jobs.route]\nqueue = \"{QUEUE}\"\ndead_letter.queue = \"{DEAD}\"\n\
             retry = {{ max_attempts = 2, initial = \"1s\", jitter = 0.0 }}\n\
             [jobs.route.handler]\nforward = {forward}\n"
        ),
    )
}

#[test]
fn a_message_arrives_as_it_was_and_once() {
    let vhost = Vhost::new();
    vhost.declare("out");
    let mut daemon = daemon(&vhost, "{ exchange = \"\", routing_key = \"out\" }");
    daemon.start();
    let properties =
        with_headers("one", &[("x-mine", long_text("kept")), ("x-warrend-attempt", AmqpValue::LongLongInt(2))]);
    let properties =
        properties.with_content_encoding("gzip".to_owned()).with_correlation_id("c".to_owned()).with_priority(3);
    for _ in 0..2 {
        vhost.publish(QUEUE, "no gzip at all", properties.clone());
    }
    let message = take(&vhost, "out");
    assert_eq!(message.body, b"no gzip at all", "nobody looks into it");
    let got = &message.properties;
    assert_eq!(
        (got.message_id(), got.content_encoding(), got.correlation_id(), got.priority()),
        (properties.message_id(), properties.content_encoding(), properties.correlation_id(), properties.priority())
    );
    assert_eq!(
        headers(&message).into_keys().collect::<Vec<_>>(),
        ["x-mine", "x-warrend-hops"],
        "attempts are counted anew"
    );
    daemon.wait_until("the second is a duplicate", DAEMON_TIMEOUT, |daemon| {
        (daemon.counter("route", "done"), daemon.counter("route", "duplicates")) == (1, 1)
    });
    assert!(daemon.terminate().success());
    assert_eq!((vhost.ready("out"), vhost.ready(QUEUE), vhost.ready(DEAD)), (Some(0), Some(0), Some(0)));
}

#[test]
fn the_first_route_that_matches_wins() {
    let vhost = Vhost::new();
    exchange(&vhost, "in", ExchangeType::Topic);
    for queue in ["images", "tenant-7", "rest"] {
        vhost.declare(queue);
    }
    let forward = "{ otherwise = { routing_key = \"rest\" }, routes = [\n\
                   { match = \"image.#\", routing_key = \"images\" },\n\
                   { header = \"tenant\", routing_key = \"tenant-{tenant}\" },\n] }";
    let mut daemon = daemon(&vhost, forward);
    daemon.start();
    crate::amqp::bind(&vhost, QUEUE, "in", "#");
    let seven = [("tenant", AmqpValue::LongInt(7))];
    let publish = |key: &str, properties: AmqpProperties| vhost.publish_to("in", key, [(key.into(), properties)]);
    publish("image.png", with_headers("a", &seven));
    publish("text.plain", with_headers("b", &seven));
    publish("text.html", with_id("c"));
    for (queue, body) in [("images", "image.png"), ("tenant-7", "text.plain"), ("rest", "text.html")] {
        assert_eq!(String::from_utf8_lossy(&take(&vhost, queue).body), body);
    }
    assert!(daemon.terminate().success());
}

#[test]
fn what_has_nowhere_to_go_is_dead() {
    let vhost = Vhost::new();
    let mut daemon = daemon(&vhost, "{ routes = [{ header = \"to\", routing_key = \"{to}\" }] }");
    daemon.start();
    let to = |queue: &str| with_headers(&format!("to-{queue}"), &[("to", long_text(queue))]);
    let cases = [
        (with_id("nothing"), "rejected", "no route matches"),
        // Back into its own queue it would turn in a circle.
        (to(QUEUE), "rejected", "queue"),
        // Nobody knows that queue yet, so it is tried again before it is dead.
        (to("missing"), "failed", "missing"),
    ];
    for (properties, class, error) in cases {
        vhost.publish(QUEUE, "x", properties);
        wait_until("a dead letter", BROKER_TIMEOUT, || vhost.ready(DEAD) == Some(1));
        let dead = take(&vhost, DEAD);
        assert_eq!(text(&dead, "x-warrend-error-class"), class);
        assert!(text(&dead, "x-warrend-error").contains(error), "{}", text(&dead, "x-warrend-error"));
    }
    assert_eq!((daemon.counter("route", "retried"), daemon.counter("route", "dead")), (1, 3));
    assert!(daemon.terminate().success());
}

#[test]
fn an_exchange_that_is_missing_fails_its_own_messages_only() {
    let vhost = Vhost::new();
    vhost.declare("out");
    let mut daemon = daemon(&vhost, "{ exchange = \"{to}\", routing_key = \"out\" }");
    exchange(&vhost, "there", ExchangeType::Fanout);
    crate::amqp::bind(&vhost, "out", "there", "");
    daemon.start();
    vhost.publish_all(
        QUEUE,
        (0..50).map(|n| {
            let to = if n == 25 { "not-there" } else { "there" };
            (Vec::new(), with_headers(&n.to_string(), &[("to", long_text(to))]))
        }),
    );
    wait_until("the others arrive", BROKER_TIMEOUT, || vhost.ready("out") == Some(49));
    wait_until("it is dead", BROKER_TIMEOUT, || vhost.ready(DEAD) == Some(1));
    let dead = take(&vhost, DEAD);
    assert!(text(&dead, "x-warrend-error").contains("not-there"), "{}", text(&dead, "x-warrend-error"));
    assert_eq!((daemon.counter("route", "done"), daemon.counter("route", "retried")), (49, 1));
    assert!(daemon.terminate().success());
}

/// `WARREND_FORWARD_KILLS=50` is the long form.
#[test]
fn a_killed_daemon_loses_nothing_on_the_way() {
    let kills = number_from("WARREND_FORWARD_KILLS", 5);
    let messages = 4000 * kills as u32;
    let vhost = Vhost::new();
    vhost.declare("out");
    vhost.declare(QUEUE);
    vhost.publish_all(QUEUE, (0..messages).map(|n| (Vec::new(), with_id(&n.to_string()))));
    let mut daemon = daemon(&vhost, "{ routing_key = \"out\" }");
    for kill in 1..=kills as u32 {
        daemon.spawn(&[]);
        let enough = kill * messages / (kills as u32 + 1);
        daemon.wait_until("some have arrived", WORK_TIMEOUT, |_| vhost.ready("out") >= Some(enough));
        daemon.kill9();
    }
    daemon.spawn(&["--until-empty"]);
    assert!(daemon.wait_exit(WORK_TIMEOUT).success(), "{}", daemon.log_tail());
    let mut arrived = std::collections::BTreeSet::new();
    let again =
        vhost.drain("out").into_iter().filter(|message| !arrived.insert(message.properties.message_id().clone()));
    let again = again.count();
    assert_eq!(arrived.len(), messages as usize, "none is lost");
    // Confirmed and not yet recorded: at most what was not acknowledged, which is the prefetch.
    assert!(again <= kills * 200, "{again} arrived twice after {kills} kills");
    assert_eq!((vhost.ready(QUEUE), vhost.ready(DEAD)), (Some(0), Some(0)));
    let lost = messages as usize - arrived.len();
    eprintln!("{messages} messages, {kills} kills, {lost} lost, {again} ran again: they arrived twice");
}
