//! Alerts, as a running daemon tells of them.

use serde::{Deserialize, Serialize};

use super::Finding;

/// One alert for one job, or for the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// As it is called.
    pub name: String,
    /// What sets it off.
    pub when: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The job; absent for a quantity of the daemon.
    pub job: Option<String>,
    /// `ok`, `pending` (it holds, not for long enough) or `firing`.
    pub state: String,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// What was measured last: a count, events a second, a ratio, seconds, bytes; 1 or 0 for what is so or not.
    pub value: Option<f64>,
    /// The same for people.
    pub shown: Option<String>,
    /// The last notification of it.
    pub notified: Option<Notified>,
}

impl Alert {
    /// As a problem that `status` tells; `None` where it does not fire, or is there for information.
    pub fn finding(&self) -> Option<Finding> {
        let Self { name, severity, job, shown, .. } = self;
        if self.state != "firing" || severity == "info" {
            return None;
        }
        let is = shown.as_ref().filter(|shown| *shown != "yes");
        let is = is.map_or_else(String::new, |shown| format!(": it is {shown}"));
        let what = format!("{severity} alert {name:?} fires{is}");
        Some(Finding { job: job.clone(), what, help: Some("warrend alerts".to_owned()) })
    }
}

/// How a notification went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// `fired`, `cleared`, `repeated` or `test`.
    pub event: String,
    /// `command` or `webhook`.
    pub through: String,
    /// Whether it was taken.
    pub taken: bool,
    /// What was answered, or why there was no answer.
    pub answer: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it was last tried, Unix milliseconds.
    pub at_ms: i64,
}

/// All alerts, and whether any are configured at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alerts {
    /// [`super::SCHEMA`]
    pub schema: u32,
    /// In the order of the configuration.
    pub alerts: Vec<Alert>,
}

/// How far a test of an alert is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tested {
    /// Its number: to ask again.
    pub test: u64,
    /// How many are told of it; 0 where the alert tells nobody.
    pub asked: usize,
    /// Those who answered.
    pub answers: Vec<Notified>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(severity: &str, state: &str, shown: Option<&str>) -> Alert {
        Alert {
            name: "full".to_owned(),
            when: "ready > 5".to_owned(),
            severity: severity.to_owned(),
            job: Some("work".to_owned()),
            state: state.to_owned(),
            since_ms: 0,
            value: None,
            shown: shown.map(str::to_owned),
            notified: None,
        }
    }

    #[test]
    fn what_fires_is_a_problem_unless_it_is_for_information() {
        let check = |alert: Alert, expect: Option<&str>| {
            assert_eq!(alert.finding().map(|found| found.sentence()).as_deref(), expect, "{alert:?}");
        };
        check(
            alert("warning", "firing", Some("8")),
            Some("job work: warning alert \"full\" fires: it is 8; try `warrend alerts`"),
        );
        check(
            alert("critical", "firing", Some("yes")),
            Some("job work: critical alert \"full\" fires; try `warrend alerts`"),
        );
        check(alert("critical", "firing", None), Some("job work: critical alert \"full\" fires; try `warrend alerts`"));
        check(alert("info", "firing", Some("8")), None);
        for severity in ["info", "warning", "critical"] {
            check(alert(severity, "pending", Some("8")), None);
            check(alert(severity, "ok", Some("1")), None);
        }
    }
}
