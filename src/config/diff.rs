//! What differs between two configurations, and what a running daemon has to do about it. Pure: nothing is read or started.
//!
//! What has to be done is decided by comparing the checked values themselves, so no setting can be forgotten; `facts` says
//! the same key by key for people, without a secret.

mod facts;

use std::collections::BTreeMap;

use super::mask::quote;
use super::{Alert, Config, Job};
use crate::report::Change;
use crate::task::JobName;
use facts::Facts;

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is new, or was disabled.
    Start,
    /// It drains, and starts with its new settings.
    Restart,
    /// It is gone, or disabled: it drains.
    End,
    /// It goes on as it is, and only the store keeps its keys for another time.
    Retain,
}

/// The way from one configuration to another.
#[derive(Debug, Default, PartialEq)]
pub struct Diff {
    /// Key by key.
    pub changes: Vec<Change>,
    /// The jobs that do not just go on.
    pub jobs: BTreeMap<JobName, Step>,
    /// Keys that differ and cannot change while the daemon runs.
    pub fixed: Vec<String>,
}

impl Diff {
    /// From the one that is in force to another.
    pub fn new(old: &Config, new: &Config) -> Self {
        let mut diff = Self::default();
        // All fields, so that one that is added is thought of here.
        let Config { broker, store, control, http, shutdown, log, jobs: _, alerts } = new;
        let fixed = "needs a restart of warrend";
        let before = Facts::fixed(&old.store, &old.control, &old.http, &old.log);
        let after = Facts::fixed(store, control, http, log);
        diff.add(&before, &after, fixed);
        diff.fixed = diff.changes.iter().map(|change| change.key.clone()).collect();
        let reconnects = !old.broker.is_reached_like(broker);
        let (before, after) = (Facts::broker(&old.broker), Facts::broker(broker));
        diff.add_all(&before, &after, "all jobs and the publisher connect anew", ("broker", reconnects));
        diff.add(&Facts::at_once(&old.store, &old.shutdown), &Facts::at_once(store, shutdown), "at once");
        diff.add_jobs(old, new, reconnects);
        diff.add_alerts(&old.alerts, alerts);
        diff
    }

    /// Whether there is nothing to do and nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add_jobs(&mut self, old: &Config, new: &Config, reconnects: bool) {
        let by_name = |config: &'_ Config| config.jobs.iter().map(|job| (job.name.clone(), job.clone())).collect();
        let (before, after): (BTreeMap<JobName, Job>, BTreeMap<JobName, Job>) = (by_name(old), by_name(new));
        let mut names: Vec<&JobName> = before.keys().chain(after.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            match (before.get(name), after.get(name)) {
                (None, None) => {}
                (None, Some(job)) => self.add_whole(job, "added", Step::Start),
                (Some(job), None) => self.add_whole(job, "removed", Step::End),
                (Some(before), Some(after)) => self.add_job(before, after, reconnects),
            }
        }
    }

    /// One that changed begins anew; what changed is not shown, since it may be where its webhook leads.
    fn add_alerts(&mut self, old: &[Alert], new: &[Alert]) {
        let find = |alerts: &'_ [Alert], name: &str| alerts.iter().find(|alert| *alert.name == *name).cloned();
        let mut tell = |name: &str, hidden, effect: &str| {
            let key = format!("alerts.{}", quote(name));
            self.changes.push(Change { key, old: None, new: None, hidden, effect: effect.to_owned() });
        };
        for alert in old {
            match find(new, &alert.name) {
                None => tell(&alert.name, false, "removed: at once"),
                Some(after) if after != *alert => tell(&alert.name, true, "at once"),
                Some(_) => {}
            }
        }
        for alert in new.iter().filter(|alert| find(old, &alert.name).is_none()) {
            tell(&alert.name, false, "added: at once");
        }
    }

    fn add_whole(&mut self, job: &Job, what: &str, step: Step) {
        let effect = if job.enabled { format!("{what}: {}", step.effect()) } else { format!("{what}, disabled") };
        let key = format!("jobs.{}", job.name);
        self.changes.push(Change { key, old: None, new: None, hidden: false, effect });
        if job.enabled {
            self.jobs.insert(job.name.clone(), step);
        }
    }

    fn add_job(&mut self, before: &Job, after: &Job, reconnects: bool) {
        let changed = before != after;
        let step = match (before.enabled, after.enabled) {
            (false, false) => None,
            (false, true) => Some(Step::Start),
            (true, false) => Some(Step::End),
            (true, true) if reconnects || !same_work(before, after) => Some(Step::Restart),
            (true, true) => changed.then_some(Step::Retain),
        };
        if let Some(step) = step {
            self.jobs.insert(after.name.clone(), step);
        }
        let effect = step.map_or("the job is disabled", Step::effect);
        let key = format!("jobs.{}", after.name);
        self.add_all(&Facts::job(before, after), &Facts::job(after, before), effect, (&key, changed));
    }

    fn add(&mut self, before: &Facts, after: &Facts, effect: &str) {
        self.changes.extend(before.differences(after, effect));
    }

    /// The same where it is known whether anything differs: what has no key of its own is at least told.
    fn add_all(&mut self, before: &Facts, after: &Facts, effect: &str, (key, changed): (&str, bool)) {
        let told = self.changes.len();
        self.add(before, after, effect);
        if changed && self.changes.len() == told {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            self.changes.push(Change { key, old: None, new: None, hidden: true, effect });
        }
    }
}

