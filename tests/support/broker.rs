//! The broker that the tests share, and a vhost of its own for each test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use amiquip::{
    AmqpProperties, Channel, Confirm, Connection, Delivery, FieldTable, Publish, QueueDeclareOptions,
    QueueDeleteOptions,
};
use serde_json::{Value, json};
use url::Url;

use super::management::{Management, escape};

/// Unconfirmed messages at one time: enough to hide the round trip, too few to fill the broker's memory.
const CONFIRM_WINDOW: usize = 1000;

/// How long the broker may take for what it does at once when it is well.
pub const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a virtual host that is over is kept for connections into it. A daemon that still runs keeps its own.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// A running RabbitMQ.
#[derive(Clone)]
pub struct Broker {
    url: Url,
    /// Of the other nodes of a cluster.
    others: Vec<Url>,
    management: Management,
}

impl Broker {
    /// The broker that `make test` started or was given. Fails the test where there is none: a test that needs a
    /// broker and has none has not passed.
    pub fn get() -> &'static Self {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        BROKER.get_or_init(|| match Self::from_environment() {
            Ok(broker) => broker,
            Err(why) => panic!(
                "no broker ({why}): run `make test`, or `make broker-start` and `eval \"$(tests/support/broker.sh env)\"`"
            ),
        })
    }

    fn from_environment() -> Result<Self, String> {
        let variable = |name| std::env::var(name).map_err(|_| format!("{name} is not set"));
        Self::at(&variable("WARREND_TEST_AMQP_URL")?, &variable("WARREND_TEST_MANAGEMENT_URL")?)
    }

    /// The broker at these addresses, once its management API answers.
    pub fn at(amqp_url: &str, management_url: &str) -> Result<Self, String> {
        let url = Url::parse(amqp_url).map_err(|error| format!("the AMQP URL is wrong: {error}"))?;
        let password = url.password().unwrap_or("guest");
        let user = if url.username().is_empty() { "guest" } else { url.username() };
        let management = Management::new(management_url, user, password)?;
        management.call("GET", "/api/overview", None)?;
        Ok(Self { url, others: Vec::new(), management })
    }

    /// The cluster of which these are nodes.
    pub fn cluster<'b>(nodes: impl IntoIterator<Item = &'b Self>) -> Self {
        let join = |mut all: Self, other: &Self| {
            all.others.push(other.url.clone());
            Self { management: all.management.and(&other.management), ..all }
        };
        let mut nodes = nodes.into_iter();
        let first = nodes.next().expect("a cluster has nodes").clone();
        nodes.fold(first, join)
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or("localhost"), self.url.port().unwrap_or(5672))
    }

    /// The management API.
    pub fn management(&self) -> &Management {
        &self.management
    }
}

/// A virtual host of one test; deleted with everything in it when it is dropped.
pub struct Vhost {
    broker: Broker,
    name: String,
    /// Opened when it is first needed, and anew after somebody closed it.
    session: RefCell<Option<Connection>>,
}

impl Vhost {
    /// On the broker that the tests share.
    pub fn new() -> Self {
        Self::on(Broker::get())
    }

    /// On that broker.
    pub fn on(broker: &Broker) -> Self {
        let name = format!("warrend-test-{}", super::random_uuid().simple());
        let vhost = Self { broker: broker.clone(), name, session: RefCell::new(None) };
        vhost.create();
        vhost
    }

    /// Makes it, with nothing in it; also again, where somebody has deleted it.
    pub fn create(&self) {
        self.call("PUT", &format!("/api/vhosts/{}", self.name), None);
        let user = self.broker.url.username();
        let user = if user.is_empty() { "guest" } else { user };
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.call("PUT", &format!("/api/permissions/{}/{}", self.name, escape(user)), Some(&all));
    }

    /// Its name, which needs no escaping anywhere.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The AMQP URL that leads into it.
    pub fn url(&self) -> String {
        self.urls().remove(0)
    }

    /// The same for each node of the broker.
    pub fn urls(&self) -> Vec<String> {
        let into = |url: &Url| {
            let mut url = url.clone();
            url.set_path(&self.name);
            url.into()
        };
        std::iter::once(&self.broker.url).chain(&self.broker.others).map(into).collect()
    }

