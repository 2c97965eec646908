//! How an attempt ended: what a handler says of it, and why it failed.

use std::time::Duration;

/// Why an attempt failed: the value of `x-warrend-error-class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The handler failed, and the budget of attempts is used up.
    Failed,
    /// The handler said that the message must not be tried again.
    Rejected,
    /// The handler ran longer than its `timeout`.
    Timeout,
    /// The handler was ended by a signal.
    Crashed,
    /// The body is larger than `max_body`.
    Oversize,
    /// The message cannot be read as its job needs it.
    Undecodable,
    /// The message bears no key, and the job says that it must.
    NoKey,
    /// The daemon or the machine died while the attempt ran, and the job says that it must not run again.
    InDoubt,
    /// The message is a request, and nobody waits for its answer any more.
    Expired,
}

impl ErrorClass {
    /// All classes, for tests and tables.
    pub const ALL: [Self; 9] = [
        Self::Failed,
        Self::Rejected,
        Self::Timeout,
        Self::Crashed,
        Self::Oversize,
        Self::Undecodable,
        Self::NoKey,
        Self::InDoubt,
        Self::Expired,
    ];

    /// The wire and display form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Crashed => "crashed",
            Self::Oversize => "oversize",
            Self::Undecodable => "undecodable",
            Self::NoKey => "no-key",
            Self::InDoubt => "in-doubt",
            Self::Expired => "expired",
        }
    }

    /// The class of that wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

/// How a failed attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The class; decides between the budgets of attempts and of crashes.
    pub class: ErrorClass,
    /// What to tell people: one line or a few, at most about a kibibyte, never a secret.
    pub error: String,
}

/// What became of one attempt. The failure of a task is a value, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled; never run again.
    Done,
    /// Failed; to be tried again while the budget lasts.
    Retry(Failure),
    /// Failed for good.
    Dead(Failure),
    /// The handler is broken, not the message: it costs no attempt, and the job pauses.
    Broken(String),
    /// The run was ended, for a reason that is not the message's: it costs no attempt, and the message goes back. Nobody
    /// knows how far it came. The text says what ended.
    Interrupted(&'static str),
    /// The same, but the handler has not seen the message.
    NotBegun,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What a handler said of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// How its process ended, where one ended.
    pub exit: Option<Exit>,
    /// What to send to the message's `reply_to`, where the job replies.
    pub reply: Option<Reply>,
    /// With [`Outcome::Retry`]: how long to wait, where the handler said so; as it said, unbounded.
    pub delay: Option<Duration>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, exit: None, reply: None, delay: None }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its body.
    pub body: Vec<u8>,
    /// MIME type of the body, where it is known.
    pub content_type: Option<String>,
}
