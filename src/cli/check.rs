//! `warrend check`: judges the configuration and says what it would run, without a broker.

use std::io::{self, Write};
use std::path::Path;

use crate::config::{self, Handler, Job, Loaded, Report};

/// Exit code for a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: i32 = 78;

/// How the findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour where the terminal takes it.
    Text {
        /// Whether errors are coloured.
        color: bool,
    },
    /// For programs: see [`Report::to_json`].
    Json,
}

/// Judges the configuration at `path` and gives the exit code: 0 or [`EXIT_CONFIG`].
///
/// As text, a summary goes to `out` and every finding to `err`; as JSON, the array of findings goes to `out`, and an
/// empty one means that all is well. Fails only where `out` or `err` cannot be written.
pub fn check(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    format: Format,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<i32> {
    let result = config::load(path, env);
    let report = match &result {
        Ok(loaded) => &loaded.warnings,
        Err(report) => report,
    };
    match format {
        Format::Json => writeln!(out, "{:#}", report.to_json())?,
        Format::Text { color } => {
            write!(err, "{}", report.render(color))?;
            match &result {
                Ok(loaded) => summary(loaded, out)?,
                Err(report) => writeln!(err, "\n{}", verdict(report))?,
            }
        }
    }
    Ok(if result.is_ok() { 0 } else { EXIT_CONFIG })
}

/// The last line after errors.
fn verdict(report: &Report) -> String {
    let errors = report.errors();
    let plural = if errors == 1 { "" } else { "s" };
    format!("the configuration has {errors} error{plural}")
}

fn summary(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let jobs = &loaded.config.jobs;
    let queues: usize = jobs.iter().map(|job| job.queues.len()).sum();
    writeln!(
        out,
        "ok: {}, {}, {}",
        count(loaded.files.len(), "file"),
        count(jobs.len(), "job"),
        count(queues, "queue")
    )?;
    for file in &loaded.files {
        writeln!(out, "  file {}", file.display())?;
    }
    for job in jobs {
        writeln!(out, "  job {}", describe(job))?;
    }
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// One line about a job.
fn describe(job: &Job) -> String {
    let disabled = if job.enabled { "" } else { " (disabled)" };
    let handler = match &job.handler {
        // Arguments stay out: they may hold secrets.
        Handler::Command(command) => command.argv.first().map_or("", String::as_str),
        Handler::Discard => "discard",
    };
    let queues: Vec<&str> = job.queues.iter().map(|queue| &*queue.name).collect();
    format!(
        "{}{disabled}: {} -> {handler}, concurrency {}, prefetch {}, dead letters to {}",
        job.name,
        queues.join(", "),
        job.concurrency,
        job.prefetch,
        job.dead_letter.queue,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the check on a file of this text; gives exit code, standard output and standard error, with the folder of the
    /// file cut out of both.
    fn run(text: &str, format: Format) -> (i32, String, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("warrend.toml");
        std::fs::write(&path, text).expect("a writable temporary folder");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(&path, &|_| None, format, &mut out, &mut err).expect("memory takes all");
        let text = |bytes| {
            let text = String::from_utf8(bytes).expect("UTF-8");
            text.replace(&format!("{}/", folder.path().display()), "")
        };
        (code, text(out), text(err))
    }

    const PLAIN: Format = Format::Text { color: false };

    #[test]
    fn a_good_file_is_summed_up() {
        let text = "
[broker]
urls = [\"amqp://127.0.0.1\"]
[jobs.thumbnails]
queues = [{ name = \"urgent\" }, { name = \"rest\" }]
handler.command = [\"/bin/thumb\", \"--key\", \"secret\"]
[jobs.audit]
queue = \"audit\"
enabled = false
handler.discard = true
";
        let expect = "\
ok: 1 file, 2 jobs, 3 queues
  file warrend.toml
  job audit (disabled): audit -> discard, concurrency 4, prefetch 200, dead letters to audit.dead
  job thumbnails: urgent, rest -> /bin/thumb, concurrency 4, prefetch 8, dead letters to thumbnails.dead
";
        assert_eq!(run(text, PLAIN), (0, expect.to_owned(), String::new()));
        assert_eq!(run(text, Format::Json), (0, "[]\n".to_owned(), String::new()));
    }

    #[test]
    fn a_warning_leaves_the_exit_code() {
        let text = "
[broker]
urls = [\"amqp://127.0.0.1\"]
[jobs.a]
queue = \"a\"
handler.command = [\"a\"]
handler.timeout = \"30m\"
";
        let (code, out, err) = run(text, PLAIN);
        assert_eq!(code, 0);
        assert!(out.starts_with("ok: 1 file, 1 job, 1 queue\n"), "{out}");
        assert!(err.starts_with("warning: this handler may run longer"), "{err}");
        let (code, out, err) = run(text, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(
            (code, json[0]["level"].as_str(), json[0]["line"].as_u64(), &*err),
            (0, Some("warning"), Some(7), "")
        );
    }

    #[test]
    fn errors_go_to_standard_error_and_end_with_78() {
        let text = "
[broker]
urls = [\"amqp://127.0.0.1\"]
[jobs.a]
queue = \"a\"
concurency = 4
handler.discard = true
";
        let expect = "\
error: unknown key `concurency`
 --> warrend.toml:6:1
  |
6 | concurency = 4
  | ^^^^^^^^^^
  |
  = help: did you mean `concurrency`?

the configuration has 1 error
";
        assert_eq!(run(text, PLAIN), (78, String::new(), expect.to_owned()));
        let (code, out, err) = run(text, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let expect = serde_json::json!([{
            "level": "error", "file": json[0]["file"], "line": 6, "column": 1,
            "message": "unknown key `concurency`", "help": "did you mean `concurrency`?",
        }]);
        assert_eq!((code, json, &*err), (78, expect, ""));
    }

    #[test]
    fn a_missing_file_is_named() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let path = Path::new("/nowhere/warrend.toml");
        let code = check(path, &|_| None, PLAIN, &mut out, &mut err).expect("memory takes all");
        let err = String::from_utf8(err).expect("UTF-8");
        assert_eq!(code, 78);
        assert!(err.contains("cannot read this file: No such file") && err.contains("/nowhere/warrend.toml"), "{err}");
    }
}
