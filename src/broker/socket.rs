//! What the kernel is told about the socket of a connection: above all, how long it waits for the other side.

use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt;

/// Keepalive: the first question after so long a silence, how often it is asked again, and how often in all.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// What keepalive takes to find a dead peer.
const KEEPALIVE_ENDS: Duration = Duration::from_secs(60);

/// Acks and publishes are small and must not wait for company. Keepalive finds a dead peer also where heartbeats are off and
/// nothing is under way to it.
///
/// What we sent and the other side's kernel did not acknowledge ends the connection after [`limit`]; the kernel would
/// try for a quarter of an hour. Heartbeats notice only that nothing comes: where our packets are lost and those of the
/// broker arrive, it is the broker that has to notice, and acks wait until then.
pub(super) fn prepare(socket: &TcpStream, heartbeat: Duration) -> std::io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, interval)?;
    sockopt::set_tcp_keepcnt(socket, count)?;
    sockopt::set_tcp_user_timeout(socket, u32::try_from(limit(heartbeat).as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Two heartbeats, after which the silence of the other direction ends a connection too. Without heartbeats what keepalive
/// takes, whose own count of questions this limit overrides (tcp(7)).
fn limit(heartbeat: Duration) -> Duration {
    if heartbeat.is_zero() { KEEPALIVE_ENDS } else { 2 * heartbeat }
}

/// Takes the limit off a connection that publishes.
///
/// RabbitMQ stops reading from publishers for as long as it likes: on a resource alarm, and when what it publishes to is
/// slow or without its majority. The kernel cannot tell a broker that does not read from one that is dead: it counts the
/// limit from the moment at which the receiver's window is full, however often the receiver's kernel answers (tcp(7)).
/// A connection that was given up then would publish all that is unconfirmed once more, again and again. Such a broker
/// goes on sending heartbeats; a dead one does not. With heartbeats off, a dead one that owes us confirms is noticed only when
/// the kernel has tried for a quarter of an hour; status tells of such copies after half a minute.
pub(super) fn wait_for_reader(socket: &TcpStream) {
    if let Err(error) = sockopt::set_tcp_user_timeout(socket, 0) {
        log::debug!("the limit of a publishing connection stays: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    /// A connection whose other end accepts and never reads.
    fn unread() -> (TcpStream, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (socket, listener)
    }

    /// Writes until the kernel takes no more for so long; gives the error that ended the connection, if one did.
    fn fill(mut socket: &TcpStream, patience: Duration) -> Option<ErrorKind> {
        socket.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut taken = Instant::now();
        while taken.elapsed() < patience {
            match socket.write(&[0; 65_536]) {
                Ok(_) => taken = Instant::now(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Some(error.kind()),
            }
        }
        None
    }

    #[test]
    fn the_limit_follows_the_heartbeat() {
        for (heartbeat, limit) in [(0, 60_000), (1, 2_000), (15, 30_000), (65_535, 131_070_000)] {
            let (socket, _listener) = unread();
            prepare(&socket, Duration::from_secs(heartbeat)).unwrap();
            assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), limit);
        }
    }

    #[test]
    fn a_peer_that_is_silent_is_asked_whether_it_lives() {
        let (socket, _listener) = unread();
        assert!(!sockopt::socket_keepalive(&socket).unwrap());
        prepare(&socket, Duration::ZERO).unwrap();
        let (idle, interval, count) = (
            sockopt::tcp_keepidle(&socket).unwrap(),
            sockopt::tcp_keepintvl(&socket).unwrap(),
            sockopt::tcp_keepcnt(&socket).unwrap(),
        );
        assert!(sockopt::socket_keepalive(&socket).unwrap() && socket.nodelay().unwrap());
        assert_eq!((idle, interval, count), KEEPALIVE);
        // Without heartbeats the limit on what is unacknowledged is what the questions take, so that neither undercuts the other.
        assert_eq!(idle + interval * count, KEEPALIVE_ENDS);
    }

    #[test]
    fn a_peer_that_takes_nothing_ends_the_connection_unless_it_publishes() {
        let ((consuming, _ours), (publishing, _theirs)) = (unread(), unread());
        for socket in [&consuming, &publishing] {
            prepare(socket, Duration::from_secs(1)).unwrap();
        }
        wait_for_reader(&publishing);
        std::thread::scope(|scope| {
            let publishing = scope.spawn(|| fill(&publishing, Duration::from_secs(8)));
            assert_eq!(fill(&consuming, Duration::from_secs(60)), Some(ErrorKind::TimedOut));
            assert_eq!(publishing.join().unwrap(), None);
        });
    }
}