    /// The broker it is on.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// User and password of the tests.
    pub fn credentials(&self) -> (&str, &str) {
        let user = self.broker.url.username();
        (if user.is_empty() { "guest" } else { user }, self.broker.url.password().unwrap_or("guest"))
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        match self.broker.management.call(method, path, body) {
            Ok(answer) => answer,
            Err(why) => panic!("{why}"),
        }
    }

    /// Lends a fresh channel. One that the broker closes (a passive declaration of what is not there) harms nothing else.
    pub fn with_channel<T>(&self, work: impl FnOnce(&Channel) -> amiquip::Result<T>) -> amiquip::Result<T> {
        let mut session = self.session.borrow_mut();
        let opened = session.as_mut().and_then(|connection| connection.open_channel(None).ok());
        let channel = match opened {
            Some(channel) => channel,
            None => {
                *session = None;
                session.insert(self.connect()?).open_channel(None)?
            }
        };
        let outcome = work(&channel);
        // Already closed where the work failed.
        let _ = channel.close();
        outcome
    }

    /// To the first node that lets us in.
    fn connect(&self) -> amiquip::Result<Connection> {
        let urls = self.urls();
        let (last, others) = urls.split_last().expect("a broker has an address");
        let first = others.iter().find_map(|url| Connection::insecure_open(url).ok());
        first.map_or_else(|| Connection::insecure_open(last), Ok)
    }

