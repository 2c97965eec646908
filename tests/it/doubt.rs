//! `in_doubt = "dead"`: at most once, whatever dies.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::number_from;
use crate::support::scene::{DEAD, QUEUE, WORK_TIMEOUT};
use crate::support::wait_until;

/// Each run leaves its key in the journal before it does anything else.
fn daemon(vhost: &Vhost, in_doubt: &str, work: &str) -> Daemon {
    let mut daemon = Daemon::new(vhost, "");
    let journal = daemon.folder().join("journal");
    daemon.set_jobs(&format!(
        "[shutdown]\ntimeout = \"1s\"\n[jobs.work]\nqueue = \"work\"\nconcurrency = 4\nin_doubt = \"{in_doubt}\"\n\
         dead_letter.queue = \"{DEAD}\"\n[jobs.work.handler]\n\
         command = [\"sh\", \"-c\", 'echo \"$WARREND_KEY\" >>{}; {work}']\n",
        journal.display()
    ));
    daemon.tapped(vhost, &[("work", QUEUE)]);
    daemon
}

fn journal(daemon: &Daemon) -> Vec<String> {
    let text = std::fs::read_to_string(daemon.folder().join("journal")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn ids(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("money-{number}")).collect()
}

fn publish(vhost: &Vhost, ids: &BTreeSet<String>) {
    vhost.declare(QUEUE);
    vhost.publish_all(QUEUE, ids.iter().map(|id| (b"x".to_vec(), with_id(id))));
}

/// The ids in the dead-letter queue; every one is there as in doubt.
fn in_doubt(vhost: &Vhost) -> BTreeSet<String> {
    let letters = vhost.drain(DEAD);
    for letter in &letters {
        let class =
            letter.properties.headers().as_ref().and_then(|headers| headers.get("x-warrend-error-class").cloned());
        assert_eq!(class, Some(amiquip::AmqpValue::LongString("in-doubt".to_owned())));
    }
    letters.into_iter().map(|letter| letter.properties.message_id().clone().expect("ours have an id")).collect()
}

fn records(store: &Path) -> BTreeSet<String> {
    crate::support::records::Records::read(store).done
}

/// `WARREND_DOUBTS=50` is the long form.
#[test]
fn no_key_runs_twice_and_none_is_lost_however_often_the_daemon_is_killed() {
    let kills = number_from("WARREND_DOUBTS", 8);
    let vhost = Vhost::new();
    let mut daemon = daemon(&vhost, "dead", "sleep 0.01");
    let all = ids(100 * kills);
    publish(&vhost, &all);
    let mut most_doubts = 0;
    for _ in 0..kills {
        daemon.spawn(&[]);
        let goal = journal(&daemon).len() + fastrand::usize(1..60);
        daemon.wait_until("handlers run", WORK_TIMEOUT, |daemon| journal(daemon).len() >= goal);
        daemon.kill9();
        wait_until("handlers end with their daemon", DAEMON_TIMEOUT, || !daemon.has_processes());
        most_doubts += 4;
    }
    daemon.spawn(&["--until-empty"]);
    assert_eq!(daemon.wait_exit(WORK_TIMEOUT).code(), Some(0), "{}", daemon.log_tail());

    let runs = journal(&daemon);
    let ran: BTreeSet<_> = runs.iter().cloned().collect();
    assert_eq!(runs.len(), ran.len(), "a key ran twice");
    let (done, doubtful) = (records(daemon.store_path()), in_doubt(&vhost));
    assert!(done.is_disjoint(&doubtful), "done and in doubt");
    assert_eq!(done.union(&doubtful).cloned().collect::<BTreeSet<_>>(), all, "every key is done or in doubt");
    assert!(doubtful.len() <= most_doubts, "{} in doubt after {kills} kills of 4 handlers", doubtful.len());
    let lost = all.len() - done.union(&doubtful).count();
    let (again, doubtful) = (runs.len() - ran.len(), doubtful.len());
    eprintln!("{} messages, {kills} kills, {lost} lost, {again} ran again, {doubtful} in doubt", all.len());
}

#[test]
fn status_says_how_many_were_in_doubt_and_an_operator_may_choose_to_run_them() {
    let vhost = Vhost::new();
    let mut daemon = daemon(&vhost, "dead", "sleep 60");
    publish(&vhost, &ids(4));
    daemon.spawn(&[]);
    daemon.wait_until("four handlers run", DAEMON_TIMEOUT, |daemon| journal(daemon).len() == 4);
    daemon.kill9();
    let explained = daemon.run(&["explain", "money-1"]);
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(text.contains("money-1 in job work: in-doubt"), "{text}");

    daemon.spawn(&[]);
    daemon.wait_until("they are dead", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "dead") == 4);
    assert_eq!(daemon.counter("work", "in_doubt"), 4);
    assert_eq!(journal(&daemon).len(), 4, "none ran again");
    assert!(daemon.terminate().success());
    assert_eq!(in_doubt(&vhost), ids(4));
}

#[test]
fn a_stop_dead_letters_what_it_had_to_end_and_gives_back_the_rest() {
    let vhost = Vhost::new();
    let mut daemon = daemon(&vhost, "dead", "exec sleep 60");
    let all = ids(20);
    publish(&vhost, &all);
    daemon.spawn(&[]);
    daemon.wait_until("four handlers run", DAEMON_TIMEOUT, |daemon| journal(daemon).len() == 4);
    assert!(daemon.terminate().success(), "{}", daemon.log_tail());
    let ran: BTreeSet<_> = journal(&daemon).into_iter().collect();
    assert_eq!(in_doubt(&vhost), ran);
    assert_eq!(vhost.ready(QUEUE), Some(16));
    let back: BTreeSet<_> =
        vhost.drain(QUEUE).into_iter().filter_map(|message| message.properties.message_id().clone()).collect();
    assert_eq!(back.union(&ran).cloned().collect::<BTreeSet<_>>(), all);
}

/// Handed back because the handler was missing: nothing of it ran, so nothing of it is in doubt.
#[test]
fn what_did_not_run_is_not_in_doubt() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, "");
    let program = daemon.folder().join("program");
    daemon.set_jobs(&format!(
        "[jobs.work]\nqueue = \"work\"\nin_doubt = \"dead\"\n[jobs.work.handler]\ncommand = [\"{}\"]\n",
        program.display()
    ));
    publish(&vhost, &ids(10));
    daemon.spawn(&[]);
    daemon.wait_until("the job pauses", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["state"] == "paused")
    });
    wait_until("everything is handed back", Duration::from_secs(10), || vhost.ready(QUEUE) == Some(10));
    assert!(daemon.terminate().success(), "{}", daemon.log_tail());
    std::os::unix::fs::symlink("/bin/true", &program).expect("the folder can be written");
    daemon.spawn(&["--until-empty"]);
    assert_eq!(daemon.wait_exit(WORK_TIMEOUT).code(), Some(0), "{}", daemon.log_tail());
    assert_eq!(records(daemon.store_path()), ids(10));
}
