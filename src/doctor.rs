//! `warrend check --online`: looks at the broker, the store and the unit, and says what does not fit the configuration.
//!
//! `look` asks, the other modules judge what was seen, a file for each subject; what they say is data (`finding`). Nothing is
//! changed anywhere: queues are declared passively, rights are probed with requests that the broker cannot carry out, the
//! management API is only read, and the store is not opened.

mod access;
mod broker;
mod finding;
mod look;
mod permissions;
mod queues;
mod seen;
mod store;
mod unit;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::broker::BrokerError;
use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::report;
use crate::task::UnixMillis;
use access::Runner;
pub use finding::{Area, Finding, Level, Mend};
use queues::Scene;

/// What came of an examination.
pub struct Diagnosis {
    /// In the order of their areas.
    pub findings: Vec<Finding>,
    /// Whether any of the hosts let us in.
    pub reached: bool,
}

/// Examines everything that a daemon with this configuration would use. `path`: the main file.
pub fn examine(config: &Config, path: &Path) -> Diagnosis {
    let root = Path::new("/");
    let unit = unit::Unit::find(root, path);
    let readable = with_readable_password(config, unit.as_ref());
    let seen = look::look(&readable);
    let reached = seen.hosts.iter().any(|host| host.answer.is_ok());
    let server = seen.hosts.iter().find_map(|host| host.answer.as_ref().ok()).map(|greeting| greeting.server.as_str());
    let now = u64::try_from(UnixMillis::now().0 / 1000).unwrap_or(0);
    let mut findings = broker::judge_hosts(&config.broker, &seen.hosts, now);
    let own_certificate = config.broker.tls.identity.as_ref().map(|files| files.cert_file.as_path());
    findings.extend(broker::judge_own_certificate(own_certificate, now));
    findings.extend(broker::judge_office(&config.broker, &seen.office));
    findings.extend(seen.inside.cut_short.as_ref().map(cut_short));
    if reached {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let scene = Scene {
            config,
            inside: &seen.inside,
            version: server.and_then(version::number),
            machine: &machine,
            own: own_consumers(config),
        };
        findings.extend(queues::judge(&scene));
        findings.extend(permissions::judge(config, &seen.inside, &seen.office));
    }
    let daemon = unit.as_ref().and_then(|unit| Runner::of(root, unit));
    findings.extend(store::judge(&store::look(&config.store, daemon)));
    findings.extend(unit::judge(config, unit.as_ref(), path));
    findings.sort_by_key(|finding| finding.area);
    Diagnosis { findings, reached }
}

fn cut_short(error: &BrokerError) -> Finding {
    Finding::new(Area::Broker, Level::Error, "cut-short", format!("not everything was seen: {error}"))
        .or("run the check again")
}

/// Where `password_file` is a credential of a service that does not run, the file that systemd takes it from.
fn with_readable_password(config: &Config, unit: Option<&unit::Unit>) -> Config {
    let mut config = config.clone();
    let missing = config.broker.password_file.as_ref().is_some_and(|path| !path.exists());
    if missing && let Some(source) = unit.and_then(|unit| unit::credential_source(&config, unit)) {
        config.broker.password_file = Some(source);
    }
    config
}

/// The queues that the daemon which answers on our socket consumes now, as it says itself: with one consumer each. `None` where
/// none answers.
fn own_consumers(config: &Config) -> Option<BTreeSet<String>> {
    match control::ask(&config.control.socket, &Request::Status) {
        Ok(Answer::Status(status)) => Some(consumed(config, &status.jobs)),
        Ok(_) | Err(_) => None,
    }
}

/// A job that did not answer in time does not say what it consumes: it is taken to be well.
fn consumed(config: &Config, jobs: &BTreeMap<String, report::Job>) -> BTreeSet<String> {
    let mut queues = BTreeSet::new();
    for (name, job) in jobs {
        if job.state == "silent" {
            let known = config.jobs.iter().filter(|known| *known.name == **name);
            queues.extend(known.flat_map(|job| &job.queues).map(|queue| queue.name.to_string()));
        }
        queues.extend(job.queues.iter().filter(|(_, queue)| queue.consumed).map(|(name, _)| name.clone()));
    }
    queues
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A configuration of this text, without a broker that anybody could reach.
    pub fn config(text: &str) -> Config {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("w.toml");
        std::fs::write(&path, format!("broker.urls = [\"amqp://u:p@127.0.0.1\"]\n{text}")).expect("it can be written");
        crate::config::load(&path, &|_| None).unwrap_or_else(|report| panic!("{report}")).config
    }

    #[test]
    fn what_the_daemon_does_not_consume_is_not_its_own() {
        let config = config(
            "[jobs.a]\nqueue = \"a\"\nhandler.discard = true\n[jobs.b]\nqueue = \"b\"\nhandler.discard = true\n",
        );
        let check = |state: &str, queues: &[(&str, bool)], expect: &[&str]| {
            let queue = |consumed| report::Queue { consumed, ..report::Queue::default() };
            let queues = queues.iter().map(|(name, consumed)| ((*name).to_owned(), queue(*consumed))).collect();
            let job = report::Job { state: state.to_owned(), queues, ..report::Job::default() };
            let expect: BTreeSet<String> = expect.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(consumed(&config, &BTreeMap::from([("a".to_owned(), job)])), expect, "{state}");
        };
        check("running", &[("a", true), ("late", false)], &["a"]);
        check("paused", &[("a", false)], &[]);
        check("draining", &[("a", false)], &[]);
        check("silent", &[], &["a"]);
        assert_eq!(consumed(&config, &BTreeMap::new()), BTreeSet::new());
    }
}
