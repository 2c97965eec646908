//! TLS with peers of the tests' own making. The tests against RabbitMQ are in `tests/it/tls.rs`.

mod handshake;
mod keys;
mod pair;
mod stream;
