//! The command line: what can be typed, and one file for each subcommand.

pub mod alerts;
pub mod audit;
pub mod call;
pub mod check;
pub mod client;
pub mod completions;
pub mod dead;
pub mod explain;
pub mod figures;
pub mod life;
pub mod manual;
pub mod pause;
pub mod publish;
pub mod reload;
pub mod run;
pub mod schema;
pub mod status;
pub mod store;
pub mod terminal;
pub mod watch;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::store::StoreError;
use crate::task::{HeaderValue, Headers};

/// A task-worker daemon for RabbitMQ: nothing lost, nothing done twice, everything visible.
#[derive(Debug, Parser)]
#[command(name = "warrend", version, max_term_width = 100)]
#[command(after_help = exit_codes())]
pub struct Cli {
    /// The configuration; jobs.d/*.toml beside it is read too [default: $WARREND_CONFIG, else
    /// /etc/warrend/warrend.toml]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Run {
        /// End once every queue, the delay ladder and everything in flight are empty
        #[arg(long)]
        until_empty: bool,
    },
    /// Judge the configuration and say everything that is wrong with it
    Check {
        /// Look at the broker, the store and the systemd unit too; changes nothing. Exits 1 where something does not work,
        /// 69 where no broker answers
        #[arg(long)]
        online: bool,
        /// How to print errors
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Show how the running daemon is; exits 0 healthy, 1 degraded, 3 not running
    #[command(after_long_help = status::jobs::explain())]
    Status(status::Options),
    /// Show each alert: whether it fires, what was measured, who was told; exits 1 where one fires, 3 where nothing runs
    Alerts {
        /// Tell whoever is told of this alert of a test, and show what they answer; without a daemon it is told from here
        #[arg(long, value_name = "NAME")]
        test: Option<String>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Stop a job's consuming until it is resumed, also over a restart
    Pause {
        /// The job
        job: String,
        /// Why; shown in `status`
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let a paused job go on
    Resume {
        /// The job
        job: String,
    },
    /// Have the running daemon read its configuration anew; exits 78 where it is faulty
    ///
    /// The files are judged first, as `check` does: faulty ones change nothing. What differs is printed key by key. Only the jobs
    /// that change restart: their running handlers finish, what waits goes back to its queue, and then they start with the new
    /// settings. The others go on undisturbed. A change of `[broker]` connects all of them anew. A change of store.path,
    /// store.synchronous, control.socket, http.listen or `[log]` needs a restart, and is refused with everything else in the files.
    ///
    /// It returns once all is in force, or after shutdown.timeout where handlers run for longer; then it happens without it.
    Reload {
        /// Only print what would change
        #[arg(long, visible_alias = "dry-run")]
        check: bool,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Tell the whole life of a message: its attempts, and where it is now; exits 1 where it is unknown
    Explain {
        /// The key: the message id, or whatever `idempotency.key` names
        id: String,
        /// Only in this job
        #[arg(long)]
        job: Option<String>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Put a message into a queue, confirmed by the broker
    Publish(Publish),
    /// Send a request to a queue and print its reply; exits 1 where it failed, or nobody answered in time
    Call(Call),
    /// Look at dead letters, replay, export, import or purge them
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Count what the store remembers, forget some of it, copy and check it
    #[command(subcommand)]
    Store(store::Store),
    /// Show who did what, and check that nobody has changed the trail of it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Tell about the configuration itself
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print what makes a shell complete commands and options
    ///
    /// The package and `make install` put the files in their places. By hand, for one user:
    ///
    /// bash: warrend completions bash >~/.local/share/bash-completion/completions/warrend
    ///
    /// zsh: warrend completions zsh >DIR/_warrend, DIR being one of $fpath
    ///
    /// fish: warrend completions fish >~/.config/fish/completions/warrend.fish
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual, for `man -l -`
    Man {
        /// The page: warrend, warrend.toml, or a command such as "status" or "dead replay"
        #[arg(default_value = manual::MAIN)]
        page: String,
        /// Write all pages into this folder instead
        #[arg(long, value_name = "DIR", conflicts_with = "page")]
        all: Option<PathBuf>,
    },
}

/// The subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

/// How `check` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The arguments of `publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// The queue; or, with --exchange, only a name for messages about it
    pub queue: String,
    /// Where it goes, and with what.
    #[command(flatten)]
    pub post: Post,
    /// The message id [default: a new UUID for each message]. With --count, "-1", "-2" … are appended
    #[arg(long)]
    pub id: Option<String>,
    /// Let the message wait on the delay ladder first, whole seconds: "90s", "5m", "2h"
    #[arg(long, value_name = "DURATION", conflicts_with = "exchange", value_parser = parse_delay)]
    pub delay: Option<std::time::Duration>,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// The MIME type of the body
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Compress the body with gzip, and say so in its content_encoding
    #[arg(long, conflicts_with = "zstd")]
    pub gzip: bool,
    /// The same with zstd
    #[arg(long)]
    pub zstd: bool,
    /// The body: a file, or "-" for standard input; empty if absent
    pub file: Option<PathBuf>,
}

/// What `publish` and `call` are told of a message alike.
#[derive(Debug, Args)]
pub struct Post {
    /// Send it to this exchange instead of the queue itself
    #[arg(long, requires = "routing_key")]
    pub exchange: Option<String>,
    /// The routing key for --exchange
    #[arg(long, value_name = "KEY", requires = "exchange")]
    pub routing_key: Option<String>,
    /// The priority
    #[arg(long, value_name = "0-255")]
    pub priority: Option<u8>,
    /// A header, as text; can be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
}

impl Post {
    /// The exchange and the routing key, where both are given.
    pub fn route(&self) -> Option<(String, String)> {
        self.exchange.clone().zip(self.routing_key.clone())
    }

    /// The headers, all of them text.
    pub fn headers(&self) -> Headers {
        self.headers.iter().map(|(name, value)| (name.clone(), HeaderValue::Text(value.clone()))).collect()
    }
}

/// The arguments of `call`.
#[derive(Debug, Args)]
pub struct Call {
    /// The queue of a job with `reply = true`; or, with --exchange, only a name for requests about it
    pub queue: String,
    /// How long to wait for the reply; after that the request also expires in its queue
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    pub timeout: std::time::Duration,
    /// Where it goes, and with what.
    #[command(flatten)]
    pub post: Post,
    /// The message id [default: a new UUID]
    #[arg(long)]
    pub id: Option<String>,
    /// The body: a file, or "-" for standard input; empty if absent
    pub file: Option<PathBuf>,
}

/// As long as anybody would wait, and far below what RabbitMQ takes for an expiration.
const LONGEST_CALL: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

fn parse_timeout(text: &str) -> Result<std::time::Duration, String> {
    let timeout = crate::config::parse_duration(text)?;
    if timeout.is_zero() || timeout > LONGEST_CALL {
        return Err("a call waits from 1ms to 24h".to_owned());
    }
    Ok(timeout)
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a header is written NAME=VALUE".to_owned()),
    }
}

fn parse_delay(text: &str) -> Result<std::time::Duration, String> {
    let delay = crate::config::parse_duration(text)?;
    if delay.subsec_nanos() > 0 || delay.is_zero() {
        return Err("the delay ladder counts whole seconds, from 1s".to_owned());
    }
    let longest = crate::policy::topology::MAX_DELAY;
    if delay > longest {
        return Err(format!("the delay ladder reaches {} s", longest.as_secs()));
    }
    Ok(delay)
}

/// The exit codes in a line, for the help.
fn exit_codes() -> String {
    let codes: Vec<String> = Exit::ALL.iter().map(|exit| format!("{} {}", *exit as u8, exit.meaning())).collect();
    format!("Exit codes: {}.", codes.join(", "))
}

/// The exit codes; `sysexits.h` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; healthy.
    Done = 0,
    /// Something failed while running; `status`: degraded.
    Failed = 1,
    /// The command line asks for what cannot be.
    Usage = 2,
    /// `status`: no daemon answers.
    NotRunning = 3,
    /// The broker cannot be reached or refuses (one-shot commands).
    NoBroker = 69,
    /// A bug in warrend.
    Internal = 70,
    /// The store cannot be read or written.
    Store = 74,
    /// Another instance holds the store.
    Locked = 75,
    /// The configuration.
    Config = 78,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotRunning,
        Self::NoBroker,
        Self::Internal,
        Self::Store,
        Self::Locked,
        Self::Config,
    ];

    /// Of a command that the store ended.
    pub fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Locked { .. } => Self::Locked,
            StoreError::TooNew { .. } | StoreError::Full | StoreError::Unfit { .. } | StoreError::Failed { .. } => {
                Self::Store
            }
        }
    }

    /// In a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed or degraded",
            Self::Usage => "usage",
            Self::NotRunning => "not running",
            Self::NoBroker => "no broker",
            Self::Internal => "internal error",
            Self::Store => "store",
            Self::Locked => "another instance holds the store",
            Self::Config => "configuration",
        }
    }
}

/// Why a command failed: one lowercase sentence, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The sentence; empty where everything has been printed.
    pub text: String,
}

impl Failure {
    /// Where standard output is gone.
    pub fn print(error: &std::io::Error) -> Self {
        Self::new(Exit::Failed, format!("cannot print: {error}"))
    }

    /// With a sentence.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_stand_before_or_after_the_subcommand() {
        for line in [["warrend", "-c", "x.toml", "status"], ["warrend", "status", "--config", "x.toml"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("x.toml")));
        }
    }

    #[test]
    fn a_call_waits_for_some_time() {
        assert_eq!(parse_timeout("1ms"), Ok(std::time::Duration::from_millis(1)));
        assert_eq!(parse_timeout("24h"), Ok(LONGEST_CALL));
        for bad in ["0s", "25h", "5", "soon", ""] {
            assert!(parse_timeout(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn delays_are_whole_seconds_within_the_ladder() {
        assert_eq!(parse_delay("2m"), Ok(std::time::Duration::from_secs(120)));
        for bad in ["0s", "500ms", "13d", "soon", ""] {
            assert!(parse_delay(bad).is_err(), "{bad}");
        }
    }
}
