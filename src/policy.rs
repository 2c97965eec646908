//! Decisions without effects: no clock (`now` is an argument), no IO, no thread, no log.

pub mod topology;
