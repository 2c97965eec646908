//! The integration tests: the real binary against a real RabbitMQ. `make test` brings both together.

#[path = "../support/mod.rs"]
mod support;

<<<<<<< tests/it/main.rs
mod crash;
mod failpoints;
mod scene;
=======
mod acks;
mod amqp;
mod failures;
mod hostile;
mod once;
mod order;
>>>>>>> /tmp/fm/theirs/tests/it/main.rs
mod tools;
