//! The words of warrend(1) that stand nowhere else. Backticks are bold.

use crate::cli::Exit;

/// What it is.
pub const DESCRIPTION: [&str; 3] = [
    "`warrend` is a task-worker daemon for RabbitMQ. It consumes prioritized work queues, runs a program for each message, \
     records in SQLite what it did before it acknowledges, retries with growing delays, sends what fails for good to a \
     dead-letter queue, and says how it is in `warrend status`.",
    "Nothing is lost: a message is acknowledged after its record is on the disk, and a failed one after the broker has \
     confirmed its copy. A recorded success never runs again, neither after a crash nor when a publisher sends the message a \
     second time. Only a message whose handler was running when the daemon died can run twice, so handlers get a key that \
     stays the same over all attempts.",
    "What is consumed and what runs stands in the configuration: see `warrend.toml`(5). `warrend check` judges it, `warrend \
     run` is the daemon; most other commands ask the daemon that runs, or the broker.",
];

/// What a program is given.
pub const HANDLERS: [&str; 2] = [
    "A handler of the kind `command` is a program that is run once for each message. The body is its standard input, and \
     file descriptor 3 is a JSON object with all properties and headers. Neither ever becomes part of its arguments, and \
     there is no shell. What it writes to standard error, the last 1 KiB of it, is the error text of a failed attempt. The other \
     kinds are explained in `warrend.toml`(5).",
    "Its exit status says what becomes of the message:",
];

/// What its exit status means.
pub const HANDLER_EXITS: [(&str, &str); 6] = [
    ("0", "Done: this key never runs again."),
    ("65", "To the dead-letter queue now."),
    (
        "75, and any other",
        "Tried again with growing delays, at most `retry.max_attempts` times; then to the dead-letter queue.",
    ),
    (
        "78",
        "The handler is broken, not the message: the job pauses, the message goes back to its queue, a probe follows.",
    ),
    ("a signal", "A crash: tried again, at most `retry.max_crashes` times."),
    ("over its timeout", "TERM, then KILL, to everything that it started; counts as a failed attempt."),
];

/// Between the two.
pub const HANDLER_ENVIRONMENT_HEAD: &str =
    "Its environment is PATH, HOME, LANG and TZ, what `env` adds, and these; those that the message lacks are absent:";

/// What tells it about its message.
pub const HANDLER_ENVIRONMENT: [(&str, &str); 15] = [
    ("WARREND_JOB", "The job."),
    ("WARREND_QUEUE", "The queue that the message was in."),
    ("WARREND_KEY", "The idempotency key: the same for every attempt. Pass it on to what the handler changes."),
    ("WARREND_ATTEMPT", "Which attempt this is, from 1."),
    ("WARREND_MAX_ATTEMPTS", "How many there are before the message is dead."),
    ("WARREND_REDELIVERED", "1 where the broker has delivered the message before, else 0."),
    ("WARREND_MESSAGE_ID", "The property message_id."),
    ("WARREND_PRIORITY", "The priority; 0 where it has none."),
    ("WARREND_EXCHANGE", "The exchange that it was published to; empty for the default one."),
    ("WARREND_ROUTING_KEY", "The routing key that it was published with."),
    ("WARREND_CONTENT_TYPE", "The property content_type."),
    ("WARREND_CORRELATION_ID", "The property correlation_id."),
    ("WARREND_REPLY_TO", "Where its publisher waits for an answer."),
    ("WARREND_TIMESTAMP", "The property timestamp, in seconds since 1970."),
    ("TRACEPARENT", "The header traceparent."),
];

/// What an exit status of `warrend` itself means.
pub fn exit(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "Done. `status`: all is well.",
        Exit::Failed => "Something failed while it ran. `status`: the daemon is up, and something is wrong.",
        Exit::Usage => "The command line asks for what cannot be.",
        Exit::NotRunning => "No daemon answers on the control socket.",
        Exit::NoBroker => "The broker cannot be reached, or refuses; the daemon itself waits for it instead.",
        Exit::Internal => "A bug in warrend.",
        Exit::Store => "The store cannot be read or written.",
        Exit::Locked => "Another daemon holds the store or the control socket.",
        Exit::Config => "The configuration is faulty; every fault has been printed with its place.",
    }
}

