//! The integration tests: the real binary against a real RabbitMQ. `make test` brings both together.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the chaos suite uses the rest")]
mod support;

mod acks;
mod alerts;
mod amqp;
mod audit;
mod broken;
mod call;
mod cli;
mod compress;
mod dead;
mod deleted;
mod doctor;
mod documents;
mod doubt;
mod failpoints;
mod failures;
mod forward;
mod guard;
mod hostile;
mod http;
mod install;
mod lifecycle;
mod logs;
mod metrics;
mod once;
mod order;
mod pause;
mod prefetch;
mod proxy;
mod reload;
mod reply;
mod secrets;
mod stall;
mod store;
mod store_tools;
mod tap;
mod tls;
mod tools;
mod topology;
mod watch;
mod wire;
mod worker;
