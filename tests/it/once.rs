//! Each message is handled once, however often it is published.

use std::time::Duration;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use crate::support::random_uuid;

/// Messages, of which so many repeat the id of an earlier one.
const MESSAGES: usize = 10_000;
const REPEATS: usize = 1_000;

#[test]
fn a_repeated_message_id_runs_once() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let (originals, published) = ids_with_repeats();
    let messages = published.iter().map(|id| (Vec::new(), with_id(id)));
    vhost.publish_all("work", messages);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), "");
    let job = format!(
        "[jobs.mail]\nqueue = \"work\"\nconcurrency = 8\nprefetch = 200\nhandler.command = {}\n",
        journal.command()
    );

    let mut daemon = Daemon::new(&vhost, &job);
    daemon.tapped(&vhost, &[("mail", "work")]);
    daemon.start();
    daemon.wait_until("the queue is taken", Duration::from_secs(120), |_| vhost.ready("work") == Some(0));
    daemon.wait_until("everything is settled", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("mail", "done") + daemon.counter("mail", "duplicates") >= MESSAGES as u64
    });

    let runs = journal.runs();
    assert!(runs.keys().eq(&originals), "the journal holds every key and no other");
    let again: Vec<_> = runs.iter().filter(|(_, runs)| runs.len() != 1).collect();
    assert!(again.is_empty(), "ran more than once: {again:?}");
    let status = daemon.status().expect("the daemon runs");
    let counted = |name: &str| status["jobs"]["mail"][name].as_u64();
    assert_eq!(counted("received"), Some(MESSAGES as u64), "{status:#}");
    assert_eq!(counted("done"), Some(runs.len() as u64), "{status:#}");
    assert_eq!(counted("duplicates"), Some(REPEATS as u64), "{status:#}");
    let others = ["retried", "dead", "requeued", "crashed"].map(counted);
    assert_eq!(others, [Some(0); 4], "{status:#}");
    assert_eq!(status["store"]["records"], runs.len(), "{status:#}");

    assert!(daemon.terminate().success());
    assert_eq!(vhost.ready("work"), Some(0), "every message is acknowledged");
    let tally = daemon.wire().finish();
    assert_eq!(tally.done, MESSAGES as u64, "acknowledged with their record: {tally}");
    eprintln!("{tally}");
}

/// The ids, sorted, and all messages in the order of their publishing. Some repeats come right behind the original, while
/// that is still running, some long after it.
fn ids_with_repeats() -> (Vec<String>, Vec<String>) {
    let mut published: Vec<String> = (0..MESSAGES - REPEATS).map(|_| random_uuid().to_string()).collect();
    let mut originals = published.clone();
    originals.sort_unstable();
    for repeat in 0..REPEATS {
        let original = fastrand::usize(..published.len());
        let distance = [1, 2, 10, 100, MESSAGES][repeat % 5];
        let id = published[original].clone();
        published.insert((original + distance).min(published.len()), id);
    }
    (originals, published)
}
