//! The proxy's thread: one loop over all sockets.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;

use super::super::tap::{Role, Tap};
use super::link::{Link, State};
use super::{Door, Faults, LinkReport, Report, Way, Work};

/// The longest wait for anything to happen.
const TICK: Duration = Duration::from_millis(500);
/// How long the broker may take to accept, which its kernel does.
const CONNECT: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Owned by the proxy's thread.
pub struct Engine {
    listener: TcpListener,
    broker: String,
    orders: Receiver<Work>,
    ears: UnixStream,
    door: Door,
    /// By way.
    faults: [Faults; 2],
    /// Of the next connections.
    cuts: VecDeque<(Way, u64)>,
    links: Vec<Link>,
    /// Let in and not passed on.
    stalled: Vec<TcpStream>,
    report: Report,
    tap: Option<Tap>,
    stopped: bool,
}

impl Engine {
    pub fn new(
        listener: TcpListener,
        broker: String,
        tap: Option<Tap>,
        orders: Receiver<Work>,
        ears: UnixStream,
    ) -> Self {
        listener.set_nonblocking(true).expect("a socket can be made so");
        ears.set_nonblocking(true).expect("a socket can be made so");
        Self {
            listener,
            broker,
            orders,
            ears,
            door: Door::Open,
            faults: [Faults::default(); 2],
            cuts: VecDeque::new(),
            links: Vec::new(),
            stalled: Vec::new(),
            report: Report::default(),
            tap,
            stopped: false,
        }
    }

    /// Until [`Self::stop`].
    pub fn run(mut self) {
        while !self.stopped {
            self.wait();
            // More rings than orders do no harm.
            let _ = self.ears.read(&mut [0; 64]);
            self.accept();
            self.pump();
            while let Ok(work) = self.orders.try_recv() {
                work(&mut self);
            }
        }
    }

    /// Waits until a socket is ready, something held is due, or somebody rings.
    fn wait(&self) {
        let due = self.links.iter().filter_map(|link| link.due(&self.faults)).min();
        let wait = due.map_or(TICK, |due| due.saturating_duration_since(Instant::now()).min(TICK));
        let mut sockets = vec![PollFd::new(&self.ears, PollFlags::IN)];
        if self.door != Door::Refuse {
            sockets.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for (socket, flags) in self.links.iter().flat_map(Link::interests) {
            sockets.push(PollFd::from_borrowed_fd(socket, flags));
        }
        let wait = Timespec::try_from(wait).expect("half a second fits");
        // A signal ends the wait early, which does no harm.
        let _ = poll(&mut sockets, Some(&wait));
    }

    fn accept(&mut self) {
        while let Ok((daemon, _)) = self.listener.accept() {
            self.report.connections += 1;
            match self.door {
                Door::Open => self.link(daemon),
                Door::Stall => self.stalled.push(daemon),
                // It came before the door was shut.
                Door::Refuse => reset(&daemon),
            }
        }
    }

    fn link(&mut self, daemon: TcpStream) {
        let addresses = self.broker.to_socket_addrs().into_iter().flatten();
        let Some(broker) = addresses.filter_map(|address| TcpStream::connect_timeout(&address, CONNECT).ok()).next()
        else {
            self.report.failed += 1;
            reset(&daemon);
            return;
        };
        let mut cuts = [None; 2];
        if let Some((way, bytes)) = self.cuts.pop_front() {
            cuts[way.index()] = Some(bytes);
        }
        self.report.linked += 1;
        match Link::new(self.report.linked, daemon, broker, cuts) {
            Ok(link) => {
                if let Some(tap) = &mut self.tap {
                    tap.opened(Instant::now(), link.number);
                }
                self.links.push(link);
            }
            Err(_) => self.report.failed += 1,
        }
    }

    fn pump(&mut self) {
        let now = Instant::now();
        if let Some(tap) = &mut self.tap {
            tap.tick(now);
        }
        for mut link in std::mem::take(&mut self.links) {
            let count = |link: &Link| link.streams.each_ref().map(|stream| (stream.passed, stream.writes));
            let before = count(&link);
            let state = link.pump(&self.faults, now, self.tap.as_mut());
            for (way, (after, before)) in count(&link).into_iter().zip(before).enumerate() {
                self.report.bytes[way] += after.0 - before.0;
                self.report.writes[way] += after.1 - before.1;
            }
            match state {
                State::Stands => self.links.push(link),
                State::Over => self.end(link, false),
                State::Broken => self.end(link, true),
                State::Cut => {
                    self.report.resets += 1;
                    self.end(link, true);
                }
            }
        }
    }

    fn end(&mut self, link: Link, reset: bool) {
        if let Some(tap) = &mut self.tap {
            tap.closed(link.number);
        }
        if reset {
            link.reset();
        }
    }

    /// See [`super::Proxy::tap`].
    pub fn tap(&mut self) -> Option<&mut Tap> {
        self.tap.as_mut()
    }

    /// See [`super::Proxy::set`].
    pub fn set(&mut self, way: Way, faults: Faults) {
        self.faults[way.index()] = faults;
    }

    /// See [`super::Proxy::door`].
    pub fn set_door(&mut self, door: Door) {
        match (self.door, door) {
            (Door::Refuse, Door::Refuse) => {}
            // The port stays ours: see `listen`.
            (_, Door::Refuse) => {
                rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Read).expect("it listens");
            }
            (Door::Refuse, _) => rustix::net::listen(&self.listener, BACKLOG).expect("the port was kept"),
            (_, _) => {}
        }
        self.door = door;
        if door == Door::Open {
            for daemon in std::mem::take(&mut self.stalled) {
                self.link(daemon);
            }
        }
    }

    /// See [`super::Proxy::reset_each`].
    pub fn reset_each(&mut self, way: Way, bytes: Vec<u64>) {
        self.cuts = bytes.into_iter().map(|bytes| (way, bytes)).collect();
    }

    /// See [`super::Proxy::reset_after`].
    pub fn reset_after(&mut self, way: Way, bytes: u64) {
        for stream in self.links.iter_mut().map(|link| &mut link.streams[way.index()]) {
            stream.cut = Some(stream.passed + bytes);
        }
    }

    /// Resets those whose number is `wanted`, and says how many.
    pub fn reset(&mut self, wanted: impl Fn(u64) -> bool) -> usize {
        let (gone, left): (Vec<_>, _) = std::mem::take(&mut self.links).into_iter().partition(|it| wanted(it.number));
        self.links = left;
        let count = gone.len();
        self.report.resets += count as u64;
        gone.into_iter().for_each(|link| self.end(link, true));
        count
    }

    /// See [`super::Proxy::half_close`].
    pub fn half_close(&mut self, way: Way) {
        self.links.iter_mut().for_each(|link| link.half_close(way));
    }

    /// See [`super::Proxy::report`].
    pub fn report(&self) -> Report {
        let link = |link: &Link| LinkReport {
            number: link.number,
            role: self.tap.as_ref().map_or(Role::Unknown, |tap| tap.role(link.number)),
            left: link.streams[0].ended,
            hung_up: link.streams[1].ended,
            bytes: link.streams.each_ref().map(|stream| stream.passed),
        };
        Report { waiting: self.cuts.len(), links: self.links.iter().map(link).collect(), ..self.report.clone() }
    }

    /// Ends the loop.
    pub fn stop(&mut self) {
        self.stopped = true;
    }
}

/// Ends a connection with an RST when it is dropped.
fn reset(socket: &TcpStream) {
    // A socket that is gone already needs none.
    let _ = set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
}
