//! Telling of an alert: a program that gets JSON on its stdin, or a POST of it. Both are run as handlers are.
//!
//! What comes back is what was answered, for people: `Ok` where it was taken.

use std::ffi::CString;
use std::time::Duration;

use super::Stop;
use super::command::pump::{Attended, Ending, Limits, Process, Run};
use super::process::spawn::Program;
use super::process::stream::Kept;
use super::process::{STOPPED, killed_by, with_stderr};
use crate::config;

pub use super::http::post;

/// Bytes of what a program prints that are kept as its answer.
const ANSWER: usize = 1024;

/// Runs a program with the notification on its stdin, and these variables in its environment.
///
/// Blocks for at most its timeout and a few seconds; returns early once `stop` is raised. Nothing of it lives afterwards.
pub fn run(
    config: &config::Command,
    variables: &[(&'static str, String)],
    body: &[u8],
    stop: &Stop,
) -> Result<String, String> {
    let program = Program::new(config, "command")?;
    // A variable cannot hold a NUL byte; nothing that is told of here has a meaning with one.
    let variables = variables.iter().map(|(name, value)| CString::new(format!("{name}={}", value.replace('\0', " "))));
    let variables: Result<Vec<_>, _> = variables.collect();
    let variables = variables.map_err(|error| error.to_string())?;
    let process = Process::start(&program, variables, true).map_err(|error| program.explain(&error))?;
    let limits = Limits { timeout: config.timeout, kill_grace: config.kill_grace };
    let run = Run::new(process, body, b"", limits, stop, None).keep_stdout(ANSWER);
    let attended = run.attend().map_err(|error| format!("lost track of `{}`: {error}", program.name))?;
    judge(attended, config.timeout)
}

fn judge(attended: Attended, timeout: Duration) -> Result<String, String> {
    let Attended { ending, stderr, kept } = attended;
    match ending {
        Ending::Exited(status) => match status.code() {
            Some(0) => Ok(match kept {
                Kept::All(said) => with_stderr("exit status 0", String::from_utf8_lossy(&said).trim()),
                Kept::Nothing | Kept::TooLong => "exit status 0".to_owned(),
            }),
            Some(code) => Err(with_stderr(&format!("exit status {code}"), &stderr)),
            None => Err(with_stderr(&killed_by(status), &stderr)),
        },
        Ending::Overran => Err(with_stderr(&format!("no end within {timeout:?}: it was killed"), &stderr)),
        Ending::Stopped => Err(STOPPED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;

    fn told(script: &str, timeout: Duration) -> Result<String, String> {
        let config = config::Command {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            timeout,
            kill_grace: Duration::from_millis(100),
            env: BTreeMap::new(),
            cwd: None,
        };
        let variables = [("WARREND_ALERT_TEXT", "it\0fires".to_owned())];
        run(&config, &variables, b"{\"event\":\"fired\"}\n", &Stop::new().unwrap())
    }

    #[test]
    fn a_program_is_told_and_answers() {
        let minute = Duration::from_secs(60);
        let check = |script: &str, expect: Result<&str, &str>| {
            let told = told(script, minute);
            assert_eq!(told.as_deref().map_err(String::as_str), expect, "{script}");
        };
        check("cat; echo \"$WARREND_ALERT_TEXT\"", Ok("exit status 0: {\"event\":\"fired\"}\nit fires"));
        check("exit 0", Ok("exit status 0"));
        check("seq 1000", Ok("exit status 0"));
        check("echo no route >&2; exit 3", Err("exit status 3: no route"));
        check("kill -TERM $$", Err("killed by SIGTERM (signal 15)"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let began = Instant::now();
        let script = format!("sleep 1000 & echo $! >{}; trap '' TERM; while :; do sleep 1000; done", pid.display());
        let error = told(&script, Duration::from_secs(1)).unwrap_err();
        assert!(error.starts_with("no end within 1s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
        let child = std::fs::read_to_string(&pid).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "it lives: {stat}");
    }

    #[test]
    fn a_program_that_is_missing_is_explained() {
        let config = config::Command {
            argv: vec!["/no/such/program".to_owned()],
            timeout: Duration::from_secs(1),
            kill_grace: Duration::ZERO,
            env: BTreeMap::new(),
            cwd: None,
        };
        let error = run(&config, &[], b"", &Stop::new().unwrap()).unwrap_err();
        assert!(error.contains("no such file"), "{error}");
    }
}