    fn with_channel_or_fail<T>(&self, what: &str, work: impl FnOnce(&Channel) -> amiquip::Result<T>) -> T {
        match self.with_channel(work) {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Declares a durable classic queue.
    pub fn declare(&self, queue: &str) {
        self.declare_with(queue, FieldTable::new());
    }

    /// Declares a durable queue with these arguments.
    pub fn declare_with(&self, queue: &str, arguments: FieldTable) {
        if let Err(error) = self.try_declare(queue, arguments) {
            panic!("declare: {error}");
        }
    }

    /// The same where the broker may refuse it, or have lost the virtual host.
    pub fn try_declare(&self, queue: &str, arguments: FieldTable) -> amiquip::Result<()> {
        self.with_channel(|channel| channel.queue_declare(queue, durable(arguments)).map(drop))
    }

    /// Deletes the queue and declares it with these arguments, before its consumers do: they need more round trips.
    pub fn replace(&self, queue: &str, arguments: &FieldTable) {
        super::wait_until("the queue is replaced", BROKER_TIMEOUT, || {
            let replaced = self.with_channel(|channel| {
                channel.queue_delete(queue, QueueDeleteOptions::default())?;
                channel.queue_declare(queue, durable(arguments.clone())).map(drop)
            });
            replaced.is_ok()
        });
    }

    /// The same with a queue in which nothing is ready, and only if that is so; what a consumer holds goes with it.
    pub fn replace_empty(&self, queue: &str) {
        super::wait_until("the queue is empty and replaced", BROKER_TIMEOUT, || {
            let replaced = self.with_channel(|channel| {
                channel.queue_delete(queue, QueueDeleteOptions { if_unused: false, if_empty: true })?;
                channel.queue_declare(queue, durable(FieldTable::new())).map(drop)
            });
            replaced.is_ok()
        });
    }

    /// Moves everything that is ready from one queue into another, as it is, and says how many those were.
    pub fn move_all(&self, from: &str, to: &str) -> usize {
        let letters = self.drain(from);
        let count = letters.len();
        self.publish_all(to, letters.into_iter().map(|letter| (letter.body, letter.properties)));
        count
    }

    /// Puts one message into the queue, confirmed.
    pub fn publish(&self, queue: &str, body: impl Into<Vec<u8>>, properties: AmqpProperties) {
        self.publish_all(queue, [(body.into(), properties)]);
    }

    /// Puts the messages into the queue, all confirmed when it returns.
    pub fn publish_all(&self, queue: &str, messages: impl IntoIterator<Item = (Vec<u8>, AmqpProperties)>) {
        self.publish_to("", queue, messages);
    }

    /// Publishes to an exchange, all confirmed when it returns.
    pub fn publish_to(
        &self,
        exchange: &str,
        routing_key: &str,
        messages: impl IntoIterator<Item = (Vec<u8>, AmqpProperties)>,
    ) {
        self.with_channel_or_fail("publish", |channel| {
            let mut confirms = Confirms::open(channel)?;
            for (body, properties) in messages {
                channel.basic_publish(exchange, Publish::with_properties(&body, routing_key, properties))?;
                confirms.published(CONFIRM_WINDOW);
            }
            confirms.published_all();
            Ok(())
        });
    }

    /// Takes one message out.
    pub fn get(&self, queue: &str) -> Option<Delivery> {
        self.with_channel_or_fail("get", |channel| Ok(channel.basic_get(queue, true)?.map(|got| got.delivery)))
    }

    /// Takes everything out that is ready, all of it or nothing: a quorum queue may refuse for seconds after its node has
    /// started, also in the middle.
    pub fn drain(&self, queue: &str) -> Vec<Delivery> {
        let mut drained = Vec::new();
        super::wait_until(&format!("{queue} can be drained"), BROKER_TIMEOUT, || {
            let all = self.with_channel(|channel| {
                let mut all = Vec::new();
                while let Some(got) = channel.basic_get(queue, false)? {
                    all.push(got.delivery);
                }
                channel.ack_all()?;
                // The next answer on this channel comes when the acks have been worked off.
                channel.queue_declare_passive(queue).map(|_| all)
            });
            all.map(|all| drained = all).is_ok()
        });
        drained
    }

    /// Messages that wait in the queue; those that a consumer holds are not counted. `None`: there is no such queue.
    pub fn ready(&self, queue: &str) -> Option<u32> {
        self.passive(queue, |queue| queue.declared_message_count())
    }

    /// What the management API counts of a queue, such as `messages_dlx`; it lags behind by a second.
    pub fn count(&self, queue: &str, what: &str) -> u64 {
        self.call("GET", &format!("/api/queues/{}/{queue}", self.name), None)[what].as_u64().unwrap_or_default()
    }

    /// Where messages lie, who consumes, and what is bound, for whoever has to explain a failure: the vhost goes with its
    /// test. Empty queues without a consumer are left out; the counts lag behind by some seconds.
    fn remains(&self) -> Result<String, String> {
        let listing = |what: &str| self.broker.management.call("GET", &format!("/api/{what}/{}", self.name), None);
        let mut text = format!("what vhost {} held:", self.name);
        for queue in listing("queues")?.as_array().into_iter().flatten() {
            let count = |what: &str| queue[what].as_u64().unwrap_or_default();
            let counts = ["messages_ready", "messages_unacknowledged", "messages_dlx", "consumers"]
                .map(|what| (what, count(what)));
            if counts.iter().any(|(_, count)| *count > 0) {
                let counts = counts.map(|(what, count)| format!("{what} {count}")).join(", ");
                text += &format!("\n  {} ({}): {counts}", queue["name"], queue["state"]);
            }
        }
        for binding in listing("bindings")?.as_array().into_iter().flatten() {
            // Every queue is bound to the default exchange, and each level of the ladder to its own.
            let of_queue = binding["destination_type"] == "queue";
            if of_queue && binding["source"] != "" && binding["source"] != binding["destination"] {
                text += &format!("\n  {} -> {}", binding["source"], binding["destination"]);
            }
        }
        Ok(text)
    }

    /// Consumers of the queue. `None`: there is no such queue.
    pub fn consumers(&self, queue: &str) -> Option<u32> {
        self.passive(queue, |queue| queue.declared_consumer_count())
    }

    /// The consumer tags of each queue, as the management API has them.
    pub fn consumer_tags(&self) -> BTreeMap<String, Vec<String>> {
        let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let listing = self.call("GET", &format!("/api/consumers/{}", self.name), None);
        for consumer in listing.as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            tags.entry(text(&consumer["queue"]["name"])).or_default().push(text(&consumer["consumer_tag"]));
        }
        tags
    }

    fn passive(&self, queue: &str, read: impl FnOnce(&amiquip::Queue<'_>) -> Option<u32>) -> Option<u32> {
        self.with_channel(|channel| Ok(read(&channel.queue_declare_passive(queue)?))).ok().flatten()
    }

    /// Deletes the queue, whoever uses it.
    pub fn delete_queue(&self, queue: &str) {
        self.with_channel_or_fail("delete", |channel| {
            channel.queue_delete(queue, QueueDeleteOptions::default()).map(drop)
        });
    }

    /// The names of all queues in it.
    pub fn queues(&self) -> Vec<String> {
        names(&self.call("GET", &format!("/api/queues/{}?columns=name", self.name), None))
    }

    fn hang_up(&self) {
        if let Some(connection) = self.session.borrow_mut().take() {
            // Somebody may have closed it before us.
            let _ = connection.close();
        }
    }

    /// The connections of others into this vhost, as far as the management API knows: it learns of a new one at once,
    /// of a closed one a moment later.
    pub fn connections(&self) -> Vec<String> {
        self.hang_up();
        names(&self.call("GET", &format!("/api/vhosts/{}/connections", self.name), None))
    }

    /// Has the broker close every connection into this vhost, and says how many those were.
    pub fn close_connections(&self) -> usize {
        let names = self.connections();
        // One that ended since is none to close.
        let close = |name: &&String| {
            self.broker.management.call("DELETE", &format!("/api/connections/{}", escape(name)), None).is_ok()
        };
        names.iter().filter(close).count()
    }
}

impl Drop for Vhost {
    #[expect(clippy::print_stderr, reason = "whoever reads of the failure must see it")]
    fn drop(&mut self) {
        self.hang_up();
        if std::thread::panicking() {
            eprintln!("{}", self.remains().unwrap_or_else(|why| why));
        }
        // What a daemon that was killed asked for last may still be on its way, and a queue of a ladder that is deleted while it is
        // being declared can end what hands on the retries of all virtual hosts of this broker.
        let path = format!("/api/vhosts/{}/connections", self.name);
        let listing = || self.broker.management.call("GET", &path, None);
        super::holds_within(LAST_CALLS, || listing().map_or(true, |listing| names(&listing).is_empty()));
        // Its broker may be gone: a test that stopped it has nothing left to delete.
        let _ = self.broker.management.call("DELETE", &format!("/api/vhosts/{}", self.name), None);
    }
}

fn durable(arguments: FieldTable) -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, arguments, ..QueueDeclareOptions::default() }
}

