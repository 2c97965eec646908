//! The kinds of handlers and what belongs to each, checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// `[jobs.NAME.handler]`: exactly one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Handler {
    /// A program run once for each task.
    Command(Command),
    /// A long-lived process for each of the job's worker threads.
    Worker(Worker),
    /// A POST for each task.
    Http(Http),
    /// Published again, to somewhere else.
    Forward(Forward),
    /// Done at once.
    Discard,
}

impl Handler {
    /// Whether tasks go to worker threads. The other kinds are carried out by the job thread itself.
    pub fn has_workers(&self) -> bool {
        match self {
            Self::Command(_) | Self::Worker(_) | Self::Http(_) => true,
            Self::Forward(_) | Self::Discard => false,
        }
    }

    /// How many tasks a worker thread takes at one time, at most.
    pub fn batch(&self) -> usize {
        match self {
            Self::Worker(worker) => worker.batch,
            Self::Command(_) | Self::Http(_) | Self::Forward(_) | Self::Discard => 1,
        }
    }

    /// How long a batch that is not full waits for more.
    pub fn linger(&self) -> Duration {
        match self {
            Self::Worker(worker) => worker.linger,
            Self::Command(_) | Self::Http(_) | Self::Forward(_) | Self::Discard => Duration::ZERO,
        }
    }
}

/// `command = [...]` and its neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The program and its arguments; at least the program. Never a shell line. A program without a slash is looked up
    /// in `PATH`; one with a slash is absolute here, taken from the folder of the main file where it was relative.
    pub argv: Vec<String>,
    /// How long a run may take.
    pub timeout: Duration,
    /// From TERM to KILL.
    pub kill_grace: Duration,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; the daemon's own where absent.
    pub cwd: Option<PathBuf>,
}

/// `worker = [...]` and its neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// The program; its `timeout` is that of one batch.
    pub program: Command,
    /// Tasks in one request, 1 to 1000.
    pub batch: usize,
    /// How long a batch that is not full waits for more tasks, up to 10 s.
    pub linger: Duration,
    /// The process is replaced after so many tasks, at least 1.
    pub max_tasks: Option<u64>,
    /// And once it has so many bytes resident, looked at between two batches.
    pub max_memory: Option<u64>,
    /// And once it is so old.
    pub max_age: Option<Duration>,
}

/// `http = "URL"` and its neighbours.
#[derive(Clone, PartialEq)]
pub struct Http {
    /// `http://` or `https://`, without a user and a password.
    pub url: String,
    /// For the whole exchange: connect, send, and receive the answer.
    pub timeout: Duration,
    /// Sent with each request, over what warrend itself sends.
    pub headers: BTreeMap<String, String>,
    /// A file with one line, `whsec_` and base64: requests are signed as Standard Webhooks are. Read at each start.
    pub secret_file: Option<PathBuf>,
    /// Certificates that are trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Http {
    /// Scheme, host and port. The rest of the URL may hold a secret, and is not shown anywhere.
    pub fn origin(&self) -> &str {
        let host = self.url.find("://").map_or(0, |scheme| scheme + 3);
        let end = self.url[host..].find(['/', '?']).map_or(self.url.len(), |path| host + path);
        &self.url[..end]
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Http({}, {} headers, timeout {:?})", self.origin(), self.headers.len(), self.timeout)
    }
}

/// `forward = { ... }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The first that matches wins.
    pub routes: Vec<Route>,
    /// Where a message goes that none matches; `None`: it is dead-lettered.
    pub otherwise: Option<Target>,
}

/// One entry of `routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which messages take it.
    pub when: When,
    /// Where they go.
    pub to: Target,
}

/// What a route matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Every message: `forward = { exchange, routing_key }` is one route of this kind.
    Always,
    /// A pattern as topic exchanges have it: words between dots, `*` for one, `#` for any number.
    RoutingKey(String),
    /// A header of this name; with a value, only where it is that text or number.
    Header {
        /// Its name.
        name: String,
        /// What it must be.
        value: Option<String>,
    },
}

/// Where a forwarded message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Empty for the default exchange.
    pub exchange: Template,
    /// With the default exchange, the queue's name.
    pub routing_key: Template,
}

/// Text with `{name}` in it, split into its parts. `{{` and `}}` are plain braces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

impl Template {
    /// The text, where it is the same for all messages.
    pub fn literal(&self) -> Option<String> {
        let text = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Name(_) | Part::Header(_) => None,
        };
        self.0.iter().map(text).collect()
    }
}

impl std::fmt::Display for Template {
    /// As the file may have it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Name(name) => write!(f, "{{{name}}}"),
            Part::Header(name) => write!(f, "{{header:{name}}}"),
        })
    }
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// A property of the message (`routing_key`, `exchange`, `message_id`, `type`, `app_id`, `correlation_id`, `reply_to`,
    /// `content_type`, `user_id`, `priority`), or a header of that name where there is no such property.
    Name(String),
    /// `{header:NAME}`: a header, also one that is called as a property is.
    Header(String),
}