impl Step {
    fn effect(self) -> &'static str {
        match self {
            Self::Start => "job starts",
            Self::Restart => "job restarts",
            Self::End => "job ends",
            Self::Retain => "at once",
        }
    }
}

/// Whether two jobs differ at most in how long the store keeps their keys, which the job itself never asks.
pub fn same_work(before: &Job, after: &Job) -> bool {
    let mut same = before.clone();
    same.idempotency.retention = after.idempotency.retention;
    same == *after
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn load(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warrend.toml");
        std::fs::write(&path, text).unwrap();
        crate::config::load(&path, &|_| None).unwrap_or_else(|report| panic!("{report}")).config
    }

    const BROKER: &str = "broker.urls = [\"amqp://u:secret@a\"]\n";
    const JOB: &str = "[jobs.j]\nqueue = \"q\"\nhandler.command = [\"/bin/a\", \"secret\"]\n";

    /// The lines of the way from one to the other, and what the jobs do.
    fn diff(old: &str, new: &str) -> (Vec<String>, Vec<(String, Step)>) {
        let found = Diff::new(&load(old), &load(new));
        let jobs = found.jobs.iter().map(|(name, step)| (name.to_string(), *step)).collect();
        let lines: Vec<String> = found.changes.iter().map(ToString::to_string).collect();
        assert!(lines.iter().all(|line| !line.contains("secret")), "{lines:?}");
        (lines, jobs)
    }

    /// A change of the job alone.
    fn check(old: &str, new: &str, line: &str, step: Step) {
        let whole = |settings: &str| format!("{BROKER}{JOB}{settings}");
        let (lines, jobs) = diff(&whole(old), &whole(new));
        assert_eq!((lines, jobs), (vec![line.to_owned()], vec![("j".to_owned(), step)]), "{old} -> {new}");
    }

    #[test]
    fn nothing_differs_from_itself() {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/warrend.toml")).unwrap();
        let config = load(&text);
        assert!(Diff::new(&config, &config).is_empty());
        assert!(Diff::new(&load(&format!("{BROKER}{JOB}")), &load(&format!("# new\n{BROKER}\n\n{JOB}"))).is_empty());
    }

    #[test]
    fn a_change_of_a_job_is_told_by_key() {
        check("", "order = \"strict\"", "jobs.j.order: weighted -> strict (job restarts)", Step::Restart);
        check("", "handler.timeout = \"5m\"", "jobs.j.handler.timeout: 30s -> 5m (job restarts)", Step::Restart);
        check("", "kill_switch = {}", "jobs.j.kill_switch: not set -> on (job restarts)", Step::Restart);
        check("enabled = false", "", "jobs.j.enabled: false -> true (job starts)", Step::Start);
        check("", "enabled = false", "jobs.j.enabled: true -> false (job ends)", Step::End);
        check("", "max_body = \"1MiB\"", "jobs.j.max_body: 16MiB -> 1MiB (job restarts)", Step::Restart);
        check("", "ack.interval = \"0s\"", "jobs.j.ack.interval: 20ms -> 0s (job restarts)", Step::Restart);
        check(
            "",
            "idempotency.retention = \"60d\"",
            "jobs.j.idempotency.retention: 14d -> 60d (at once)",
            Step::Retain,
        );
        check(
            "handler.env = { A = \"secret 1\" }",
            "handler.env = { A = \"secret 2\" }",
            "jobs.j.handler.env.A: changed, not shown (job restarts)",
            Step::Restart,
        );
    }

    #[test]
    fn a_default_that_follows_is_told_too() {
        let (lines, jobs) = diff(&format!("{BROKER}{JOB}"), &format!("{BROKER}{JOB}concurrency = 8\n"));
        assert_eq!(lines, ["jobs.j.concurrency: 4 -> 8 (job restarts)", "jobs.j.prefetch: 8 -> 16 (job restarts)"]);
        assert_eq!(jobs, [("j".to_owned(), Step::Restart)]);
    }

    #[test]
    fn a_program_is_named_and_its_arguments_are_not() {
        let with = |argv: &str| format!("{BROKER}[jobs.j]\nqueue = \"q\"\nhandler.command = {argv}\n");
        let check = |old: &str, new: &str, expect: &str| {
            assert_eq!(diff(&with(old), &with(new)).0, [format!("jobs.j.handler.command: {expect} (job restarts)")]);
        };
        check("[\"/a\", \"secret\"]", "[\"/b\"]", "\"/a\" and 1 argument -> \"/b\"");
        check("[\"/a\", \"secret\"]", "[\"/a\", \"secret2\"]", "changed, not shown");
    }

    #[test]
    fn queues_are_compared_by_their_names() {
        let with = |queues: &str| format!("{BROKER}[jobs.j]\nqueues = [{queues}]\nhandler.discard = true\n");
        let a = "{ name = \"a\", weight = 2 }";
        let (lines, _) = diff(&with(a), &with(&format!("{a}, {{ name = \"b\", weight = 7 }}")));
        assert_eq!(lines, ["jobs.j.queues: \"a\" -> \"a\", \"b\" (job restarts)"]);
        let (lines, _) = diff(&with(a), &with("{ name = \"a\", weight = 3, max_length = 5 }"));
        assert_eq!(
            lines,
            [
                "jobs.j.queues.a.max_length: not set -> 5 (job restarts)",
                "jobs.j.queues.a.weight: 2 -> 3 (job restarts)"
            ]
        );
        let bound = "{ name = \"a\", weight = 2, bindings = [{ exchange = \"e\", type = \"topic\" }] }";
        assert_eq!(diff(&with(a), &with(bound)).0.len(), 1);
    }

    #[test]
    fn jobs_come_and_go() {
        let other = "[jobs.other]\nqueue = \"o\"\nhandler.discard = true\n";
        let (one, two) = (format!("{BROKER}{JOB}"), format!("{BROKER}{JOB}{other}"));
        let job = |step| vec![("other".to_owned(), step)];
        assert_eq!(diff(&one, &two), (vec!["jobs.other (added: job starts)".to_owned()], job(Step::Start)));
        assert_eq!(diff(&two, &one), (vec!["jobs.other (removed: job ends)".to_owned()], job(Step::End)));
        let off = format!("{two}enabled = false\n");
        assert_eq!(diff(&one, &off), (vec!["jobs.other (added, disabled)".to_owned()], Vec::new()));
        let still_off = format!("{off}concurrency = 2\n");
        let told = vec!["jobs.other.concurrency: 4 -> 2 (the job is disabled)".to_owned()];
        assert_eq!(diff(&off, &still_off), (told, Vec::new()));
    }

    #[test]
    fn alerts_change_at_once() {
        let with = |alerts: &str| format!("{BROKER}{JOB}{alerts}");
        let paused = "[[alerts]]\nwhen = \"paused\"\n";
        let hook = "webhook = \"https://h/secret\"\n";
        let check = |old: &str, new: &str, expect: &[&str]| {
            assert_eq!(
                diff(&with(old), &with(new)),
                (expect.iter().map(|line| (*line).to_owned()).collect(), Vec::new())
            );
        };
        check("", paused, &["alerts.paused (added: at once)"]);
        check(paused, "", &["alerts.paused (removed: at once)"]);
        check(paused, &format!("{paused}{hook}"), &["alerts.paused: changed, not shown (at once)"]);
        check(paused, paused, &[]);
    }

    #[test]
    fn another_broker_is_everybody_s() {
        let restart = vec![("j".to_owned(), Step::Restart)];
        let with = |broker: &str| format!("{broker}\n{JOB}");
        let check = |new: &str, expect: &str| {
            let expect = vec![format!("broker.{expect} (all jobs and the publisher connect anew)")];
            assert_eq!(diff(&with(BROKER), &with(new)), (expect, restart.clone()));
        };
        check("broker.urls = [\"amqp://u:secret2@a\"]", "urls: changed, not shown");
        check(
            "broker.urls = [\"amqps://u:secret@b/v\"]",
            "urls: amqp://u@a:5672, vhost \"/\" -> amqps://u@b:5671, vhost \"v\"",
        );
        check(&format!("{BROKER}broker.heartbeat = \"30s\""), "heartbeat: 15s -> 30s");
        check(
            &format!("{BROKER}broker.tls.auth = \"plain\"\nbroker.delay_queues = \"classic\""),
            "delay_queues: quorum -> classic",
        );
    }

    #[test]
    fn what_the_daemon_stands_on_stays() {
        let with = |tables: &str| format!("{BROKER}{tables}\n{JOB}");
        let tables = "store.path = \"/x/warrend.db\"\nstore.synchronous = \"normal\"\ncontrol.socket = \"/x/sock\"\nhttp.listen = \"127.0.0.1:1\"";
        let found = Diff::new(&load(&with("")), &load(&with(tables)));
        assert_eq!(found.fixed, ["control.socket", "http.listen", "store.path", "store.synchronous"]);
        assert!(found.jobs.is_empty());
        let lines: Vec<_> = found.changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines[1], "http.listen: not set -> 127.0.0.1:1 (needs a restart of warrend)");
        assert_eq!(lines[3], "store.synchronous: full -> normal (needs a restart of warrend)");
        let (lines, jobs) = diff(&with(""), &with("store.retention = \"1d\"\nshutdown.timeout = \"1m\""));
        assert_eq!(
            lines,
            [
                "shutdown.timeout: 25s -> 1m (at once)",
                "store.retention: 14d -> 1d (at once)",
                "jobs.j.idempotency.retention: 14d -> 1d (at once)"
            ]
        );
        assert_eq!(jobs, [("j".to_owned(), Step::Retain)]);
    }
}
