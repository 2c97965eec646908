//! Clients of the control socket that do not keep to what they should: the next one is answered.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::broker::Vhost;
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};

/// A client is given 5 s for its request, and 5 s to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

fn connect(daemon: &Daemon) -> UnixStream {
    let client = UnixStream::connect(daemon.socket_path()).expect("the daemon listens");
    client.set_read_timeout(Some(DAEMON_TIMEOUT)).expect("a socket takes it");
    client.set_write_timeout(Some(DAEMON_TIMEOUT)).expect("a socket takes it");
    client
}

/// What the daemon says to these bytes; nothing where it hangs up.
fn said(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut client = connect(daemon);
    // The daemon may have answered and gone before it has read all.
    let _ = client.write_all(bytes).and_then(|()| client.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    String::from_utf8(answer).expect("the daemon answers in text")
}

#[test]
fn garbage_on_the_control_socket_costs_an_error_at_most() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n");
    daemon.start();
    let mut random = vec![0; 100_000];
    fastrand::Rng::with_seed(7).fill(&mut random);
    let deep = format!("{}\n", "[".repeat(60_000));
    let forged = b"{\"command\":\"pause\",\"job\":\"x\\n[FORGED]\",\"reason\":\"\\n\\u001b[31m\"}\n";
    let forged_key = b"{\"command\":\"forget\",\"job\":\"x\\n[FORGED]\",\"key\":\"\\n\\u001b[31m\"}\n";
    let garbage: [(&str, &[u8]); 15] = [
        ("nothing", b""),
        ("a newline", b"\n"),
        ("NUL", b"\0\0\0\0\n"),
        ("random bytes", &random),
        ("half a request", b"{\"command\":\"sta"),
        ("no object", b"17\n"),
        ("nested", deep.as_bytes()),
        ("an unknown command", b"{\"command\":\"reboot\"}\n"),
        ("a field too few", b"{\"command\":\"pause\"}\n"),
        ("10 MiB without newline", &vec![b'x'; 10 << 20]),
        ("an unknown job", forged),
        ("a key that is no text", b"{\"command\":\"forget\",\"job\":\"work\",\"key\":7}\n"),
        ("a key of an unknown job", forged_key),
        ("two requests at once", b"{\"command\":\"pruning\"}\n{\"command\":\"reboot\"}\n"),
        ("a key of 60 KB", &[&b"{\"command\":\"find\",\"key\":\""[..], &vec![b'k'; 60_000], b"\"}\n"].concat()),
    ];
    for (name, bytes) in garbage {
        let answer = said(&daemon, bytes);
        assert!(answer.lines().count() <= 1 && answer.len() < 1024, "{name}: {answer}");
        let is_an_answer = ["\"error\"", "\"found\"", "\"forgotten\":0"].iter().any(|word| answer.contains(word));
        assert!(answer.is_empty() || is_an_answer, "{name}: {answer}");
        assert!(daemon.status().is_some(), "the next client is answered after {name}");
    }
    super::assert_plain(&daemon.log());
    assert!(!daemon.log().lines().any(|line| line.starts_with("[FORGED]")), "{}", daemon.log_tail());
    assert!(daemon.terminate().success());
}

/// Each of these takes all the time that a client gets, and no more.
#[test]
fn a_client_that_lingers_delays_the_next_one_and_no_longer_than_it_may() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n");
    daemon.start();
    let answered_after = |name: &str| {
        let begun = Instant::now();
        assert!(daemon.status().is_some(), "the next client is answered after {name}");
        assert!(begun.elapsed() < PATIENCE * 2, "{name} held it up for {:?}", begun.elapsed());
    };
    let silent = connect(&daemon);
    answered_after("one that says nothing");
    drop(silent);

    // A byte every few milliseconds, until the daemon hangs up.
    let mut trickling = connect(&daemon);
    let trickler = std::thread::spawn(move || -> io::Result<()> {
        loop {
            trickling.write_all(b" ")?;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    answered_after("one that trickles");
    trickler.join().expect("it does not panic").expect_err("the daemon hung up");

    // Its answer would fit the socket's buffer, so it asks for many; none is read.
    let unread: Vec<_> = (0..20)
        .map(|_| {
            let mut client = connect(&daemon);
            client.write_all(b"{\"command\":\"status\"}\n").expect("the socket takes it");
            client
        })
        .collect();
    answered_after("those that never read");
    drop(unread);
    assert!(daemon.terminate().success());
}
