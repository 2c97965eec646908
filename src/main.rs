//! warrend: a task-worker daemon for RabbitMQ. ARCHITECTURE.md says how the parts fit together.
//!
//! This file parses the command line, runs what it says, prints one line if that failed, and sets the exit code.

mod alerts;
mod background;
mod broker;
mod cli;
mod config;
mod control;
mod daemon;
mod deadletters;
mod doctor;
mod encoding;
mod failpoint;
mod handler;
mod histogram;
#[cfg(test)]
mod house;
mod job;
mod logging;
mod management;
mod metrics;
mod panel;
mod policy;
mod report;
mod shell;
mod store;
mod system;
mod task;
mod tls;
#[cfg(test)]
mod units;
mod web;
mod who;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, ConfigCommand, Exit, Failure, Format};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            if !failure.text.is_empty() {
                // With stderr gone there is nobody left to tell.
                let _ = writeln!(std::io::stderr(), "warrend: {}", failure.text);
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let path = config::path(cli.config.as_deref(), &config::process_environment);
    let mut out = std::io::stdout().lock();
    match &cli.command {
        Command::Check { online, format } => check(&path, *online, *format, &mut out),
        Command::Run { until_empty } => {
            let loaded = load_whole(&path)?;
            logging::start(&loaded.config.log, has_color(&std::io::stderr()));
            tell(&loaded.warnings);
            failpoint::arm(std::env::var("WARREND_FAILPOINT").ok().as_deref());
            last_words(cli::run::run(&path, loaded.config, *until_empty))
        }
        Command::Status(options) => {
            failpoint::arm(std::env::var("WARREND_FAILPOINT").ok().as_deref());
            cli::status::status(&load(&path)?, options, has_color(&std::io::stdout()), &mut out)
        }
        Command::Alerts { test, json } => cli::alerts::alerts(&load(&path)?, test.as_deref(), *json, &mut out),
        Command::Pause { job, reason } => {
            cli::pause::pause(&load(&path)?.control.socket, job, reason.as_deref(), &mut out)
        }
        Command::Resume { job } => cli::pause::resume(&load(&path)?.control.socket, job, &mut out),
        Command::Reload { check, json } => {
            let options = cli::reload::Options { only_asks: *check, json: *json };
            cli::reload::reload(&path, &config::process_environment, options, &mut out, &mut std::io::stderr())
        }
        Command::Explain { id, job, json } => cli::explain::explain(&load(&path)?, id, job.as_deref(), *json, &mut out),
        Command::Dead(command) => {
            let config = load(&path)?;
            failpoint::arm(std::env::var("WARREND_FAILPOINT").ok().as_deref());
            cli::dead::dead(&config, command, &mut out)
        }
        Command::Store(command) => cli::store::store(&load(&path)?, command, &mut out),
        Command::Audit(command) => cli::audit::audit(&load(&path)?, command, &mut out),
        Command::Call(args) => cli::call::call(&load(&path)?, args, &mut out),
        Command::Publish(args) => cli::publish::publish(&load(&path)?, args, &mut out),
        Command::Config(ConfigCommand::Schema) => cli::schema::print(&mut out),
        Command::Completions { shell } => cli::completions::print(*shell, &mut out),
        Command::Man { page, all: None } => cli::manual::print(page, &mut out),
        Command::Man { page: _, all: Some(folder) } => cli::manual::write_all(folder),
    }
}

fn check(path: &Path, online: bool, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let format = match format {
        Format::Text => {
            let (color, out_color) = (has_color(&std::io::stderr()), has_color(&std::io::stdout()));
            cli::check::Format::Text { color, out_color }
        }
        Format::Json => cli::check::Format::Json,
    };
    let mut err = std::io::stderr();
    let code = cli::check::check(path, &config::process_environment, format, online, out, &mut err);
    let code = code.map_err(|error| Failure::print(&error))?;
    let exit = Exit::ALL.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Exit::Internal);
    if exit == Exit::Done { Ok(exit) } else { Err(Failure::new(exit, String::new())) }
}

/// Colour for terminals, unless `NO_COLOR` (<https://no-color.org>) is set.
fn has_color(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Loads the configuration; prints every error with its place. Warnings are for `check` and `run`: a script that publishes
/// a message or asks for the status would tell them each time.
fn load(path: &Path) -> Result<config::Config, Failure> {
    load_whole(path).map(|loaded| loaded.config)
}

/// Warnings of a daemon that starts: with their lines and carets for people, and else as everything that it tells.
fn tell(warnings: &config::Report) {
    if logging::is_for_people() {
        print(warnings);
    } else {
        warnings.lines().iter().for_each(|warning| log::warn!("{warning}"));
    }
}

/// Ends the log. What the daemon ended with belongs into it, where it is read by programs.
fn last_words(ended: Result<Exit, Failure>) -> Result<Exit, Failure> {
    let ended = ended.map_err(|failure| {
        if logging::is_for_people() || failure.text.is_empty() {
            return failure;
        }
        log::error!("{}", failure.text);
        Failure::new(failure.exit, String::new())
    });
    logging::finish();
    ended
}

fn load_whole(path: &Path) -> Result<config::Loaded, Failure> {
    config::load(path, &config::process_environment).map_err(|report| {
        print(&report);
        Failure::new(Exit::Config, String::new())
    })
}

fn print(report: &config::Report) {
    // With stderr gone there is nobody left to tell.
    let _ = std::io::stderr().write_all(report.render(has_color(&std::io::stderr())).as_bytes());
}
