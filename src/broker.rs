//! The only place that names amiquip: connections, sessions, the publisher.
//!
//! [`connect()`] opens one connection. [`with_session`] lends it to a job as a [`Session`] that consumes and acknowledges.
//! [`spawn`](publisher::spawn) starts the thread that publishes the copies of failed attempts, on a connection of its own:
//! on a resource alarm RabbitMQ stops reading from connections that publish, and acks must not wait behind that.
//! [`publish_all`](oneshot::publish_all), [`Outbox`](oneshot::Outbox), [`call`](call::call) and [`with_hold`] serve the
//! command line, and so does [`with_probe`], which only asks. Between the library and the socket stands the guard of `wire`.
//!
//! What is absent: deciding when to connect again (the job and the publisher's thread do), and anything asynchronous. The
//! library runs one thread a connection; every wait for it has a deadline.

pub mod call;
mod connect;
mod convert;
mod deadline;
mod declare;
mod error;
mod hold;
mod inspect;
mod lane;
mod line;
pub mod oneshot;
mod outgoing;
pub mod publisher;
mod secure;
mod session;
mod socket;
mod tokens;
mod uplink;
mod window;
mod wire;

pub use connect::{Link, connect, password};
pub use error::BrokerError;
pub use hold::{Held, Hold, Token, with_hold};
pub use inspect::{Probe, Right, with_probe};
pub use outgoing::{Body, Outgoing};
pub use session::{Counts, Incoming, Session, with_session};
