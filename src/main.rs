//! warrend: a task-worker daemon for RabbitMQ. ARCHITECTURE.md says how the parts fit together.

mod broker;
mod cli;
mod config;
mod failpoint;
mod handler;
mod policy;
mod store;
mod task;

fn main() {}
