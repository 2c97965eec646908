//! `warrend status` on a real terminal: what fits, what keys do, and how the terminal is given back.

use rustix::process::Signal;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::terminal::Terminal;

/// What no test waits for: the watch looks that often.
const LOOK: &str = "200ms";

fn jobs(count: usize) -> String {
    let job = |n| format!("[jobs.job-{n:02}]\nqueue = \"queue-{n:02}\"\nhandler.discard = true\n");
    (0..count).map(job).collect()
}

fn watch(daemon: &Daemon, columns: u16, rows: u16) -> Terminal {
    Terminal::start(&daemon.command_line(&["status", "--watch", "--interval", LOOK]), columns, rows)
}

#[track_caller]
fn assert_fits(text: &str, columns: usize, rows: usize) {
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() <= rows && lines.iter().all(|line| line.chars().count() <= columns), "{text}");
}

/// The line under the cursor.
fn chosen(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("> ")).unwrap_or_default()
}

#[test]
fn a_screen_fits_a_terminal_with_three_jobs_and_with_fifty() {
    for (count, shown) in [(3, 3), (50, 14)] {
        let vhost = Vhost::new();
        let mut daemon = Daemon::new(&vhost, &jobs(count));
        daemon.start();
        let mut terminal = Terminal::start(&daemon.command_line(&["status"]), 80, 24);
        assert_eq!(terminal.wait_exit().code(), Some(0), "{}", terminal.text());
        let text = terminal.text();
        assert!(text.starts_with("warrend ") && text.contains("healthy"), "its first line is still there: {text}");
        assert_fits(&text, 80, 24);
        assert_eq!(text.lines().last(), Some(""), "the prompt has a line: {text}");
        let rows = text.lines().filter(|line| line.starts_with("job-")).count();
        assert!(rows >= shown, "{rows}: {text}");
        assert_eq!(text.contains(&format!("and {} more: warrend status --all", count - rows)), rows < count, "{text}");
        assert!(terminal.is_coloured());

        let mut all = Terminal::start(&daemon.command_line(&["status", "--all"]), 80, 90);
        all.wait_exit();
        assert_eq!(all.text().lines().filter(|line| line.starts_with("job-")).count(), count, "{}", all.text());
        let piped = daemon.run(&["status"]);
        let piped = String::from_utf8_lossy(&piped.stdout).into_owned();
        assert_eq!(piped.lines().filter(|line| line.starts_with("job-")).count(), count, "{piped}");

        let mut watch = watch(&daemon, 80, 24);
        watch.wait_for("job-00");
        watch.keys("\u{1b}[F");
        let last = format!("> job-{:02}", count - 1);
        let text = watch.wait_until("the last job is under the cursor", |text| chosen(text).starts_with(&last));
        assert_fits(&text, 80, 24);
        assert!(text.starts_with("warrend ") && text.contains("pause") && text.contains("help"), "{text}");
    }
}

#[test]
fn keys_pause_a_job_and_let_it_go_on() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &jobs(3));
    daemon.start();
    let state = |daemon: &Daemon| daemon.status().expect("it answers")["jobs"]["job-01"]["state"].clone();
    let mut terminal = watch(&daemon, 80, 24);
    terminal.wait_for("> job-00");
    terminal.keys("j");
    terminal.wait_for("> job-01");
    terminal.keys("p");
    terminal.wait_for("pause job job-01? [y/N]");
    terminal.keys("n");
    terminal.wait_until("the question is gone", |text| !text.contains("[y/N]"));
    assert_eq!(state(&daemon), "running", "a no is a no");
    terminal.keys("p");
    terminal.wait_for("[y/N]");
    terminal.keys("y");
    let text = terminal.wait_until("the job is paused", |text| chosen(text).contains("paused"));
    assert_eq!(state(&daemon), "paused");
    assert!(text.contains("!  job job-01: paused by") && text.contains("try: warrend resume job-01"), "{text}");
    assert!(chosen(&text).starts_with("> job-01"), "the cursor stays with its job: {text}");
    terminal.keys("r");
    terminal.wait_until("it runs", |text| chosen(text).starts_with("> job-01") && chosen(text).contains("running"));
    assert_eq!(state(&daemon), "running");

    terminal.keys("?");
    let help = terminal.wait_for("95 of 100 handlers took no longer");
    assert_fits(&help, 80, 24);
    terminal.keys(" ");
    terminal.wait_for("> job-01");
    terminal.keys("q");
    assert_eq!(terminal.wait_exit().code(), Some(0));
    terminal.assert_given_back();
}

#[test]
fn a_terminal_of_another_size_is_filled_anew() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &jobs(50));
    daemon.start();
    let mut terminal = watch(&daemon, 80, 24);
    let small = terminal.wait_for("> job-00");
    let rows =
        |text: &str| text.lines().filter(|line| line.trim_start_matches("> ").trim_start().starts_with("job-")).count();
    terminal.resize(160, 70);
    let large = terminal.wait_until("all jobs have a line", |text| rows(text) >= 50);
    assert!(large.contains("RUN p99") && !small.contains("RUN p99"), "{large}");
    terminal.resize(50, 14);
    let tiny =
        terminal.wait_until("it fits", |text| text.contains("q end") && rows(text) < 10 && !text.contains("RUN p99"));
    assert!(rows(&tiny) >= 1, "{tiny}");
    assert_fits(&tiny, 50, 14);
    terminal.resize(80, 24);
    terminal.wait_until("it is as it was", |text| rows(text) == rows(&small) && text.contains("help"));
}

