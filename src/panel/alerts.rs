//! How the alerts are asked.

use std::time::Instant;

use crossbeam_channel::Sender;

use super::{GLANCE, PATIENCE, Panel, ask, wait};
use crate::report::{self, Finding, Status};

const SILENT: &str = "the thread of the alerts does not answer";

/// What the thread `alerts` can be asked.
#[derive(Debug)]
pub enum AlertsRequest {
    /// How all of them are.
    Report(Sender<Vec<report::Alert>>),
    /// To tell of a test, by the alert's name; answered when that has begun.
    Test(String, Sender<Result<report::Tested, String>>),
    /// How far that is, by the test's number.
    Tested(u64, Sender<Result<report::Tested, String>>),
}

impl Panel {
    /// How all alerts are.
    pub fn alerts(&self) -> Result<Vec<report::Alert>, String> {
        self.ask_alerts(AlertsRequest::Report)
    }

    /// Has a test of an alert told of.
    pub fn test_alert(&self, name: String) -> Result<report::Tested, String> {
        self.ask_alerts(|reply| AlertsRequest::Test(name, reply))?
    }

    /// How far that is.
    pub fn tested_alert(&self, test: u64) -> Result<report::Tested, String> {
        self.ask_alerts(|reply| AlertsRequest::Tested(test, reply))?
    }

    fn ask_alerts<A>(&self, question: impl FnOnce(Sender<A>) -> AlertsRequest) -> Result<A, String> {
        let answer = ask(&self.alerts, question);
        // They may be waiting for `main` and then for threads that do not answer.
        wait(&answer, Instant::now() + 2 * PATIENCE + GLANCE).ok_or_else(|| SILENT.to_owned())
    }
}

/// Adds what they answered to a status; those that fire are problems, unless they are there for information.
pub fn add(status: &mut Status, alerts: Option<Vec<report::Alert>>) {
    let mut findings: Vec<_> = alerts.iter().flatten().filter_map(report::Alert::finding).collect();
    if alerts.is_none() {
        findings.push(Finding::of_daemon(SILENT));
    }
    status.alerts = alerts;
    status.problems.extend(findings.iter().map(Finding::sentence));
    status.findings.extend(findings);
    status.healthy = status.problems.is_empty();
}
