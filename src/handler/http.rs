//! `http`: a POST to one URL for each task.
//!
//! The body is the request's body; what is known about the message is in headers (see `request`). The status of the answer
//! is the outcome:
//!
//! | Answer | Outcome |
//! | --- | --- |
//! | 2xx | done |
//! | 408, 425, 429, 5xx | retry, after `Retry-After` where it says so |
//! | 410 and other 4xx | dead: this message must not be sent again |
//! | 3xx, and anything else | retry; a redirect is never followed, since it could take body and signature elsewhere |
//! | none: no connection, no TLS, no HTTP | retry |
//! | none within `timeout` | retry, as a timeout |
//!
//! So a wrong certificate, a name that is not found and a refused connection each cost an attempt, like any outage: one
//! address of several may be at fault, and a probe cannot tell. The kill switch of the job (`policy/kill_switch.rs`) is
//! the circuit breaker: where too many attempts fail, the job pauses, and its messages stay in their queue. Broken is only
//! what is wrong on this side: a secret or certificates that cannot be read. They are read again before each probe.
//!
//! Where the job replies, the body of a 2xx is the reply.
//!
//! Absent on purpose: a proxy. `HTTP_PROXY` and its relatives are not read: a service's environment is no place to look for
//! where its messages go.

mod companion;
mod exchange;
mod judge;
mod names;
mod request;
mod secret;
#[cfg(test)]
mod tests;
mod trust;

use std::sync::Arc;
use std::time::Instant;

use self::companion::{Companion, Waited};
use self::exchange::{Client, Lost};
use self::request::Template;
use self::secret::Secret;
use self::trust::Trust;
use super::{Context, Input, Stop};
use crate::config;
use crate::task::{Answer, ErrorClass, Failure, Outcome, UnixMillis};

/// Why a run that the daemon ended says nothing of its message.
const STOPPED: &str = "the request was given up when the daemon stopped";
/// What a client may take beyond its own timeout before it is given up: the look-up of a name knows no timeout.
const SLACK: std::time::Duration = std::time::Duration::from_secs(1);

/// Sends the tasks of one worker thread to a URL, over one connection that is kept open.
#[derive(Debug)]
pub struct HttpHandler {
    config: config::Http,
    pub(super) context: Arc<Context>,
    /// Absent until the first run, and while something is wrong with it.
    prepared: Option<Prepared>,
    /// Absent until the first run, and after a request that had to be given up.
    companion: Option<Companion>,
}

/// What is the same for every run.
#[derive(Debug)]
struct Prepared {
    template: Template,
    secret: Option<Secret>,
    trust: Trust,
}

impl Prepared {
    /// An error is a sentence that says what is wrong, without any secret.
    fn new(config: &config::Http) -> Result<Self, String> {
        let template = Template::new(config)?;
        let secret = config.secret_file.as_deref().map(Secret::read).transpose()?;
        let trust = Trust::new(template.target(), config.ca_file.as_deref())?;
        Ok(Self { template, secret, trust })
    }
}

impl HttpHandler {
    /// Reads nothing yet: what is wrong is said at the first run.
    pub fn new(config: &config::Http, context: Arc<Context>) -> Self {
        Self { config: config.clone(), context, prepared: None, companion: None }
    }

    /// Sends one task; see [`super::Handler::run`].
    pub fn run(&mut self, input: &Input<'_>, stop: &Stop) -> Answer {
        if stop.is_raised() {
            return Outcome::NotBegun.into();
        }
        let prepared = match self.prepared.take().map_or_else(|| Prepared::new(&self.config), Ok) {
            Ok(prepared) => self.prepared.insert(prepared),
            Err(error) => return Outcome::Broken(error).into(),
        };
        let companion = match self.companion.take().map_or_else(|| start(&self.config, &self.context, prepared), Ok) {
            Ok(companion) => companion,
            Err(error) => return Outcome::Broken(format!("no thread for requests could be started: {error}")).into(),
        };
        let request = prepared.template.request(&self.context, input, prepared.secret.as_ref(), UnixMillis::now());
        let target = prepared.template.target();
        match companion.exchange(request, stop, Instant::now() + self.config.timeout + SLACK) {
            Waited::Ended(exchanged) => {
                self.companion = Some(companion);
                judge::judge(exchanged, target, &self.context)
            }
            // In these cases the companion is dropped, which ends what it is doing.
            Waited::Stopped => Outcome::Interrupted(STOPPED).into(),
            Waited::Overran => judge::judge(Err(Lost::late(target, self.config.timeout)), target, &self.context),
            Waited::Failed => {
                let error = "warrend itself failed while it sent the request; its log says where".to_owned();
                Outcome::Retry(Failure { class: ErrorClass::Failed, error }).into()
            }
        }
    }
}

/// Posts JSON that is no task's: a notification. `id` stays the same when it is sent again.
///
/// Gives the answer where it was a 2xx, and otherwise what went wrong, both for people. Blocks for at most its timeout and a
/// little more; returns early once `stop` is raised.
pub fn post(config: &config::Http, id: &str, body: &[u8], stop: &Stop) -> Result<String, String> {
    let prepared = Prepared::new(config)?;
    let target = prepared.template.target();
    let limits = exchange::Limits { timeout: config.timeout, reply: None };
    let client = Client::new(target.clone(), limits, &prepared.trust);
    let companion = Companion::start("http:notice".to_owned(), client)
        .map_err(|error| format!("no thread for the request could be started: {error}"))?;
    let request = prepared.template.notice(id, body, prepared.secret.as_ref(), UnixMillis::now());
    match companion.exchange(request, stop, Instant::now() + config.timeout + SLACK) {
        Waited::Ended(Ok(received)) => {
            let told = judge::told(&received, "");
            if received.status.is_success() { Ok(told) } else { Err(told) }
        }
        Waited::Ended(Err(lost)) => Err(lost.why),
        Waited::Stopped => Err(STOPPED.to_owned()),
        Waited::Overran => Err(Lost::late(target, config.timeout).why),
        Waited::Failed => Err("warrend itself failed while it sent the request; its log says where".to_owned()),
    }
}

fn start(config: &config::Http, context: &Context, prepared: &Prepared) -> std::io::Result<Companion> {
    let limits = exchange::Limits {
        timeout: config.timeout,
        reply: context.reply.then(|| usize::try_from(context.max_body).unwrap_or(usize::MAX)),
    };
    let client = Client::new(prepared.template.target().clone(), limits, &prepared.trust);
    // The worker thread's own name, `work:<job>:<n>`, tells the number.
    let worker = std::thread::current();
    let number = worker.name().and_then(|name| name.strip_prefix("work:")).unwrap_or(&context.job);
    Companion::start(format!("http:{number}"), client)
}
