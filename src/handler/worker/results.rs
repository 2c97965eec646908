//! Reading responses: `{"id":7,"results":[{"status":"done"},{"status":"retry","delay":"10s","error":".."}]}`.
//!
//! Results belong to the tasks by their position. A line with `"more":true` gives the next few, and others follow; a line
//! without it ends the batch, and tasks that got no result by then failed. What cannot be understood is a failed attempt
//! where it is one result, and the end of the process where it is the line: never a success.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::parse_duration;
use crate::handler::Context;
use crate::handler::process::output::{escape, short};
use crate::task::{Answer, ErrorClass, Failure, Outcome, Reply};

/// A response line may be this long, in bytes, or this long for each task of the batch. Where the job replies, twice
/// `max_body` more: a process that gives many large replies gives them in several lines.
const MAX_LINE: usize = 1024 * 1024;
const MAX_LINE_EACH: usize = 8 * 1024;

/// The results of one batch, as they come.
#[derive(Debug)]
pub struct Results<'a> {
    id: u64,
    context: &'a Context,
    wanted: usize,
    /// Of the first tasks of the batch.
    pub answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Response<'a> {
    id: u64,
    #[serde(borrow, default)]
    results: Vec<&'a RawValue>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct Verdict<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    delay: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reply: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reply_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reply_content_type: Option<Cow<'a, str>>,
}

impl<'a> Results<'a> {
    /// None yet, of a request of that id with so many tasks.
    pub fn new(id: u64, wanted: usize, context: &'a Context) -> Self {
        Self { id, context, wanted, answers: Vec::with_capacity(wanted) }
    }

    /// Whether every task has its answer.
    pub fn is_complete(&self) -> bool {
        self.answers.len() == self.wanted
    }

    /// How many there will be.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// How long a line may be.
    pub fn max_line(&self) -> usize {
        let reply = if self.context.reply { self.context.max_body.saturating_mul(2) } else { 0 };
        MAX_LINE.max(self.wanted * MAX_LINE_EACH).saturating_add(usize::try_from(reply).unwrap_or(usize::MAX))
    }

    /// Takes one line. The error says how it breaks the protocol; no result of such a line counts.
    pub fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let response: Response<'_> =
            object(line).map_err(|error| format!("it answered what is no response ({error}): {}", quote(line)))?;
        if response.id != self.id {
            return Err(format!("it answered request {} instead of {}", response.id, self.id));
        }
        let (given, owed) = (response.results.len(), self.wanted - self.answers.len());
        if given > owed {
            return Err(format!("it gave {given} results for {owed} tasks"));
        }
        let context = self.context;
        self.answers.extend(response.results.into_iter().map(|result| judge(context, result.get())));
        if !response.more && !self.is_complete() {
            let error =
                format!("the worker gave no result for it, but {} for {} tasks", self.answers.len(), self.wanted);
            self.answers.resize(self.wanted, failed(error));
        }
        Ok(())
    }
}

/// The answer that one result stands for.
fn judge(context: &Context, result: &str) -> Answer {
    let verdict: Verdict<'_> = match object(result.as_bytes()) {
        Ok(verdict) => verdict,
        Err(error) => {
            let quoted = quote(result.as_bytes());
            return failed(format!("the worker gave a result that cannot be read ({error}): {quoted}"));
        }
    };
    let error =
        || short(verdict.error.as_deref().filter(|error| !error.is_empty()).unwrap_or("the worker gave no reason"));
    match &*verdict.status {
        "done" => done(context, verdict),
        "dead" => Outcome::Dead(Failure { class: ErrorClass::Rejected, error: error() }).into(),
        "retry" => match verdict.delay.as_deref().map(parse_duration) {
            None => failed(error()),
            Some(Ok(delay)) => Answer { delay: Some(delay), ..failed(error()) },
            Some(Err(mend)) => failed(format!("{} (and its `delay` cannot be read: {mend})", error())),
        },
        other => failed(format!(
            "the worker gave the status {}, which is none of done, retry, dead",
            quote(other.as_bytes())
        )),
    }
}

/// A task that is done, with its reply where the job replies. A process that gives none replies with nothing, so that no
/// caller waits in vain.
fn done(context: &Context, verdict: Verdict<'_>) -> Answer {
    if !context.reply {
        return Outcome::Done.into();
    }
    let body = match (verdict.reply, verdict.reply_base64) {
        (None, Some(text)) => match STANDARD.decode(&*text) {
            Ok(body) => body,
            Err(error) => return failed(format!("the worker gave a `reply_base64` that cannot be read: {error}")),
        },
        (text, _) => text.unwrap_or_default().into_owned().into_bytes(),
    };
    if body.len() as u64 > context.max_body {
        let error = format!("the worker gave a longer reply than a job may send ({} bytes)", context.max_body);
        return Outcome::Dead(Failure { class: ErrorClass::Oversize, error }).into();
    }
    let content_type = verdict.reply_content_type.map(Cow::into_owned);
    Answer { reply: Some(Reply { body, content_type }), ..Outcome::Done.into() }
}

fn failed(error: String) -> Answer {
    Outcome::Retry(Failure { class: ErrorClass::Failed, error }).into()
}

/// Reads a JSON object. (By itself, serde takes an array of the fields' values for one, too.)
pub fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("no JSON object".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// The beginning of what a process wrote, on one line.
pub fn quote(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    let text = escape(&String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]));
    format!("`{text}`{}", if bytes.len() > MOST { "…" } else { "" })
}
