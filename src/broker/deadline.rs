//! Deadlines for calls of the library that have none.
//!
//! Opening, declaring, cancelling and closing all wait for the broker's answer without a limit. With heartbeats a dead
//! connection ends by itself after two of them, without heartbeats never. So such a call runs under a guard that cuts
//! the socket when time is up: the library's thread then ends, and the call returns with an error.

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

/// Runs `call` and cuts `socket` if it has not returned after `limit`. Says also whether it came to that.
///
/// Each use costs a short-lived thread, about 50 microseconds: not for the way of every message.
pub(super) fn cut_after<R>(socket: &TcpStream, limit: Duration, call: impl FnOnce() -> R) -> (R, bool) {
    thread::scope(|scope| {
        // Nothing is ever sent: the call's end drops the sender.
        let (returned, watched) = crossbeam_channel::bounded::<()>(0);
        let guard = thread::Builder::new().name("deadline".to_owned()).spawn_scoped(scope, move || {
            let overdue = watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if overdue {
                cut(socket);
            }
            overdue
        });
        let result = call();
        drop(returned);
        let overdue = match guard {
            Ok(guard) => guard.join().expect("the guard calls nothing that panics"),
            Err(error) => {
                log::warn!("a call to the broker ran without a deadline: {error}");
                false
            }
        };
        (result, overdue)
    })
}

/// Ends a connection at once, from whatever thread.
pub(super) fn cut(socket: &TcpStream) {
    if let Err(error) = socket.shutdown(Shutdown::Both) {
        log::debug!("the socket was closed already: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_call_that_hangs_on_the_socket_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let handle = socket.try_clone().unwrap();
        // The listener never answers, so only the cut ends this read.
        let (read, overdue) = cut_after(&handle, Duration::from_millis(20), || socket.read(&mut [0]));
        assert_eq!(read.unwrap(), 0);
        assert!(overdue);
    }

    #[test]
    fn a_call_that_returns_leaves_the_socket_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (result, overdue) = cut_after(&socket, Duration::from_secs(60), || 7);
        assert_eq!((result, overdue), (7, false));
        assert!(socket.peer_addr().is_ok());
    }
}
