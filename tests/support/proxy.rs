//! A TCP proxy between a daemon and its broker that brings the network's faults, and lets a tap listen.
//!
//! One thread owns the listener, every connection and the tap ([`engine::Engine`]), and waits on one `poll` with a
//! deadline; the handle here sends it small pieces of work and waits for their answers, so that a fault is in force when
//! the call that set it returns, and what the tap sees of all connections has one order. The thread ends with the handle.
//!
//! What is absent: TLS (the tap could not read it), UDP, and faults below TCP. A black hole here still acknowledges
//! segments until its buffer is full, as a broker that hangs does; a cable that is cut would not.

mod engine;
mod link;
mod stream;

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use url::Url;

use super::tap::{Role, Tally, Tap};
use engine::Engine;

/// How long the proxy's thread may take to answer: it only ever waits for its own sockets.
const ANSWER: Duration = Duration::from_secs(20);

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToBroker,
    ToDaemon,
}

impl Way {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::ToBroker, Self::ToDaemon];

    fn index(self) -> usize {
        match self {
            Self::ToBroker => 0,
            Self::ToDaemon => 1,
        }
    }
}

/// What befalls the bytes of one way, on every connection, present or future. The default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Each byte arrives so much later than it was sent; the order stays.
    pub latency: Duration,
    /// And up to so much later still, drawn anew for each read.
    pub jitter: Duration,
    /// Bytes of one write at most; `Some(1)` makes a segment of every byte.
    pub slice: Option<usize>,
    /// Bytes a second.
    pub rate: Option<u32>,
    /// Nothing is passed on. What comes is kept, and goes its way when the hole is closed again.
    pub hole: bool,
}

/// What becomes of those who connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// They reach the broker.
    Open,
    /// Nobody listens: the kernel refuses them.
    Refuse,
    /// They are let in and hear nothing, until the door is opened.
    Stall,
}

/// Figures of a proxy, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Connections that were accepted, and those of them that were passed on to the broker.
    pub connections: u64,
    pub linked: u64,
    /// Connections that could not be passed on: the broker did not accept them.
    pub failed: u64,
    /// Connections that the proxy has reset.
    pub resets: u64,
    /// Resets that still wait for a connection of their own: see [`Proxy::reset_each`].
    pub waiting: usize,
    /// Bytes that were passed on, by way.
    pub bytes: [u64; 2],
    /// System calls that it took.
    pub writes: [u64; 2],
    /// The connections that stand.
    pub links: Vec<LinkReport>,
}

/// One connection that stands.
#[derive(Debug, Clone)]
pub struct LinkReport {
    /// Counts the connections from 1.
    pub number: u64,
    /// What it is for, where there is a tap.
    pub role: Role,
    /// The daemon has left it, or has said that it sends nothing more.
    pub left: bool,
    /// The same of the broker.
    pub hung_up: bool,
    /// Bytes that were passed on, by way.
    pub bytes: [u64; 2],
}

impl Report {
    /// Bytes that were passed on in that way.
    pub fn bytes(&self, way: Way) -> u64 {
        self.bytes[way.index()]
    }
}

impl LinkReport {
    /// Bytes that were passed on in that way.
    pub fn bytes(&self, way: Way) -> u64 {
        self.bytes[way.index()]
    }
}

type Work = Box<dyn FnOnce(&mut Engine) + Send>;

/// A running proxy; dropped, it ends all connections.
pub struct Proxy {
    port: u16,
    /// A few callers at a time; each waits for its answer.
    work: Sender<Work>,
    /// A byte in it ends the thread's wait.
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a port of its own and passes connections on to `broker`, a `host:port`.
    pub fn start(broker: &str) -> Self {
        Self::with(broker, None)
    }

    /// The same with a tap. What the tap finds wrong fails the test at [`Proxy::finish`], or when the proxy is dropped.
    pub fn tapped(broker: &str, tap: Tap) -> Self {
        Self::with(broker, Some(tap))
    }

