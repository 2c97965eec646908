//! The way to the broker, and the broker as a whole.

use std::path::Path;

use super::finding::{Area, Finding, Level};
use super::seen::{HostSeen, Office, Overview};
use super::version;
use crate::config::{self, Login, is_this_machine};
use crate::management::Unseen;
use crate::tls::{self, Validity};

/// A certificate that ends within this time is told: what `warrend check` says of our own.
const SOON: u64 = 30 * 86_400;
/// Seconds that two clocks may differ: the broker tells its own to the second, and the answer takes its time.
const SKEW: i64 = 5;

fn finding(level: Level, code: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(Area::Broker, level, code, text)
}

/// Judges the hosts that were tried. `now`: seconds since 1970.
pub fn judge_hosts(config: &config::Broker, hosts: &[HostSeen], now: u64) -> Vec<Finding> {
    let reached = hosts.iter().any(|seen| seen.answer.is_ok());
    let mut findings = Vec::new();
    let mut servers: Vec<&str> = Vec::new();
    for seen in hosts {
        let host = &seen.host;
        let greeting = match &seen.answer {
            Err(error) => {
                let level = if reached { Level::Warning } else { Level::Error };
                let told = finding(level, "connection", error.to_string());
                let why = "Another host let us in; this one would be missed when that one is down.";
                findings.push(if reached { told.why(why) } else { told });
                continue;
            }
            Ok(greeting) => greeting,
        };
        let user = match config.tls.login {
            Login::Password => format!("user {:?}", host.user),
            Login::Certificate => "the user of our certificate".to_owned(),
        };
        let secured = greeting.tls.unwrap_or("not encrypted");
        let text = format!("logged in at {host}, virtual host {:?}, {user}, {secured}", host.vhost);
        findings.push(finding(Level::Ok, "connection", text));
        findings.extend(judge_safety(config, host));
        findings.extend(greeting.certificate.map(|valid| judge_certificate(valid, host, now)));
        if !servers.contains(&&*greeting.server) {
            servers.push(&greeting.server);
        }
    }
    let day = tls::date(now);
    let day = day.get(..10).unwrap_or_default();
    findings.extend(servers.into_iter().flat_map(|server| version::judge(server, config.delay_queues, day)));
    findings
}

/// What a connection that works does wrong all the same.
fn judge_safety(config: &config::Broker, host: &config::BrokerHost) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_this_machine(&host.host) {
        return findings;
    }
    if !host.tls {
        let text = format!("the connection to {host} crosses a network unencrypted");
        let told = finding(Level::Warning, "plaintext", text)
            .why("Who is on the way reads the password and every message.")
            .or("in [broker]: amqps:// in urls; docs/TLS.md says how");
        findings.push(told);
    }
    if config.tls.login == Login::Password && host.user == "guest" {
        let text = format!("the user guest may log in to {host} from another machine");
        let told = finding(Level::Warning, "guest", text)
            .why("Its password is known to everybody, and it may do everything. RabbitMQ keeps it to its own machine unless loopback_users says otherwise.")
            .run(&["rabbitmqctl", "delete_user", "guest"])
            .or("remove loopback_users from rabbitmq.conf; give warrend a user of its own");
        findings.push(told);
    }
    findings
}

fn judge_certificate(valid: Validity, host: &config::BrokerHost, now: u64) -> Finding {
    match valid.until {
        None => finding(Level::Ok, "broker-certificate", format!("the certificate of {host} does not end")),
        Some(until) if until < now + SOON => finding(
            Level::Warning,
            "broker-certificate",
            format!("the certificate of {host} ends at {}", tls::date(until)),
        )
        .why("No new connection comes about after that.")
        .or("renew it on the broker's machine, then there: rabbitmqctl eval 'ssl:clear_pem_cache().'"),
        Some(until) => finding(
            Level::Ok,
            "broker-certificate",
            format!("the certificate of {host} is valid until {}", tls::date(until)),
        ),
    }
}

/// Judges the certificate that we show, where there is one that can be read; what is wrong with the file is told by
/// `warrend check` without a broker too.
pub fn judge_own_certificate(cert_file: Option<&Path>, now: u64) -> Option<Finding> {
    let path = cert_file?;
    let chain = tls::certificates(path).ok()?;
    let until = chain.iter().filter_map(tls::validity).filter_map(|valid| valid.until).min()?;
    let text = format!("our certificate {} is valid until {}", path.display(), tls::date(until));
    Some(if until < now + SOON {
        finding(Level::Warning, "own-certificate", text)
            .why("The broker refuses it after that. A running daemon takes a new file at its next connect.")
            .or("renew it")
    } else {
        finding(Level::Ok, "own-certificate", text)
    })
}

