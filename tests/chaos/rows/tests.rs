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
                value: None,
            },
        },
        Row {
            name: "forward-kill",
            fault: "`kill -9` of the daemon while it forwards to another queue",
            promises: "P1",
            short: SHORT,
            long: 50,
            seconds: 1.2,
            run: Run::Test {
                name: "forward::a_killed_daemon_loses_nothing_on_the_way",
                variable: "WARREND_FORWARD_KILLS",
                value: None,
            },
        },
        hole("black-hole", "wire::what_swallows_everything_is_noticed_in_time"),
        hole("black-hole-sends", "wire::what_swallows_all_that_the_daemon_sends_is_noticed_in_time"),
        hole("black-hole-gets", "wire::what_swallows_all_that_the_broker_sends_is_noticed_in_time"),
        reset("reset-job-sends", "wire::the_session_of_a_job_is_reset_at_every_byte_that_it_sends"),
        reset("reset-job-gets", "wire::the_session_of_a_job_is_reset_at_every_byte_that_it_gets"),
        reset("reset-publisher-sends", "wire::the_session_of_the_publisher_is_reset_at_every_byte_that_it_sends"),
        reset("reset-publisher-gets", "wire::the_session_of_the_publisher_is_reset_at_every_byte_that_it_gets"),
        Row {
            name: "reset-stop",
            fault: "RST after every byte that a stop sends or gets on the connections that it closes, one stop for each",
            promises: "P1 P2",
            short: SHORT,
            long: 1,
            seconds: 600.0,
            run: Run::Test { name: "wire::a_stop_is_reset_at_every_byte", variable: "WARREND_RST", value: Some("all") },
        },
        Row {
            name: "reload",
            fault: "a reload under load, by command or SIGHUP: what changes the job that works, others or none, and a faulty file",
            promises: "P1 P3",
            short: SHORT,
            long: 200,
            seconds: 2.0,
            run: Run::Test {
                name: "reload::reloads_under_load_lose_nothing_and_double_nothing",
                variable: "WARREND_RELOADS",
                value: None,
            },
        },
    ]
}

/// A session is cut after its first byte, the next one after two, and so on to its last.
const fn reset(name: &'static str, test: &'static str) -> Row {
    Row {
        name,
        fault: "RST after every byte that a session sends or gets, one session for each",
        promises: "P1 P2 P7",
        short: SHORT,
        long: 1,
        seconds: 600.0,
        run: Run::Test { name: test, variable: "WARREND_RST", value: Some("all") },
    }
}

/// Both connections, while idle and under load in turn.
const fn hole(name: &'static str, test: &'static str) -> Row {
    Row {
        name,
        fault: "the network swallows everything, or all that one side sends, until the daemon has left its connections",
        promises: "P1 P2 P3 P7",
        short: SHORT,
        long: 20,
        seconds: 6.0,
        run: Run::Test { name: test, variable: "WARREND_LOSSES", value: None },
    }
}
