//! A queue that stops delivering although its connection stands, and what only looks like that. And a publishing connection
//! that hangs, and what only looks like that.

use std::time::{Duration, Instant};

use amiquip::{AmqpValue, Connection, ConsumerMessage, ConsumerOptions, FieldTable};

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::node::Node;
use crate::support::scene::{QUEUE, Scene, Setup};
use crate::support::wait_until;

/// The shortest heartbeat: the watch then looks after 4 s of silence, and takes what it sees for 2 to 4 s for a stall.
pub const SHORT: &str = "heartbeat = \"1s\"\nreconnect = { initial = \"50ms\", max = \"500ms\" }";
/// Long enough for two such verdicts.
const UNDER_WATCH: Duration = Duration::from_secs(20);

/// Erlang: with `Q` as the queue, one expression for each `C` of its consumers.
fn for_each_consumer(node: &Node, vhost: &Vhost, expression: &str) {
    let name = vhost.name();
    let found = node.eval(&format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{name}\">>, queue, <<\"{QUEUE}\">>)), \
         length([{expression} || C <- rabbit_amqqueue:consumers(Q)])."
    ));
    assert_eq!(found, "1", "consumers of {QUEUE}");
}

/// The queue forgets its consumer, and nobody tells the client.
pub fn drop_consumer(node: &Node, vhost: &Vhost) {
    let cancel = "gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, element(1, C), element(2, C), undefined, <<>>})";
    for_each_consumer(node, vhost, cancel);
    assert_eq!(vhost.consumers(QUEUE), Some(0));
}

/// The consumer's channel stops where it is, while the connection lives and the queue counts the consumer.
fn suspend_channel(node: &Node, vhost: &Vhost) {
    for_each_consumer(node, vhost, "ok = sys:suspend(element(1, C))");
}

fn stalls(daemon: &Daemon) -> u64 {
    daemon.counter("work", "stalls")
}

fn problems(daemon: &Daemon) -> String {
    daemon.status().map(|status| status["problems"].to_string()).unwrap_or_default()
}

#[test]
fn a_queue_that_stops_delivering_is_consumed_anew_and_others_are_left_alone() {
    let node = Node::start();
    let mut innocents = Innocents::start(&node);
    let since = Instant::now();
    eprintln!("dropped consumers were found after {:?}", a_dropped_consumer(&node));
    eprintln!("a hanging channel was found after {:?}", a_channel_that_hangs(&node));
    std::thread::sleep(UNDER_WATCH.saturating_sub(since.elapsed()));
    innocents.check();
}

/// First of an idle job, which nobody would miss until the next message; then under work. Gives the times until it was found.
fn a_dropped_consumer(node: &Node) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut scene = Scene::new(Vhost::on(node.broker()), &Setup { broker: SHORT, ..Setup::default() });
    scene.daemon.start();
    for round in 1..=2 {
        drop_consumer(node, &scene.vhost);
        if round == 2 {
            scene.publish(100);
        }
        let dropped = Instant::now();
        scene.daemon.wait_until("the stall is counted", DAEMON_TIMEOUT, |daemon| stalls(daemon) == round);
        times.push(dropped.elapsed());
        scene.daemon.wait_until("status is healthy again", DAEMON_TIMEOUT, |daemon| {
            daemon.status().is_some_and(|status| status["healthy"] == true)
        });
        assert_eq!(scene.vhost.consumers(QUEUE), Some(1));
    }
    let log = scene.daemon.log();
    assert_eq!(log.matches("RabbitMQ has counted no consumer of queue \"work\"").count(), 2, "{log}");
    scene.wait_until_settled();
    assert_eq!((stalls(&scene.daemon), scene.daemon.counter("work", "reconnects")), (2, 2));
    scene.stop();
    scene.judge();
    times
}

/// More messages than the prefetch: those that the channel holds are not ready.
fn a_channel_that_hangs(node: &Node) -> Duration {
    let mut scene = Scene::new(Vhost::on(node.broker()), &Setup { broker: SHORT, ..Setup::default() });
    scene.daemon.start();
    suspend_channel(node, &scene.vhost);
    scene.publish(100);
    let hung = Instant::now();
    scene.daemon.wait_until("the stall is counted", DAEMON_TIMEOUT, |daemon| stalls(daemon) == 1);
    let found = hung.elapsed();
    // The broker ends the channel's process in its own time, and only then are the messages in it ready again.
    scene.wait_until_settled();
    let log = scene.daemon.log();
    assert!(log.contains("messages have waited in queue \"work\" for"), "{log}");
    assert_eq!(problems(&scene.daemon), "[]");
    scene.stop();
    scene.judge();
    found
}

