//! `warrend alerts`: how each alert is, and a test of whoever is told.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::alerts;
use crate::cli::client::{ask, ask_if_running, misunderstood};
use crate::cli::figures::span;
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::logging::{clean, write_json};
use crate::report::{self, Alert, Notified, Tested};
use crate::task::UnixMillis;

/// Between two questions how far a test is.
const POLL: Duration = Duration::from_millis(100);
/// A test that comes after others waits for them; each takes a minute at most.
const PATIENCE: Duration = Duration::from_secs(180);

/// Shows all alerts, or tests one.
pub fn alerts(config: &Config, test: Option<&str>, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    match test {
        Some(name) => self::test(config, name, as_json, out),
        None => show(config, as_json, out),
    }
}

fn show(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let Answer::Alerts(alerts) = ask(&config.control.socket, &Request::Alerts)? else {
        return Err(misunderstood());
    };
    let printed = if as_json {
        write_json(out, &alerts)
    } else {
        out.write_all(render(&alerts.alerts, UnixMillis::now()).as_bytes())
    };
    printed.map_err(|error| Failure::print(&error))?;
    let fires = alerts.alerts.iter().any(|alert| alert.state == "firing");
    Ok(if fires { Exit::Failed } else { Exit::Done })
}

/// A line for each, those that fire first.
fn render(alerts: &[Alert], now: UnixMillis) -> String {
    if alerts.is_empty() {
        return "no alerts are configured, or none of their jobs runs; [[alerts]] in the configuration has them\n"
            .to_owned();
    }
    let head = ["ALERT", "JOB", "SEVERITY", "STATE", "FOR", "VALUE", "TOLD"].map(str::to_owned);
    let mut lines = vec![head];
    for state in ["firing", "pending", "ok"] {
        lines.extend(alerts.iter().filter(|alert| alert.state == state).map(|alert| cells(alert, now)));
    }
    let widths: [usize; 7] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
    let lost = alerts.iter().filter_map(|alert| Some((alert, alert.notified.as_ref().filter(|told| !told.taken)?)));
    for (alert, told) in lost {
        let Notified { through, event, tries, answer, .. } = told;
        let (name, answer) = (clean(&alert.name), clean(answer));
        let _ = writeln!(text, "\n{name}: the {through} was not told that it {event}, {tries} tries: {answer}");
    }
    text
}

fn cells(alert: &Alert, now: UnixMillis) -> [String; 7] {
    let ago = |at: i64| span(u64::try_from((now.0 - at) / 1000).unwrap_or(0));
    let told = alert.notified.as_ref().map(|told| {
        let Notified { event, through, taken, at_ms, .. } = told;
        let how = if *taken { through.as_str() } else { "nobody" };
        format!("{how}, {event}, {} ago", ago(*at_ms))
    });
    let dash = || "-".to_owned();
    [
        clean(&alert.name),
        alert.job.as_deref().map_or_else(dash, clean),
        alert.severity.clone(),
        alert.state.clone(),
        ago(alert.since_ms),
        alert.shown.as_deref().map_or_else(dash, clean),
        told.unwrap_or_else(dash),
    ]
}

fn test(config: &Config, name: &str, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let socket = &config.control.socket;
    let (from, tested) = match ask_if_running(socket, &Request::Test { alert: name.to_owned() })? {
        Some(Answer::Tested(begun)) => ("daemon", wait(config, begun)?),
        Some(_) => return Err(misunderstood()),
        None => ("here", alone(config, name)?),
    };
    let Tested { asked, answers, .. } = &tested;
    let printed = if as_json {
        write_json(
            out,
            &json!({ "schema": report::SCHEMA, "alert": name, "from": from, "asked": asked, "answers": answers }),
        )
    } else {
        print(name, from, &tested, out)
    };
    printed.map_err(|error| Failure::print(&error))?;
    let taken = answers.len() == *asked && answers.iter().all(|told| told.taken);
    Ok(if taken { Exit::Done } else { Exit::Failed })
}

fn print(name: &str, from: &str, tested: &Tested, out: &mut impl Write) -> io::Result<()> {
    if from == "here" {
        writeln!(out, "warrend is not running: told from here, as your user")?;
    }
    if tested.asked == 0 {
        let name = clean(name);
        return writeln!(
            out,
            "{name} has neither `command` nor `webhook`: it is in the log and in `warrend status` alone"
        );
    }
    for told in &tested.answers {
        let how = if told.taken { "took it" } else { "did not take it" };
        writeln!(out, "{} {how}: {}", told.through, clean(&told.answer))?;
    }
    if tested.answers.len() < tested.asked {
        writeln!(out, "the rest did not answer within {} s; the daemon's log says more", PATIENCE.as_secs())?;
    }
    Ok(())
}

/// Until all have answered.
fn wait(config: &Config, begun: Tested) -> Result<Tested, Failure> {
    let until = Instant::now() + PATIENCE;
    let mut tested = begun;
    // One that could not be told at all has one answer, whoever would have been told.
    while tested.answers.len() < tested.asked
        && tested.answers.iter().all(|told| told.tries > 0)
        && Instant::now() < until
    {
        std::thread::sleep(POLL);
        let Answer::Tested(now) = ask(&config.control.socket, &Request::Tested { test: tested.test })? else {
            return Err(misunderstood());
        };
        tested = now;
    }
    Ok(tested)
}

fn alone(config: &Config, name: &str) -> Result<Tested, Failure> {
    let Some(alert) = config.alerts.iter().find(|alert| *alert.name == *name) else {
        let why = alerts::unknown(name, config.alerts.iter().map(|alert| &*alert.name));
        return Err(Failure::new(Exit::Failed, why));
    };
    let answers = alerts::test_alone(alert)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot tell of a test: {error}")))?;
    Ok(Tested { test: 0, asked: answers.len(), answers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str, state: &str) -> Alert {
        Alert {
            name: name.to_owned(),
            when: name.to_owned(),
            severity: "warning".to_owned(),
            job: Some("mail".to_owned()),
            state: state.to_owned(),
            since_ms: 1_000_000,
            value: Some(1500.0),
            shown: Some("1500".to_owned()),
            notified: None,
        }
    }

    #[test]
    fn those_that_fire_come_first_and_what_was_not_told_is_told_here() {
        let lost = Notified {
            event: "fired".to_owned(),
            through: "webhook".to_owned(),
            taken: false,
            answer: "status 500: no\u{1b}[2J".to_owned(),
            tries: 4,
            at_ms: 1_030_000,
        };
        let unknown = Alert { job: None, value: None, shown: None, ..alert("disk_free < 1GiB", "ok") };
        let fires = Alert { notified: Some(lost), ..alert("ready > 1000", "firing") };
        let text = render(&[unknown, fires], UnixMillis(1_090_000));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ALERT "), "{text}");
        assert!(
            lines[1].starts_with(
                "ready > 1000      mail  warning   firing  1 min 30 s  1500   nobody, fired, 1 min 0 s ago"
            ),
            "{text}"
        );
        assert!(lines[2].starts_with("disk_free < 1GiB  -     warning   ok      1 min 30 s  -      -"), "{text}");
        assert!(
            lines[4].contains("the webhook was not told that it fired, 4 tries: status 500: no\\u{1b}[2J"),
            "{text}"
        );
    }

    #[test]
    fn without_alerts_it_says_so() {
        assert!(render(&[], UnixMillis(0)).contains("[[alerts]]"));
    }
}
