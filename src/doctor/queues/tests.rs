//! What was seen of the broker is made up here; what is made of it is not.

use super::*;
use crate::broker::Counts;
use crate::doctor::tests::config;

const JOB: &str = "[jobs.work]\nqueue = \"work\"\nhandler.command = [\"true\"]\n";

/// A queue that is there, and that the management API was not asked about.
fn counted(ready: u32, consumers: u32) -> QueueSeen {
    QueueSeen { counts: Ok(Some(Counts { ready, consumers })), details: None }
}

/// What is said of these queues, on the machine `here`, beside a daemon that consumes `own`.
fn judged(jobs: &str, queues: Vec<(&str, QueueSeen)>, own: Option<&[&str]>) -> Vec<Finding> {
    let config = config(jobs);
    let queues = queues.into_iter().map(|(name, seen)| (name.to_owned(), seen)).collect();
    let inside = Inside { queues, ..Inside::default() };
    let own = own.map(|own| own.iter().map(|name| (*name).to_owned()).collect());
    judge(&Scene { config: &config, inside: &inside, version: Some((3, 13)), machine: "here", own })
}

/// Level and text of the findings of a kind.
fn of(findings: &[Finding], code: &str) -> Vec<(Level, String)> {
    findings.iter().filter(|found| found.code == code).map(|found| (found.level, found.text.clone())).collect()
}

#[test]
fn consumers_beyond_our_own_are_told_by_number() {
    let check = |consumers: u32, own: Option<&[&str]>, expect: Option<&str>| {
        let expect = expect.map(|text| (Level::Note, format!("queue \"work\" has {text}")));
        let found = of(&judged(JOB, vec![("work", counted(0, consumers))], own), "other-consumers");
        assert_eq!(found, expect.into_iter().collect::<Vec<_>>(), "{consumers} {own:?}");
    };
    check(0, None, None);
    check(1, None, Some("1 consumer though no daemon answers here"));
    check(1, Some(&["work"]), None);
    check(3, Some(&["work"]), Some("2 consumers beside the daemon here"));
    // Ours is paused, so this one is somebody else's.
    check(1, Some(&[]), Some("1 consumer though the daemon here does not consume it now"));
    check(0, Some(&[]), None);
}
