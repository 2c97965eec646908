//! The only place that names amiquip: connections, sessions, the publisher.