/// What was not seen without the management API.
const UNSEEN: &str = "Without it these are not seen: arguments of queues that stand, policies, whose the other consumers are, alarms, the broker's clock, tags of the user.";

/// Judges the management API, and what it told of the broker.
pub fn judge_office(config: &config::Broker, office: &Office) -> Vec<Finding> {
    let url = config.management.as_ref().map_or("", |at| at.url.as_str());
    let user_of_amqp = config.hosts.first().map_or("", |host| host.user.as_str());
    match office {
        Office::Unknown => vec![
            finding(Level::Note, "management", "no management API is configured")
                .why(UNSEEN)
                .or("in [broker]: management_url = \"http://127.0.0.1:15672\"; the broker needs its plugin for it (rabbitmq-plugins enable rabbitmq_management)"),
        ],
        Office::Closed { user, why: Unseen::Forbidden(why) } => {
            let text = format!("the user {user:?} may not use the management API: {why}");
            let told = finding(Level::Warning, "management", text).why(UNSEEN);
            let own = "in [broker]: management_url = \"http://USER:PASSWORD@HOST:15672\", a user with the tag monitoring";
            // The daemon's own user is better off without a tag.
            let told = told.or(own);
            vec![if user == user_of_amqp { told.run(&["rabbitmqctl", "set_user_tags", user, "management"]) } else { told }]
        }
        Office::Closed { why: Unseen::Failed(why), .. } => vec![
            finding(Level::Warning, "management", why.clone())
                .why(UNSEEN)
                .run(&["rabbitmq-plugins", "enable", "rabbitmq_management"])
                .or("check broker.management_url"),
        ],
        Office::Closed { why: Unseen::Missing, .. } => vec![
            finding(Level::Warning, "management", format!("{url} is no management API"))
                .why(UNSEEN)
                .or("check broker.management_url"),
        ],
        Office::Open(overview) => {
            let mut findings = vec![finding(Level::Ok, "management", format!("the management API answers at {url}"))];
            findings.extend(judge_clock(overview.ahead));
            let own = config.management.as_ref().and_then(|at| at.login.as_ref());
            findings.extend(judge_nodes(overview, own.map_or(user_of_amqp, |(user, _)| user)));
            findings
        }
    }
}

fn judge_clock(ahead: Option<i64>) -> Option<Finding> {
    let ahead = ahead?;
    if ahead.abs() <= SKEW {
        return Some(finding(Level::Ok, "clock", "the broker's clock and ours agree"));
    }
    let (seconds, which) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
    Some(
        finding(Level::Warning, "clock", format!("the broker's clock is {seconds} s {which} ours"))
            .why("The times in logs, dead letters and `warrend explain` do not fit together, and certificates may seem expired.")
            .run(&["timedatectl", "set-ntp", "true"]),
    )
}

