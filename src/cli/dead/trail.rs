//! Writing down what a command does with dead letters.

use std::io::Write as _;

use crate::cli::client::{ask_if_running, misunderstood};
use crate::cli::dead::letters;
use crate::config::{Config, Job};
use crate::control::{Answer, Request};
use crate::deadletters::Filter;
use crate::logging::clean;
use crate::store::{self, Act, Deed};
use crate::who::Who;

/// What is under way, and what it will be once it has ended.
#[derive(Debug)]
pub struct Trail<'c> {
    config: &'c Config,
    job: &'c Job,
    ended: Act,
    /// Its beginning is written down.
    begun: bool,
}

impl<'c> Trail<'c> {
    /// Writes down what begins now, so that also a command that is killed leaves a trace. Where that cannot be written it says
    /// so, and the command goes on: whoever may use the broker could do the same without us, and the machine that he does it
    /// from need not have a daemon or a store.
    pub fn begin(config: &'c Config, job: &'c Job, [begun, ended]: [Act; 2], detail: Option<String>) -> Self {
        let mut trail = Self { config, job, ended, begun: true };
        if let Err(why) = trail.write(begun, None, detail) {
            trail.begun = false;
            // With stderr gone there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "warrend: note: this is not in the audit trail: {}", clean(&why));
        }
        trail
    }

    /// Writes down how it ended: with so many letters, where that is known, and why before its time.
    pub fn end(self, count: Option<u64>, trouble: Option<&str>) {
        if !self.begun {
            return;
        }
        let detail = trouble.map(|trouble| format!("ended early: {trouble}"));
        if let Err(why) = self.write(self.ended, count, detail) {
            let of = count.map_or_else(|| "some".to_owned(), letters);
            let (act, why) = (self.ended.as_str(), clean(&why));
            // As above.
            let _ = writeln!(std::io::stderr(), "warrend: note: the audit trail lacks that {of} were {act}: {why}");
        }
    }

    /// By the daemon where one runs: it knows who asks. Without one by ourselves.
    fn write(&self, act: Act, count: Option<u64>, detail: Option<String>) -> Result<(), String> {
        let job = self.job.name.to_string();
        let request = Request::Note { act, job: job.clone(), count, detail: detail.clone() };
        match ask_if_running(&self.config.control.socket, &request).map_err(|failure| failure.text)? {
            Some(Answer::Done { .. }) => Ok(()),
            Some(_) => Err(misunderstood().text),
            None => {
                let deed = Deed { count, detail, ..Deed::new(Who::here(), act).to(&job) };
                store::note(&self.config.store, &deed).map_err(|error| error.to_string())
            }
        }
    }
}

/// What a filter means; nothing where it means all.
pub fn meant(filter: &Filter) -> Option<String> {
    let Filter { ids, class, error, before, limit } = filter;
    let mut parts = Vec::new();
    parts.extend(class.map(|class| format!("class {}", class.as_str())));
    parts.extend(error.as_ref().map(|error| format!("error /{error}/")));
    parts.extend(before.map(|before| format!("before {}", super::time(before))));
    parts.extend(limit.map(|limit| format!("at most {limit}")));
    parts.extend((!ids.is_empty()).then(|| format!("ids {}", ids.join(" "))));
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{ErrorClass, UnixMillis};

    #[test]
    fn a_filter_is_told_in_words() {
        assert_eq!(meant(&Filter::default()), None);
        let filter = Filter {
            ids: vec!["a".to_owned(), "b".to_owned()],
            class: Some(ErrorClass::Rejected),
            error: Some("x+".parse().unwrap()),
            before: Some(UnixMillis(1000)),
            limit: Some(5),
        };
        let told = "class rejected, error /x+/, before 1970-01-01T00:00:01Z, at most 5, ids a b";
        assert_eq!(meant(&filter).as_deref(), Some(told));
    }
}
