//! The fault proxy itself, between a client and a server that are neither daemon nor broker: what it is told to do it does,
//! to the byte. What the daemon makes of it is in `wire.rs`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::proxy::{Door, Faults, Proxy, Way};
use crate::support::wait_until;

/// Longer than anything takes here, unless the proxy holds it back.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
const QUIET: Duration = Duration::from_millis(150);

/// A proxy before a listener of the test's own.
struct Bench {
    proxy: Proxy,
    listener: TcpListener,
}

impl Bench {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let proxy = Proxy::start(&listener.local_addr().expect("it is bound").to_string());
        Self { proxy, listener }
    }

    /// A connection through the proxy: the end of the daemon, and that of the broker.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let daemon = self.knock();
        let (broker, _) = self.listener.accept().expect("the proxy connects");
        broker.set_read_timeout(Some(SOON)).expect("a socket can be made so");
        (daemon, broker)
    }

    fn knock(&self) -> TcpStream {
        let daemon = TcpStream::connect(self.proxy.address()).expect("the proxy listens");
        daemon.set_read_timeout(Some(SOON)).expect("a socket can be made so");
        daemon
    }

    /// A connection with those faults on both ways.
    fn faulty(&self, faults: Faults) -> (TcpStream, TcpStream) {
        Way::BOTH.into_iter().for_each(|way| self.proxy.set(way, faults));
        self.connect()
    }
}

fn read(from: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    from.read_exact(&mut read).expect("it comes");
    read
}

/// Everything that comes before the connection is reset.
fn read_until_reset(from: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut bytes) = (Vec::new(), [0; 1000]);
    loop {
        match from.read(&mut bytes) {
            Ok(0) => panic!("closed and not reset after {} bytes", all.len()),
            Ok(read) => all.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_quiet(from: &mut TcpStream) -> bool {
    from.set_read_timeout(Some(QUIET)).expect("a socket can be made so");
    let quiet = from.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    from.set_read_timeout(Some(SOON)).expect("a socket can be made so");
    quiet
}

/// Bytes that are not alike.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[test]
fn without_faults_all_bytes_pass_and_are_counted() {
    let bench = Bench::new();
    let (mut daemon, mut broker) = bench.connect();
    let bytes = pattern(10 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| daemon.write_all(&bytes).expect("it is read"));
        assert!(read(&mut broker, bytes.len()) == bytes, "the bytes differ");
    });
    broker.write_all(b"thanks").expect("it is read");
    assert_eq!(read(&mut daemon, 6), b"thanks");
    let report = bench.proxy.report();
    assert_eq!((report.connections, report.bytes, report.links.len()), (1, [10 << 20, 6], 1));
    drop(daemon);
    assert_eq!(broker.read(&mut [0]).expect("an end is no error"), 0, "the end of one is told to the other");
    drop(broker);
    wait_until("the connection is forgotten", SOON, || bench.proxy.report().links.is_empty());
}

#[test]
fn slices_arrive_whole_and_one_by_one() {
    let bench = Bench::new();
    let (mut daemon, mut broker) = bench.faulty(Faults { slice: Some(1), ..Faults::default() });
    let bytes = pattern(3000);
    daemon.write_all(&bytes).expect("the proxy reads");
    assert_eq!(read(&mut broker, 3000), bytes);
    assert_eq!(bench.proxy.report().writes, [3000, 0]);
}

#[test]
fn latency_delays_and_keeps_the_order() {
    let bench = Bench::new();
    let latency = Duration::from_millis(100);
    let (mut daemon, mut broker) = bench.faulty(Faults { latency, jitter: latency, ..Faults::default() });
    let began = Instant::now();
    for byte in 0..100 {
        daemon.write_all(&[byte]).expect("the proxy reads");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read(&mut broker, 100), (0..100).collect::<Vec<u8>>());
    let took = began.elapsed();
    // The last byte was sent after 100 ms; had each waited for the one before, it would have taken 10 s and more.
    assert!(took >= 2 * latency && took < 20 * latency, "{took:?}");
}

#[test]
fn a_rate_is_kept() {
    let bench = Bench::new();
    let (mut daemon, mut broker) = bench.faulty(Faults { rate: Some(50_000), ..Faults::default() });
    let began = Instant::now();
    daemon.write_all(&pattern(25_000)).expect("the proxy reads");
    assert_eq!(read(&mut broker, 25_000), pattern(25_000));
    let took = began.elapsed();
    assert!((400..5000).contains(&took.as_millis()), "half a second's worth took {took:?}");
}

#[test]
fn a_hole_swallows_one_way_until_it_is_closed() {
    let bench = Bench::new();
    let (mut daemon, mut broker) = bench.connect();
    bench.proxy.set(Way::ToBroker, Faults { hole: true, ..Faults::default() });
    daemon.write_all(b"hello").expect("the proxy reads");
    broker.write_all(b"are you there?").expect("the proxy reads");
    assert_eq!(read(&mut daemon, 14), b"are you there?");
    assert!(is_quiet(&mut broker));
    bench.proxy.set(Way::ToBroker, Faults::default());
    assert_eq!(read(&mut broker, 5), b"hello");
}

