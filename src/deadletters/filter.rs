//! Which dead letters are meant.

use regex::Regex;

use super::{class, error, failed_at};
use crate::config::Job;
use crate::policy::arrive;
use crate::task::{ErrorClass, Message, UnixMillis};

/// All conditions must hold; an empty filter means every letter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Keys or message ids, any of them; none means all.
    pub ids: Vec<String>,
    /// The class of the failure.
    pub class: Option<ErrorClass>,
    /// Found anywhere in the error text.
    pub error: Option<Regex>,
    /// Failed for good before this time. A letter that does not say when is not meant.
    pub before: Option<UnixMillis>,
    /// So many letters at most, the oldest first.
    pub limit: Option<u64>,
}

impl Filter {
    /// Whether a letter is meant; the limit is the caller's.
    pub fn matches(&self, job: &Job, message: &Message) -> bool {
        self.class.is_none_or(|wanted| class(message) == wanted.as_str())
            && self.before.is_none_or(|before| failed_at(message).is_some_and(|at| at < before))
            && self.error.as_ref().is_none_or(|error_like| error_like.is_match(error(message)))
            && (self.ids.is_empty() || self.names(job, message))
    }

    fn names(&self, job: &Job, message: &Message) -> bool {
        let named = |id: &str| self.ids.iter().any(|wanted| wanted == id);
        message.properties.message_id.as_deref().is_some_and(named)
            || arrive::key_of(job, message).is_some_and(|key| named(&key.to_text()))
    }

    /// Whether so many letters are all that may be taken.
    pub fn is_full(&self, taken: u64) -> bool {
        self.limit.is_some_and(|limit| taken >= limit)
    }
}