/// The `name` of every entry of a listing.
fn names(listing: &Value) -> Vec<String> {
    let name = |entry: &Value| entry["name"].as_str().map(str::to_owned);
    listing.as_array().map(|entries| entries.iter().filter_map(name).collect()).unwrap_or_default()
}

/// Publisher confirms of one channel.
pub struct Confirms {
    receiver: crossbeam_channel::Receiver<Confirm>,
    smoother: amiquip::ConfirmSmoother,
    open: usize,
}

impl Confirms {
    /// Puts the channel into confirm mode.
    pub fn open(channel: &Channel) -> amiquip::Result<Self> {
        channel.enable_publisher_confirms()?;
        let receiver = channel.listen_for_publisher_confirms()?;
        Ok(Self { receiver, smoother: amiquip::ConfirmSmoother::new(), open: 0 })
    }

    /// Call it after each publish: it waits while `window` messages are not confirmed.
    pub fn published(&mut self, window: usize) {
        self.open += 1;
        while self.open >= window {
            self.wait();
        }
    }

    /// Waits until all are confirmed.
    pub fn published_all(&mut self) {
        while self.open > 0 {
            self.wait();
        }
    }

    fn wait(&mut self) {
        let confirm = self.receiver.recv_timeout(BROKER_TIMEOUT).expect("the broker confirms in time");
        for confirm in self.smoother.process(confirm) {
            assert!(matches!(confirm, Confirm::Ack(_)), "the broker refused a message");
            self.open -= 1;
        }
    }
}

/// The properties of a persistent message with this id.
pub fn with_id(id: &str) -> AmqpProperties {
    AmqpProperties::default().with_delivery_mode(2).with_message_id(id.to_owned())
}
