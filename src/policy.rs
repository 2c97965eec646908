//! Decisions without effects: no clock (`now` is an argument), no randomness (`random` is an argument), no IO, no
//! thread, no log.
//!
//! Everything here can be replayed. The simulator in `sim` drives these parts through thousands of histories of
//! deliveries, crashes and disconnects in `cargo test`.

pub mod ack;
pub mod alerts;
pub mod arrive;
pub mod backoff;
pub mod gate;
pub mod inflight;
pub mod kill_switch;
pub mod prefetch;
pub mod refusal;
pub mod reply;
pub mod retry;
pub mod route;
pub mod schedule;
pub mod stall;
pub mod topology;

#[cfg(test)]
mod sim;
