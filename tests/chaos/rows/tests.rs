//! Rows that are tests of tests/it in their long form: they have an oracle of their own, and print its figures.

use crate::row::{Row, Run};

/// `make test` runs them in short as what they are.
const SHORT: usize = 0;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "in-doubt-kill",
            fault: "`kill -9` of the daemon where `in_doubt = \"dead\"`: what was running is dead-lettered and never runs again",
            promises: "P1 P3",
            short: SHORT,
            long: 50,
            seconds: 1.2,
            run: Run::Test {
                name: "doubt::no_key_runs_twice_and_none_is_lost_however_often_the_daemon_is_killed",
                variable: "WARREND_DOUBTS",
            },
        },
        Row {
            name: "forward-kill",
            fault: "`kill -9` of the daemon while it forwards to another queue",
            promises: "P1 P2",
            short: SHORT,
            long: 50,
            seconds: 1.2,
            run: Run::Test {
                name: "forward::a_killed_daemon_loses_nothing_on_the_way",
                variable: "WARREND_FORWARD_KILLS",
            },
        },
    ]
}