/// A quorum queue without a leader, as RabbitMQ 3.10 may leave one when it starts, neither takes nor refuses anything.
#[test]
fn a_queue_that_takes_nothing_is_told_of_and_costs_nothing() {
    let node = Node::start();
    let mut scene = Scene::new(Vhost::on(node.broker()), &Setup { tap: false, ..Setup::default() });
    scene.daemon.start();
    let retries = format!("whereis('{}_warrend.delay.00')", scene.vhost.name());
    wait_until("the ladder is there", BROKER_TIMEOUT, || node.eval(&format!("is_pid({retries}).")) == "true");
    node.eval(&format!("ok = sys:suspend({retries})."));
    scene.publish(100);
    scene.daemon.wait_until("the unconfirmed copies are told of", 2 * DAEMON_TIMEOUT, |daemon| {
        problems(daemon).contains("has not confirmed")
    });
    node.eval(&format!("ok = sys:resume({retries})."));
    scene.wait_until_settled();
    assert_eq!(problems(&scene.daemon), "[]");
    scene.stop();
    scene.judge();
}

/// Daemons whose queues look as if they had stalled.
struct Innocents {
    vhosts: Vec<Vhost>,
    daemons: Vec<(&'static str, Daemon)>,
    untold: Option<Daemon>,
    greedy: Option<Greedy>,
}

fn daemon(vhost: &Vhost, job: &str, command: &str) -> Daemon {
    let broker = format!("urls = [{:?}]\n{SHORT}", vhost.url());
    let mut daemon =
        Daemon::with_broker(&broker, &format!("[jobs.work]\n{job}\n[jobs.work.handler]\ncommand = {command}\n"));
    daemon.start();
    daemon
}

const PLAIN: &str = "queue = \"work\"\nconcurrency = 1\nprefetch = 1";
const SLOW: &str = "[\"sleep\", \"600\"]\ntimeout = \"10m\"";
const FAST: &str = "[\"true\"]";

impl Innocents {
    fn start(node: &Node) -> Self {
        let mut innocents = Self { vhosts: Vec::new(), daemons: Vec::new(), untold: None, greedy: None };
        innocents.single_active(Vhost::on(node.broker()));
        innocents.paused(Vhost::on(node.broker()));
        let vhost = Vhost::on(node.broker());
        vhost.declare(QUEUE);
        innocents.daemons.push(("a lower priority", daemon(&vhost, PLAIN, FAST)));
        innocents.greedy = Some(Greedy::start(vhost));
        innocents
    }

    /// The first one is active, and its prefetch is used up by a long run; the others wait for it to go.
    fn single_active(&mut self, vhost: Vhost) {
        let mut arguments = FieldTable::new();
        arguments.insert("x-single-active-consumer".to_owned(), AmqpValue::Boolean(true));
        vhost.declare_with(QUEUE, arguments);
        self.daemons.push(("a long run", daemon(&vhost, PLAIN, SLOW)));
        vhost.publish_all(QUEUE, (0..10).map(|n| (Vec::new(), with_id(&format!("m{n}")))));
        let told = "queues = [{ name = \"work\", arguments = { x-single-active-consumer = true } }]";
        self.daemons.push(("a standby", daemon(&vhost, told, FAST)));
        self.untold = Some(daemon(&vhost, "queue = \"work\"", FAST));
        self.vhosts.push(vhost);
    }

    fn paused(&mut self, vhost: Vhost) {
        vhost.declare(QUEUE);
        let daemon = daemon(&vhost, PLAIN, FAST);
        assert!(daemon.run(&["pause", "work"]).status.success());
        wait_until("nobody consumes", BROKER_TIMEOUT, || vhost.consumers(QUEUE) == Some(0));
        vhost.publish(QUEUE, "", with_id("waits"));
        self.daemons.push(("a pause", daemon));
        self.vhosts.push(vhost);
    }