/// On the pages of single commands.
pub const EXIT_ELSEWHERE: &str = "0 when done; the others are listed in `warrend`(1).";

/// What `warrend` reads of its environment.
pub const ENVIRONMENT: [(&str, &str); 5] = [
    ("WARREND_CONFIG", "The configuration, where `--config` does not name it."),
    (
        "RUST_LOG",
        "What the daemon logs, in place of `log.level`: `error`, `warn`, `info` or `debug`, which adds what handlers print; or, by \
         its parts, `warrend::handler=debug,info`.",
    ),
    ("NO_COLOR", "Set to anything, output has no colour; on what is no terminal it never has."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "Set by systemd: where the daemon says that it is ready, and that it lives."),
    (
        "JOURNAL_STREAM",
        "Set by systemd: where it names the standard error, log lines have the journal's priorities, and no time of their own.",
    ),
];

/// Where things are.
pub const FILES: [(&str, &str); 5] = [
    ("/etc/warrend/warrend.toml", "The configuration: see `warrend.toml`(5)."),
    ("/etc/warrend/jobs.d/*.toml", "Jobs in files of their own."),
    ("/etc/warrend/amqp-password", "The broker's password, for root alone; systemd hands it to the daemon."),
    (
        "/var/lib/warrend/warrend.db",
        "The store: what was done. Beside it lie the files that `warrend dead purge` writes.",
    ),
    ("/run/warrend/warrend.sock", "The control socket: its owner and its group may steer the daemon."),
];

/// What the daemon does on a signal.
pub const SIGNALS: [(&str, &str); 3] = [
    (
        "SIGTERM, SIGINT",
        "Stops: nothing more is taken, what waits goes back to its queue, running handlers may finish within \
         `shutdown.timeout`, and end then. What they did is recorded.",
    ),
    ("the same again", "Running handlers are ended now."),
    (
        "SIGHUP",
        "Reads the configuration anew, as `warrend reload` does; what is wrong with it is in the log. For a daemon that was \
         started in a terminal, the end of that terminal is a SIGTERM.",
    ),
];

/// How it is run.
pub const SYSTEMD: [&str; 5] = [
    "The unit is `warrend.service`; several daemons on one machine are instances of `warrend@.service`, each with a \
     configuration of its own in /etc/warrend/NAME/warrend.toml. After a failure they are started again, but not where the \
     configuration is at fault (78).",
    "`systemctl reload warrend` is `warrend reload`: a faulty configuration fails it and changes nothing. It expands ${NAME} in \
     the environment that the daemon was started with: a change of the unit takes a restart.",
    "Handlers run inside of the unit's bounds: the file system is read-only but for /var/lib/warrend and /tmp, home folders \
     are not there, and nothing gains privileges. Languages that compile while they run (Java, Node.js, .NET, LuaJIT) are \
     killed by MemoryDenyWriteExecute=. Drop-ins that loosen single bounds are in /usr/share/doc/warrend/examples/systemd: \
     `jit.conf`, `paths.conf`, `network.conf`, `resources.conf`, and `account.conf` to run as the user of an application.",
    "With a longer `shutdown.timeout` raise TimeoutStopSec= of the unit too.",
    "The daemon logs to standard error, so to the journal: `journalctl -u warrend`.",
];

/// What is typed.
pub const EXAMPLES: [(&str, &str); 4] = [
    (
        "A first job, in /etc/warrend/jobs.d/hello.toml:",
        "[jobs.hello]\nqueue = \"hello\"\n[jobs.hello.handler]\ncommand = [\"/usr/bin/wc\", \"-c\"]",
    ),
    (
        "Check it, start the daemon, send a message, and see what became of it:",
        "warrend check\nsystemctl enable --now warrend\necho hello | warrend publish hello --id first -\nwarrend explain first",
    ),
    (
        "See what died of what, and bring back what timed out, slowly:",
        "warrend dead list mail\nwarrend dead replay mail --class timeout --rate 50/s",
    ),
    (
        "Stop a job while a service behind it is down:",
        "warrend pause mail --reason \"SMTP is down\"\nwarrend resume mail",
    ),
];
