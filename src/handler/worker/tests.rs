//! Real processes, most of them in Python, run as the daemon runs them.

mod abuse;
mod daemon;
mod ends;
mod examples;
mod fuzz;
mod speaks;

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::handler::command::tests::{LONG, context, lives, log_to_stderr, task, wait_until};
use crate::task::Task;

/// What most of the Python workers of these tests begin with.
const PRELUDE: &str = r#"
import json, os, sys, time, signal
requests, answers = open(3, "rb"), open(4, "wb", buffering=0)
def say(value): answers.write(json.dumps(value).encode() + b"\n")
def results(request, *given, **other): say({"id": request["id"], "results": list(given), **other})
def done(request): results(request, *[{"status": "done"} for _ in request["tasks"]])
def hear(): return json.loads(requests.readline())
def note(name, text=""): open(sys.argv[1] + "/" + name, "a").write(str(text) + "\n")
done_, retry = {"status": "done"}, {"status": "retry"}
"#;
/// The hello, and then each request is done.
const HELLO: &str = "\nnote('pids', os.getpid())\nsay({'warrend': 1})\n";
const ALL_DONE: &str = "\nfor line in requests: done(json.loads(line))\n";

/// A configuration under construction, and a folder for what the process leaves.
struct Setup {
    config: config::Worker,
    context: Context,
    folder: tempfile::TempDir,
    hello_limit: Duration,
}

impl Setup {
    fn argv<const N: usize>(argv: [&str; N]) -> Self {
        let program = config::Command {
            argv: argv.map(str::to_owned).into(),
            timeout: LONG,
            kill_grace: LONG,
            env: std::collections::BTreeMap::new(),
            cwd: None,
        };
        let config = config::Worker {
            program,
            batch: 50,
            linger: Duration::ZERO,
            max_tasks: None,
            max_memory: None,
            max_age: None,
        };
        Self { config, context: context(), folder: tempfile::tempdir().unwrap(), hello_limit: LONG }
    }

    /// A Python script that finds its folder in `sys.argv[1]`, and its hello is still to be said.
    fn silent(script: &str) -> Self {
        let mut setup = Self::argv(["python3", "-S", "-c", &format!("{PRELUDE}{script}")]);
        let folder = setup.folder.path().to_str().unwrap().to_owned();
        setup.config.program.argv.push(folder);
        setup
    }

    /// The same, with its hello.
    fn python(script: &str) -> Self {
        Self::silent(&format!("{HELLO}{script}"))
    }

    fn limits(mut self, timeout_ms: u64, kill_grace_ms: u64) -> Self {
        self.config.program.timeout = Duration::from_millis(timeout_ms);
        self.config.program.kill_grace = Duration::from_millis(kill_grace_ms);
        self
    }

    fn handler(&self) -> WorkerHandler {
        let context = Context {
            job: self.context.job.clone(),
            queues: self.context.queues.clone(),
            max_attempts: self.context.max_attempts,
            max_body: self.context.max_body,
            reply: self.context.reply,
        };
        let mut handler = WorkerHandler::new(&self.config, Arc::new(context));
        handler.hello_limit = self.hello_limit;
        handler
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn pids(&self) -> Vec<u32> {
        self.read("pids").lines().map(|line| line.parse().unwrap()).collect()
    }
}

fn tasks(count: usize) -> Vec<Task> {
    (0..count).map(|n| task(format!("body {n}").as_bytes())).collect()
}

fn inputs(tasks: &[Task]) -> Vec<Input<'_>> {
    tasks.iter().map(|task| Input { task, body: (&*task.message.body).into() }).collect()
}

/// Runs so many tasks in one batch.
fn run(handler: &mut WorkerHandler, count: usize) -> Vec<Answer> {
    run_until(handler, count, &Stop::new().unwrap())
}

fn run_until(handler: &mut WorkerHandler, count: usize, stop: &Stop) -> Vec<Answer> {
    let tasks = tasks(count);
    let answers = handler.run(&inputs(&tasks), stop);
    assert_eq!(answers.len(), count);
    answers
}

/// One word for each answer: `done`, `failed`, `crashed`, `timeout`, `rejected`, `broken`, `back`.
fn words(answers: &[Answer]) -> Vec<&'static str> {
    let word = |answer: &Answer| match &answer.outcome {
        Outcome::Done => "done",
        Outcome::Retry(failure) => failure.class.as_str(),
        Outcome::Dead(failure) => failure.class.as_str(),
        Outcome::Broken(_) => "broken",
        Outcome::Interrupted(_) | Outcome::NotBegun => "back",
    };
    answers.iter().map(word).collect()
}

/// What an answer says to people.
fn text(answer: &Answer) -> &str {
    match &answer.outcome {
        Outcome::Done => "",
        Outcome::Retry(failure) | Outcome::Dead(failure) => &failure.error,
        Outcome::Broken(reason) => reason,
        Outcome::Interrupted(why) => why,
        Outcome::NotBegun => "not begun",
    }
}