/// Sent with the hole shut, the end of a connection is kept back too.
#[test]
fn a_hole_swallows_the_end_of_a_connection() {
    let bench = Bench::new();
    let (daemon, mut broker) = bench.connect();
    bench.proxy.set(Way::ToBroker, Faults { hole: true, ..Faults::default() });
    drop(daemon);
    assert!(is_quiet(&mut broker));
    bench.proxy.set(Way::ToBroker, Faults::default());
    assert_eq!(broker.read(&mut [0]).expect("an end is no error"), 0);
}

#[test]
fn a_reset_comes_after_exactly_so_many_bytes() {
    let bench = Bench::new();
    for way in Way::BOTH {
        for bytes in [0, 1, 2, 777, 100_000] {
            bench.proxy.reset_each(way, [bytes]);
            let (daemon, broker) = bench.connect();
            let (mut sender, mut receiver) = if way == Way::ToBroker { (daemon, broker) } else { (broker, daemon) };
            let sent = sender.write_all(&pattern(200_000));
            assert_eq!(read_until_reset(&mut receiver), pattern(bytes as usize), "{way:?} {bytes}");
            // The kernel tells of a reset once, and where it came in time the write was told.
            if sent.is_ok() {
                assert_eq!(read_until_reset(&mut sender), b"");
            }
        }
    }
    let report = bench.proxy.report();
    assert_eq!((report.resets, report.waiting, report.links.len()), (10, 0, 0));
    let (mut daemon, mut broker) = bench.connect();
    daemon.write_all(&pattern(200_000)).expect("the list of resets is used up");
    assert_eq!(read(&mut broker, 200_000), pattern(200_000));
}

#[test]
fn connections_that_stand_are_reset_at_once_or_after_more_bytes() {
    let bench = Bench::new();
    let (mut daemon, mut broker) = bench.connect();
    let (mut other, mut far) = bench.connect();
    daemon.write_all(b"hello").expect("it is read");
    assert_eq!(read(&mut broker, 5), b"hello");
    bench.proxy.reset_after(Way::ToBroker, 3);
    daemon.write_all(b"world").expect("the proxy reads");
    assert_eq!(read_until_reset(&mut broker), b"wor");
    assert_eq!(read_until_reset(&mut daemon), b"");
    far.write_all(b"x").expect("the other one stands");
    assert_eq!(read(&mut other, 1), b"x");
    let (mut third, mut end) = bench.connect();
    let links = bench.proxy.report().links;
    let figures: Vec<_> = links.iter().map(|link| (link.number, Way::BOTH.map(|way| link.bytes(way)))).collect();
    assert_eq!(figures, [(2, [0, 1]), (3, [0, 0])]);
    bench.proxy.reset(2);
    assert_eq!(read_until_reset(&mut other), b"");
    assert_eq!(read_until_reset(&mut far), b"");
    assert_eq!(bench.proxy.reset_all(), 1);
    assert_eq!(read_until_reset(&mut third), b"");
    assert_eq!(read_until_reset(&mut end), b"");
}

#[test]
fn half_a_close_leaves_the_other_half() {
    let bench = Bench::new();
    let (mut daemon, mut broker) = bench.connect();
    bench.proxy.half_close(Way::ToBroker);
    assert_eq!(broker.read(&mut [0]).expect("an end is no error"), 0);
    broker.write_all(b"good-bye").expect("this way is open");
    assert_eq!(read(&mut daemon, 8), b"good-bye");
    daemon.write_all(b"into the void").expect("the proxy reads");
    broker.shutdown(Shutdown::Both).expect("it stands");
    assert_eq!(daemon.read(&mut [0]).expect("an end is no error"), 0);
    drop(daemon);
    wait_until("the connection is forgotten", SOON, || bench.proxy.report().links.is_empty());
}

#[test]
fn the_door_opens_and_closes() {
    let bench = Bench::new();
    bench.proxy.door(Door::Refuse);
    let refused = TcpStream::connect(bench.proxy.address()).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    bench.proxy.door(Door::Stall);
    let mut stalled = bench.knock();
    stalled.write_all(b"hello?").expect("the kernel takes it");
    assert!(is_quiet(&mut stalled));
    bench.proxy.door(Door::Open);
    let (mut broker, _) = bench.listener.accept().expect("the stalled one is passed on");
    assert_eq!(read(&mut broker, 6), b"hello?");
    let (mut daemon, mut broker) = bench.connect();
    daemon.write_all(b"x").expect("it is read");
    assert_eq!(read(&mut broker, 1), b"x");
}

/// A broker that is down cannot be told from one whose connections break at once.
#[test]
fn a_broker_that_is_away_resets_those_who_connect() {
    let bench = Bench::new();
    let Bench { proxy, listener } = bench;
    drop(listener);
    let mut daemon = TcpStream::connect(proxy.address()).expect("the proxy listens");
    assert_eq!(read_until_reset(&mut daemon), b"");
    assert_eq!(proxy.report().failed, 1);
}

#[test]
fn a_reset_by_one_side_reaches_the_other() {
    let bench = Bench::new();
    let (daemon, mut broker) = bench.connect();
    rustix::net::sockopt::set_socket_linger(&daemon, Some(Duration::ZERO)).expect("a socket can be made so");
    drop(daemon);
    assert_eq!(read_until_reset(&mut broker), b"");
}