#[test]
fn a_daemon_that_is_gone_is_told_and_found_again() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &jobs(2));
    let mut terminal = watch(&daemon, 80, 24);
    terminal.wait_for("warrend is not running: nobody answers on");
    daemon.start();
    terminal.wait_for("> job-00");
    daemon.kill9();
    let text = terminal.wait_for("!  warrend is not running");
    assert!(text.contains("its last answer, of") && text.contains("> job-00"), "{text}");
    daemon.start();
    terminal.wait_until("it is there again", |text| !text.contains("last answer") && text.contains("healthy"));
    assert!(terminal.text().contains(&format!("pid {}", daemon.pid().expect("it runs"))));
}

#[test]
fn a_terminal_is_given_back_after_a_signal_and_after_a_panic() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &jobs(1));
    daemon.start();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut terminal = watch(&daemon, 80, 24);
        terminal.wait_for("> job-00");
        terminal.signal(signal);
        assert_eq!(terminal.wait_exit().code(), Some(0), "{signal:?}");
        terminal.assert_given_back();
    }
    let mut terminal = watch(&daemon, 80, 24);
    terminal.wait_for("> job-00");
    terminal.keys("\u{3}");
    assert_eq!(terminal.wait_exit().code(), Some(0), "Ctrl-C");
    terminal.assert_given_back();

    daemon.env("WARREND_FAILPOINT", "watch-drawn:3:panic");
    let mut terminal = watch(&daemon, 80, 24);
    assert_eq!(terminal.wait_exit().code(), Some(101));
    terminal.assert_given_back();
    let written = terminal.written();
    let after = written.rsplit("\u{1b}[?1049l").next().unwrap_or_default();
    assert!(after.contains("the failpoint watch-drawn was told to panic"), "its message is to be read: {written}");
}

#[test]
fn dead_letters_are_looked_at_one_by_one() {
    let vhost = Vhost::new();
    // One after the other, so that they die in their order.
    let job = "[jobs.work]\nqueue = \"work\"\nconcurrency = 1\n[jobs.work.handler]\n\
               command = [\"sh\", \"-c\", 'echo \"no such order: $WARREND_KEY\" >&2; exit 65']\n";
    let mut daemon = Daemon::new(&vhost, job);
    daemon.start();
    let mut terminal = watch(&daemon, 80, 24);
    terminal.wait_for("> work");
    terminal.keys("d");
    terminal.wait_for("none: nothing failed for good");
    terminal.keys("\u{1b}");
    for n in 1..=3 {
        vhost.publish("work", format!("body {n}"), with_id(&format!("order-{n}")));
    }
    daemon.wait_until("they are dead", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(3));
    terminal.wait_for("3 dead letters: warrend dead list work");
    terminal.keys("d");
    let kinds = terminal.wait_for("3 letters in work.dead");
    assert!(kinds.contains("rejected") && kinds.contains("exit status 65: no such order: order-#"), "{kinds}");
    terminal.keys("\r");
    terminal.wait_for("order-1");
    terminal.keys("j");
    let entries = terminal.wait_for("warrend dead replay work --id order-2");
    assert!(entries.contains("> ") && entries.contains("order-3"), "{entries}");
    terminal.keys("\r");
    let letter = terminal.wait_for("order-2, number 2 of 3 dead letters");
    assert!(letter.contains("class       rejected") && letter.contains("first seen"), "{letter}");
    terminal.keys("\u{1b}[F");
    terminal.wait_until("the end is reached", |text| !text.contains("first seen"));
    terminal.keys("\u{1b}");
    terminal.wait_for("order-3");
    terminal.keys("\u{1b}");
    terminal.wait_for("letters of a kind");
    terminal.keys("\u{1b}");
    terminal.wait_for("> work");
    assert_eq!(vhost.ready("work.dead"), Some(3), "all of them are where they were");
}

#[test]
fn without_colour_or_a_terminal_it_is_as_good() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &jobs(2));
    daemon.start();
    daemon.env("NO_COLOR", "1");
    for arguments in [&["status"][..], &["status", "--watch"]] {
        let mut terminal = Terminal::start(&daemon.command_line(arguments), 80, 24);
        terminal.wait_for("job-01");
        assert!(!terminal.is_coloured(), "{}", terminal.text());
    }
    daemon.env_remove("NO_COLOR");
    daemon.env("TERM", "dumb");
    let mut terminal = watch(&daemon, 80, 50);
    terminal.wait_until("it is printed again", |text| text.matches("healthy, running").count() >= 2);
    assert!(!terminal.written().contains("\u{1b}[?1049h"), "a terminal that obeys nothing is told nothing");
}

#[test]
fn into_a_pipe_one_screen_follows_the_other() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &jobs(2));
    daemon.start();
    let text = daemon.run_for(&["status", "--watch", "--interval", LOOK], |text| text.matches("healthy").count() >= 3);
    assert!(!text.contains('\u{1b}') && text.matches("job-01").count() >= 2, "{text}");
    let lines = daemon.run_for(&["status", "--watch", "--json", "--interval", LOOK], |text| text.lines().count() >= 3);
    for line in lines.lines().take(2) {
        let status: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        assert_eq!((&status["schema"], &status["healthy"]), (&1.into(), &true.into()));
    }
    daemon.kill9();
    let text = daemon.run_for(&["status", "--watch", "--interval", LOOK], |text| text.lines().count() >= 4);
    assert!(text.contains("warrend is not running"), "{text}");
}