    fn with(broker: &str, tap: Option<Tap>) -> Self {
        let listener = listen();
        let port = listener.local_addr().expect("it is bound").port();
        let (work, orders) = bounded(16);
        let (bell, ears) = UnixStream::pair().expect("a socket pair can be made");
        bell.set_nonblocking(true).expect("a socket can be made so");
        let engine = Engine::new(listener, broker.to_owned(), tap, orders, ears);
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || engine.run());
        Self { port, work, bell, thread: Some(thread.expect("a thread can be started")) }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// That AMQP URL by way of this proxy.
    pub fn url(&self, url: &str) -> String {
        let mut url = Url::parse(url).expect("it is a URL");
        url.set_host(Some("127.0.0.1")).expect("an AMQP URL has a host");
        url.set_port(Some(self.port)).expect("an AMQP URL may have a port");
        url.into()
    }

    /// Replaces the faults of a way.
    pub fn set(&self, way: Way, faults: Faults) {
        self.ask(move |engine| engine.set(way, faults));
    }

    /// Opens or closes the door to new connections. Those that stand are not touched.
    pub fn door(&self, door: Door) {
        self.ask(move |engine| engine.set_door(door));
    }

    /// Each of the next connections is reset, the first after so many bytes of that way as the first number says, and so
    /// on; then they live again. Both ends of a connection are reset, and exactly so many bytes were passed on before.
    ///
    /// Replaces what still waited from an earlier call.
    pub fn reset_each(&self, way: Way, bytes: impl IntoIterator<Item = u64>) {
        let bytes: Vec<u64> = bytes.into_iter().collect();
        self.ask(move |engine| engine.reset_each(way, bytes));
    }

    /// Every connection that stands is reset after so many more bytes of that way.
    pub fn reset_after(&self, way: Way, bytes: u64) {
        self.ask(move |engine| engine.reset_after(way, bytes));
    }

    /// Resets every connection that stands, and says how many those were.
    pub fn reset_all(&self) -> usize {
        self.ask(|engine| engine.reset(|_| true))
    }

    /// Resets one connection.
    pub fn reset(&self, number: u64) {
        self.ask(move |engine| engine.reset(|link| link == number));
    }

    /// On every connection that stands: what goes that way ends as if its sender had said that it is done. The other way
    /// goes on.
    pub fn half_close(&self, way: Way) {
        self.ask(move |engine| engine.half_close(way));
    }

    /// The figures up to now.
    pub fn report(&self) -> Report {
        self.ask(|engine| engine.report())
    }

    /// Changes what the tap expects.
    pub fn tap(&self, change: impl FnOnce(&mut Tap) + Send + 'static) {
        self.ask(|engine| change(engine.tap().expect("this proxy has a tap")));
    }

    /// What the tap has seen, or what the daemon did wrong; that is told once, and fails nothing when the proxy is dropped.
    pub fn verdict(&self) -> Result<Tally, String> {
        self.ask(|engine| engine.tap().expect("this proxy has a tap").verdict())
    }

    /// What the tap has seen. Fails the test with all that the daemon did wrong.
    pub fn finish(&self) -> Tally {
        self.verdict().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Lets the proxy's thread do it, and waits until it is done.
    fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut Engine) -> T + Send + 'static) -> T {
        let (answers, answer) = bounded(1);
        let work: Work = Box::new(move |engine| drop(answers.send(work(engine))));
        self.work.send_timeout(work, ANSWER).expect("the proxy's thread takes orders");
        self.ring();
        answer.recv_timeout(ANSWER).expect("the proxy's thread answers; it panicked if it does not")
    }

    fn ring(&self) {
        // A pipe that is full has bytes that end the wait.
        let _ = (&self.bell).write(&[1]);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A test that fails already says why.
        let untold =
            if std::thread::panicking() { None } else { self.ask(|engine| engine.tap().and_then(|tap| tap.untold())) };
        // Fails where the thread has ended.
        let _ = self.work.send_timeout(Box::new(Engine::stop), ANSWER);
        self.ring();
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
        if let Some(why) = untold {
            panic!("{why}");
        }
    }
}

/// A listener whose port stays its own while it does not listen. The kernel keeps only a port that was asked for by its
/// number, so one is found first.
fn listen() -> TcpListener {
    for _ in 0..100 {
        let found = TcpListener::bind("127.0.0.1:0").and_then(|found| found.local_addr());
        // Somebody else may have got it in between.
        if let Ok(listener) = TcpListener::bind(found.expect("loopback has a free port")) {
            return listener;
        }
    }
    panic!("no port can be kept");
}
