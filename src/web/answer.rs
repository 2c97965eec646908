//! What is answered to which path.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::Sender;

use super::Hanging;
use super::request::{Refusal, Request};
use crate::metrics;
use crate::panel::Look;
use crate::report::Status;

/// How long the panel may take: a little more than its own patience with the threads, twice, for a look may be under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// What there is.
const PATHS: &str = "/metrics\n/healthz\n/readyz\n/status\n";

/// Where the look goes that a client waits for; with room for one.
pub type Waiting = Sender<Arc<Look>>;

/// Answers questions; each client has its own.
#[derive(Clone)]
pub struct Desk {
    /// To whoever has the panel.
    pub questions: Sender<Waiting>,
    /// Which thread hangs.
    pub hanging: Hanging,
}

/// An answer of HTTP.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    /// Text for people.
    pub fn plain(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// To what is no good request.
    pub fn refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Garbage => Self::plain(400, "this is no HTTP/1.1\n"),
            Refusal::Version => Self::plain(505, "only HTTP/1.0 and HTTP/1.1 are spoken here\n"),
            Refusal::TooLarge => Self::plain(431, "the head of the request is too large\n"),
            Refusal::TooSlow => Self::plain(408, "the request did not come in time\n"),
        }
    }

    /// As it is sent; without the body to a HEAD.
    pub fn to_bytes(&self, with_body: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {status} {}\r\nDate: {}\r\n{allow}Content-Type: {content_type}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            reason(*status),
            httpdate::fmt_http_date(SystemTime::now()),
            body.len(),
        );
        if with_body {
            text.push_str(body);
        }
        text.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    }
}

impl Desk {
    /// What a request gets.
    pub fn answer(&self, request: &Request) -> Answer {
        let is_read = ["GET", "HEAD"].contains(&&*request.method);
        match &*request.path {
            "/metrics" | "/healthz" | "/readyz" | "/status" if !is_read => {
                Answer::plain(405, "this is only read: GET or HEAD\n")
            }
            "/healthz" => self.health(),
            "/readyz" => self.with_look(|look| ready(&look.status)),
            "/metrics" => self.with_look(|look| Answer {
                status: 200,
                content_type: request.form.content_type(),
                body: metrics::page(look, request.form),
            }),
            "/status" => self.with_look(status),
            _ => Answer::plain(404, format!("there is nothing here; there is:\n{PATHS}")),
        }
    }

    /// Asks no thread: a job that waits for its broker is no reason to restart the daemon.
    fn health(&self) -> Answer {
        match (self.hanging)() {
            None => Answer::plain(200, "ok\n"),
            Some(thread) => Answer::plain(503, format!("the thread {thread} hangs\n")),
        }
    }

    fn with_look(&self, answer: impl FnOnce(&Look) -> Answer) -> Answer {
        let (reply, look) = crossbeam_channel::bounded(1);
        let asked = self.questions.try_send(reply).is_ok();
        match look.recv_timeout(PATIENCE) {
            Ok(look) if asked => answer(&look),
            Ok(_) | Err(_) => Answer::plain(503, "the daemon does not answer now: it stops, or it is overloaded\n"),
        }
    }
}

/// Ready is a daemon of which every job consumes. One that drains is not, nor one with a job that is paused, for whatever reason.
fn ready(status: &Status) -> Answer {
    let mut reasons = String::new();
    if status.state != "running" {
        reasons.push_str("the daemon is stopping\n");
    }
    for (name, job) in status.jobs.iter().filter(|(_, job)| !job.is_consuming()) {
        let missing = job.queues.iter().find(|(_, queue)| !queue.consumed).map(|(queue, _)| queue);
        // Not why: that may quote a handler.
        let said = match missing {
            Some(queue) if job.state == "running" => writeln!(reasons, "job {name} does not consume queue {queue:?}"),
            Some(_) | None => writeln!(reasons, "job {name} is {}", job.state),
        };
        said.expect("a String takes all that is written to it");
    }
    if reasons.is_empty() { Answer::plain(200, "ready\n") } else { Answer::plain(503, reasons) }
}

/// The JSON of `status --json`, without what handlers said of their failures: that may quote a message, and here anybody reads.
fn status(look: &Look) -> Answer {
    let mut status = look.status.clone();
    for (name, job) in &mut status.jobs {
        job.last_error = None;
        let Some(quoted) = look.jobs.get(name).and_then(|figures| figures.quoted.as_ref()) else { continue };
        let findings = status.findings.iter_mut().map(|finding| &mut finding.what);
        let said = job.reason.iter_mut().chain(&mut status.problems).chain(findings);
        said.for_each(|text| *text = text.replace(quoted, "see `warrend status`"));
    }
    match serde_json::to_string(&status) {
        Ok(body) => Answer { status: 200, content_type: "application/json", body: format!("{body}\n") },
        Err(error) => Answer::plain(503, format!("the status cannot be written: {error}\n")),
    }
}
