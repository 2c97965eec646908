//! The integration tests: the real binary against a real RabbitMQ. `make test` brings both together.

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod failpoints;
mod scene;
mod tools;
