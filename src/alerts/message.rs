//! What whoever is told gets: JSON, and for a command the same in its environment.

use serde_json::json;

use crate::config::Alert;
use crate::policy::alerts::Notice;
use crate::policy::alerts::watch::Change;
use crate::task::UnixMillis;

/// One notification, the same for all who get it and each time that it is sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its own: a receiver that gets it twice can tell.
    pub id: String,
    /// `fired`, `cleared`, `repeated` or `test`.
    pub event: &'static str,
    /// One JSON object on one line.
    pub body: Vec<u8>,
    /// The environment of a command.
    pub variables: Vec<(&'static str, String)>,
}

impl Message {
    /// Of something that was found. `text`: all of it in one sentence.
    pub fn of(notice: &Notice, text: &str) -> Self {
        let alert = &*notice.alert;
        let event = match notice.change {
            Change::Fired => "fired",
            Change::Cleared => "cleared",
            Change::Repeated => "repeated",
        };
        let (value, shown) = (notice.reading.value(), notice.reading.shown(&alert.when));
        Self::new(alert, event, notice.job.as_deref(), notice.since, (value, shown), text)
    }

    /// Of a test.
    pub fn test(alert: &Alert) -> Self {
        let text = format!("alert {:?} is tested: nothing is wrong", alert.name);
        Self::new(alert, "test", None, UnixMillis::now(), (None, None), &text)
    }

    fn new(
        alert: &Alert,
        event: &'static str,
        job: Option<&str>,
        since: UnixMillis,
        (value, shown): (Option<f64>, Option<String>),
        text: &str,
    ) -> Self {
        let id = uuid::Uuid::now_v7().to_string();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let text = format!("warrend on {host}: {text}");
        let object = json!({
            "schema": 1,
            "id": id,
            "event": event,
            "alert": &*alert.name,
            "when": alert.when.text,
            "severity": alert.severity.as_str(),
            "job": job,
            "value": value,
            "shown": shown,
            "since_ms": since.0,
            "at_ms": UnixMillis::now().0,
            "host": host,
            "text": text,
        });
        let variables = vec![
            ("WARREND_ALERT_EVENT", event.to_owned()),
            ("WARREND_ALERT_NAME", alert.name.to_string()),
            ("WARREND_ALERT_WHEN", alert.when.text.clone()),
            ("WARREND_ALERT_SEVERITY", alert.severity.as_str().to_owned()),
            ("WARREND_ALERT_JOB", job.unwrap_or_default().to_owned()),
            ("WARREND_ALERT_VALUE", shown.unwrap_or_default()),
            ("WARREND_ALERT_SINCE", since.0.div_euclid(1000).to_string()),
            ("WARREND_ALERT_HOST", host),
            ("WARREND_ALERT_ID", id.clone()),
            ("WARREND_ALERT_TEXT", text),
        ];
        Self { id, event, body: format!("{object}\n").into_bytes(), variables }
    }
}