    fn check(&mut self) {
        for (what, daemon) in &self.daemons {
            let seen = [stalls(daemon), daemon.counter("work", "reconnects")];
            assert_eq!(seen, [0, 0], "{what}: {}", daemon.log_tail());
            assert!(!problems(daemon).contains("waited in queue"), "{what}: {}", problems(daemon));
        }
        // A standby that is not told what it is tries, each time after twice as long, and says what it sees.
        let untold = self.untold.as_ref().expect("it was started");
        assert!((1..=4).contains(&stalls(untold)), "{}", untold.log_tail());
        assert!(problems(untold).contains("9 messages have waited in queue"), "{}", problems(untold));
        let (_, beside) = self.daemons.last().expect("it was started");
        let taken = self.greedy.take().expect("it was started").stop();
        assert!(taken > 100 && beside.counter("work", "received") < 10, "{taken} were taken by the other");
    }
}

/// A consumer of a higher priority that takes all, and a publisher that keeps it busy.
struct Greedy {
    stop: crossbeam_channel::Sender<()>,
    thread: std::thread::JoinHandle<usize>,
}

impl Greedy {
    fn start(vhost: Vhost) -> Self {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (ready, is_ready) = crossbeam_channel::bounded(1);
        let thread = std::thread::spawn(move || {
            let mut connection = Connection::insecure_open(&vhost.url()).expect("the broker is there");
            let channel = connection.open_channel(None).expect("a channel can be opened");
            let mut arguments = FieldTable::new();
            arguments.insert("x-priority".to_owned(), AmqpValue::LongInt(10));
            let options = ConsumerOptions { no_ack: true, arguments, ..ConsumerOptions::default() };
            let consumer = channel.basic_consume(QUEUE, options).expect("the queue stands");
            let _ = ready.send(());
            let mut taken = 0;
            while stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                vhost.publish_all(QUEUE, (0..20).map(|n| (vec![0; 100], with_id(&format!("g{taken}-{n}")))));
                let came = consumer.receiver().try_iter();
                taken += came.filter(|message| matches!(message, ConsumerMessage::Delivery(_))).count();
            }
            taken
        });
        is_ready.recv_timeout(BROKER_TIMEOUT).expect("it consumes");
        Self { stop, thread }
    }

    fn stop(self) -> usize {
        drop(self.stop);
        self.thread.join().expect("the other consumer lives")
    }
}

/// RabbitMQ does not read from publishers meanwhile: the window of the connection is full, as that of a dead peer would
/// be.
#[test]
fn a_broker_that_holds_publishers_back_is_waited_for() {
    const TARGET: &str = "target";
    const MESSAGES: u32 = 2000;
    let node = Node::start();
    let vhost = Vhost::on(node.broker());
    vhost.declare(TARGET);
    let job = format!(
        "[jobs.work]\nqueue = \"{QUEUE}\"\nhandler.forward = {{ exchange = \"\", routing_key = \"{TARGET}\" }}\n"
    );
    let mut daemon = Daemon::with_broker(&format!("urls = [{:?}]\n{SHORT}", vhost.url()), &job);
    daemon.start();
    let target = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{TARGET}\">>)), amqqueue:get_pid(Q)",
        vhost.name()
    );
    // The target confirms nothing and grants no credit: the broker stops reading after a few hundred messages.
    node.eval(&format!("sys:suspend(begin {target} end)."));
    vhost.publish_all(QUEUE, (0..MESSAGES).map(|n| (vec![0; 16_384], with_id(&format!("m{n}")))));
    daemon.wait_until("messages are under way", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "owing") > 100);
    std::thread::sleep(Duration::from_secs(8));
    let status = daemon.status().expect("it runs");
    assert_eq!(
        (&status["broker"]["connected"], &status["broker"]["reconnects"]),
        (&true.into(), &0.into()),
        "{}",
        daemon.log_tail()
    );
    // And the alarm on top: the same, and the broker says it.
    node.alarm(true);
    node.eval(&format!("sys:resume(begin {target} end)."));
    std::thread::sleep(Duration::from_secs(8));
    node.alarm(false);
    daemon.wait_until("all are forwarded", Duration::from_secs(60), |daemon| {
        daemon.counter("work", "done") == u64::from(MESSAGES)
    });
    let status = daemon.status().expect("it runs");
    assert_eq!((&status["broker"]["reconnects"], &status["jobs"]["work"]["stalls"]), (&0.into(), &0.into()));
    assert_eq!(vhost.ready(TARGET), Some(MESSAGES), "none twice");
    assert!(daemon.terminate().success());
}

#[test]
fn an_idle_publisher_notices_a_broker_that_hangs_within_two_heartbeats() {
    let node = Node::start();
    let vhost = Vhost::on(node.broker());
    let job = format!("[jobs.work]\nqueue = \"{QUEUE}\"\nhandler.discard = true\n");
    let broker = format!("urls = [{:?}]\nheartbeat = \"3s\"\nconnect_timeout = \"2s\"", vhost.url());
    let mut daemon = Daemon::with_broker(&broker, &job);
    daemon.start();
    wait_until("the publisher is connected", BROKER_TIMEOUT, || problems(&daemon) == "[]");
    node.freeze();
    let frozen = Instant::now();
    // RabbitMQ sends a heartbeat every half of one, so the last may be as old as that.
    daemon.wait_until("both connections are lost", Duration::from_secs(8), |daemon| {
        let log = daemon.log();
        log.contains("publisher: lost the connection") && log.contains("job work: lost the connection")
    });
    eprintln!("noticed after {:?}", frozen.elapsed());
    assert_eq!(daemon.status().expect("it runs")["broker"]["connected"], false);
    node.thaw();
    daemon.wait_until("all is well again", DAEMON_TIMEOUT, |daemon| problems(daemon) == "[]");
    assert_eq!(stalls(&daemon), 0);
    assert!(daemon.terminate().success());
}