/// `user`: who asked.
fn judge_nodes(overview: &Overview, user: &str) -> Vec<Finding> {
    let nodes = match &overview.nodes {
        Ok(nodes) => nodes.as_array().cloned().unwrap_or_default(),
        Err(Unseen::Forbidden(_)) => {
            let text = "alarms and partitions are seen with the tag monitoring only";
            return vec![finding(Level::Note, "nodes", text).run(&[
                "rabbitmqctl",
                "set_user_tags",
                user,
                "monitoring",
            ])];
        }
        Err(Unseen::Missing | Unseen::Failed(_)) => {
            return vec![finding(Level::Note, "nodes", "the nodes of the broker could not be seen")];
        }
    };
    let mut findings = Vec::new();
    for node in &nodes {
        let name = node["name"].as_str().unwrap_or("?");
        if node["running"] == false {
            let told = finding(Level::Error, "node-down", format!("the node {name} is down"));
            findings.push(told.why("Classic queues that live on it are gone as long as it is.").run(&[
                "rabbitmqctl",
                "-n",
                name,
                "start_app",
            ]));
        }
        for (alarm, what, mend) in [
            ("mem_alarm", "memory", ["rabbitmq-diagnostics", "-n", name, "memory_breakdown"]),
            ("disk_free_alarm", "disk", ["rabbitmq-diagnostics", "-n", name, "status"]),
        ] {
            if node[alarm] == true {
                let text = format!("the node {name} is short of {what}");
                let told = finding(Level::Error, "alarm", text);
                findings.push(told.why("It takes nothing from publishers: retries and dead letters wait.").run(&mend));
            }
        }
        let cut_off = node["partitions"].as_array().filter(|cut_off| !cut_off.is_empty());
        if let Some(cut_off) = cut_off {
            let text = format!("the node {name} is cut off from {} others", cut_off.len());
            let told = finding(Level::Error, "partition", text);
            findings.push(
                told.why("The parts of the cluster know different messages.").run(&["rabbitmqctl", "cluster_status"]),
            );
        }
    }
    if findings.is_empty() {
        let nodes = nodes.len();
        let plural = if nodes == 1 { "node runs" } else { "nodes run" };
        findings.push(finding(Level::Ok, "nodes", format!("{nodes} {plural}, without alarms")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overview(nodes: serde_json::Value) -> Overview {
        Overview { ahead: None, nodes: Ok(nodes), tags: None }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let level = |ahead| judge_clock(Some(ahead)).map(|found| (found.level, found.text));
        assert_eq!(level(-5), Some((Level::Ok, "the broker's clock and ours agree".to_owned())));
        assert_eq!(level(6), Some((Level::Warning, "the broker's clock is 6 s ahead of ours".to_owned())));
        assert_eq!(level(-90), Some((Level::Warning, "the broker's clock is 90 s behind ours".to_owned())));
        assert_eq!(judge_clock(None), None);
    }

    #[test]
    fn each_trouble_of_a_node_is_told() {
        let codes = |nodes| judge_nodes(&overview(nodes), "u").iter().map(|found| found.code).collect::<Vec<_>>();
        let well =
            json!({"name": "a", "running": true, "mem_alarm": false, "disk_free_alarm": false, "partitions": []});
        assert_eq!(codes(json!([well])), ["nodes"]);
        let ill =
            json!({"name": "b", "running": false, "mem_alarm": true, "disk_free_alarm": true, "partitions": ["a"]});
        assert_eq!(codes(json!([well, ill])), ["node-down", "alarm", "alarm", "partition"]);
    }

    fn host(host: &str, tls: bool, user: &str) -> config::BrokerHost {
        let [host, user, password, vhost] = [host, user, "p", "/"].map(str::to_owned);
        config::BrokerHost { host, port: 1, tls, user, password, vhost }
    }

    #[test]
    fn what_crosses_a_network_is_encrypted_and_not_a_guest() {
        let check = |host: &config::BrokerHost, login: Login, expect: &[&str]| {
            let mut broker = crate::doctor::tests::config("[jobs.a]\nqueue = \"a\"\nhandler.discard = true\n").broker;
            broker.tls.login = login;
            let found = judge_safety(&broker, host);
            assert!(found.iter().all(|found| found.level == Level::Warning && !found.mends.is_empty()), "{found:?}");
            assert_eq!(found.iter().map(|found| found.code).collect::<Vec<_>>(), expect, "{host:?}");
        };
        check(&host("mq.example.org", true, "u"), Login::Password, &[]);
        check(&host("mq.example.org", false, "u"), Login::Password, &["plaintext"]);
        check(&host("10.0.0.7", false, "guest"), Login::Password, &["plaintext", "guest"]);
        check(&host("mq.example.org", true, "guest"), Login::Password, &["guest"]);
        // The certificate says who it is.
        check(&host("mq.example.org", true, "guest"), Login::Certificate, &[]);
        // Nothing crosses a network here.
        for here in ["127.0.0.1", "::1", "localhost"] {
            check(&host(here, false, "guest"), Login::Password, &[]);
        }
    }

    #[test]
    fn a_certificate_is_told_before_it_ends() {
        let host = host("h", true, "u");
        let level = |until| judge_certificate(Validity { from: 0, until }, &host, 1000).level;
        assert_eq!(level(None), Level::Ok);
        assert_eq!(level(Some(1000 + SOON)), Level::Ok);
        assert_eq!(level(Some(1000 + SOON - 1)), Level::Warning);
    }
}
