//! Faulty files, and what is said about them.
//!
//! A row of a table is a snippet and what is expected of it, each expectation after ` => `: `line:column`, and a part of
//! the message or its mend. `\n` in a snippet is a line break. Nothing else may be found in it.

mod handlers;

use super::*;

/// Of `[broker]`; the first line of the file.
const BROKER: &str = r##"
heartbeat = "15s" => 1:2 there are no broker URLs
urls = "amqp://h" => 2:8 `urls` must be an array, not a string
urls = [] => 2:8 give at least one URL
urls = [5672] => 2:9 an entry of `urls` must be a string, not an integer
urls = ["amqp://[::1]", "http://h"] => 2:25 this is no AMQP URL
urls = ["amqps://h/a", "amqps://h/b"] => 2:24 names another virtual host than the first
urls = ["amqp://[::1]"]\nheartbeat = 15 => 3:13 write "15s"
urls = ["amqp://[::1]"]\nheartbeat = "1500ms" => 3:13 "0s" to "65535s", in whole seconds
urls = ["amqp://[::1]"]\nheartbeat = "65536s" => 3:13 in whole seconds
urls = ["amqp://[::1]"]\nconnect_timeout = "0s" => 3:19 allowed: "1ms" to "36500d"
urls = ["amqp://[::1]"]\nreconnect = "1s" => 3:13 allowed keys: initial, max
urls = ["amqp://[::1]"]\nreconnect = { initial = "0s" } => 3:25 cannot be that duration
urls = ["amqp://[::1]"]\nreconnect = { initial = "31s" } => 3:25 `max` is below `initial`
urls = ["amqp://[::1]"]\nreconnect = { max = "499ms" } => 3:21 `initial` is "500ms"
urls = ["amqp://[::1]"]\nreconnect = { factor = 2 } => 3:15 allowed in [broker.reconnect]: initial, max
urls = ["amqp://[::1]"]\npassword_file = "" => 3:17 `password_file` is empty
urls = ["amqp://[::1]"]\npassword = "hunter2" => 3:1 did you mean `password_file`?
urls = ["amqp://h"] => 2:9 cross the network unencrypted
urls = ["amqp://localhost", "amqp://10.0.0.1"] => 2:29 cross the network unencrypted
urls = ["amqps://h", "amqp://i", "amqp://localhost"] => 2:22 this URL is not encrypted, another one is
urls = ["amqps://a..b"] => 2:9 the host of this URL cannot stand in a certificate
urls = ["amqp://[::1]"]\n[broker.tls]\nca_file = "x" => 4:1 `ca_file` has no effect without an amqps:// URL
urls = ["amqps://h"]\n[broker.tls]\nauth = true => 4:8 `auth` must be a string, not a boolean
urls = ["amqps://h"]\n[broker.tls]\nca_file = "" => 4:11 `ca_file` is empty
urls = ["amqps://h"]\n[broker.tls]\ncafile = "x" => 4:1 did you mean `ca_file`?
urls = ["amqps://h"]\n[broker.tls]\nverify = false => 4:1 allowed in [broker.tls]: ca_file, cert_file, key_file, auth
urls = ["amqps://h"]\ntls = true => 3:7 `tls` must be a table, not a boolean
urls = ["amqps://h"]\n[broker.tls]\ncert_file = "x" => 4:13 `cert_file` without `key_file`
urls = ["amqps://h"]\n[broker.tls]\nkey_file = "x" => 4:12 `key_file` without `cert_file`
urls = ["amqps://h"]\n[broker.tls]\nauth = "externl" => 4:8 did you mean "external"?
urls = ["amqps://h"]\n[broker.tls]\nauth = "external" => 4:8 auth = "external" without a certificate
urls = ["amqps://bob:hunter2@h"]\n[broker.tls]\nauth = "external"\ncert_file = "x"\nkey_file = "y" => 2:9 this URL has a user, and so has the certificate
urls = ["amqps://h", "amqp://[::1]"]\n[broker.tls]\nauth = "external"\ncert_file = "x"\nkey_file = "y" => 2:22 takes an amqps:// URL
urls = ["amqps://h"]\npassword_file = "p"\n[broker.tls]\nauth = "external"\ncert_file = "x"\nkey_file = "y" => 3:17 `password_file` has no effect
"##;

/// Of the other tables beside the jobs.
const GENERAL: &str = r##"
[store]\nsynchronous = "ful" => 2:15 did you mean "full"? allowed: "full", "normal"
[store]\nsynchronous = "off" => 2:15 allowed: "full", "normal"
[store]\nsynchronous = true => 2:15 `synchronous` must be a string, not a boolean
[store]\nretention = "0d" => 2:13 cannot be that duration
[store]\npath = "a\u0000b" => 2:8 NUL
[store]\npath = 2020-01-01 => 2:8 must be a string, not a datetime
store = 3 => 1:9 `store` must be a table, not an integer
[store]\ntimeout = "5s" => 2:1 belongs in [shutdown] or [[alerts]] or [jobs.NAME.handler]
[shutdown]\ntimeout = "25 s" => 2:11 did you mean "25s"?
[log]\nformat = "jsn" => 2:10 did you mean "json"? allowed: "text", "logfmt", "json"
[log]\nlevel = "loud" => 2:9 allowed: "error", "warn", "info", "debug"
[log]\nfile = "/var/log/warrend" => 2:1 allowed in [log]: format, level
[control]\nsockett = "x" => 2:1 did you mean `socket`?
[http]\nlisten = "localhost:9419" => 2:10 write an IP address and a port: "127.0.0.1:9419"
[http]\nlisten = "127.0.0.1" => 2:10 "127.0.0.1" is no address to listen on
[http]\nlisten = "127.0.0.1:0" => 2:10 `listen` has no port
[http]\nlisten = "[::1]:94190" => 2:10 "[::1]:94190" is no address to listen on
[http]\nlisten = 9419 => 2:10 `listen` must be a string, not an integer
[http]\nport = 9419 => 2:1 allowed in [http]: listen
[http]\nlisten = "0.0.0.0:9419" => 2:10 open to whoever reaches this address
[http]\nlisten = "[::]:9419" => 2:10 listen on 127.0.0.1 or [::1]
"##;

/// Of an alert; the snippet begins on line 2, below `[[alerts]]`.
const ALERT: &str = r##"
name = "a" => 1:1 this alert has no `when`
when = 5 => 2:8 `when` must be a string, not an integer
when = "" => 2:9 names no quantity
when = "redy > 5" => 2:9 did you mean `ready`?
when = "ready >= 5" => 2:15 compares with < or > alone
when = "ready > 1k" => 2:17 compared with a whole number
when = 'ready' => 2:9 compared with nothing
when = "rate > 100" => 2:16 "100/s", "100/m" or "100/h"
when = "oldest_wait > 5 min" => 2:23 did you mean "5m"?
when = "disk_free < 1GB!" => 2:21 compared with a size
when = "stalled > 1" => 2:17 so or not
when = "re\u0061dy > 1k" => 2:8 compared with a whole number
when = "ready > ${NAME}" => 2:8 compared with a whole number
when = "paused"\njobs = "al" => 3:8 did you mean "all"?
when = "paused"\njobs = [] => 3:8 `jobs` is empty
when = "paused"\njobs = ["i"] => 3:9 there are: j
when = "paused"\njobs = [5] => 3:9 an entry of `jobs` must be a string
when = "paused"\njobs = 5 => 3:8 "all", or a list
when = "blocked"\njobs = ["j"] => 3:8 of the whole daemon
when = "paused"\nname = "" => 3:8 `name` is empty
when = "paused"\nname = "a\tb" => 3:8 cannot be the name
when = "paused"\n[[alerts]]\nwhen = "paused" => 4:8 two alerts are called `paused`
when = "paused"\nwindow = "5m" => 3:10 `window` has no effect
when = "rate < 1/m"\nwindow = "9s" => 3:10 allowed: "10s" to "1d"
when = "paused"\nfor = 5 => 3:7 write "5s"
when = "paused"\nfor = "5 minutes" => 3:7 did you mean "5m"?
when = "paused"\nclear = "5m" => 3:1 did you mean `clear_for`?
when = "paused"\nclear_for = "" => 3:13 `clear_for` is not a duration
when = "paused"\nrepeat = "59s" => 3:10 allowed: "1m" to "365d"
when = "paused"\nseverity = "crit" => 3:12 allowed: "info", "warning", "critical"
when = "paused"\ncommand = "mail root" => 3:11 write ["mail", "root"]
when = "paused"\ncommand = [] => 3:11 `command` is empty
when = "paused"\ntimeout = "2m" => 3:11 allowed: "1s" to "1m"
when = "paused"\nwebhook = "example.org" => 3:11 this is no URL
when = "paused"\nwebhook = "http://example.org" => 3:11 what this alert tells would cross the network unencrypted
when = "paused"\nsecret_file = "x" => 3:1 `secret_file` without `webhook`
when = "paused"\nheaders = { A = "b" } => 3:1 `headers` without `webhook`
when = "paused"\nurl = "https://h/" => 3:1 unknown key `url`
when = "ready > x"\nfor = "soon"\ncommand = "a" => 2:17 a whole number => 3:7 not a duration => 4:11 write ["a"]
"##;

/// Of a job; the snippet begins on line 2 and stands between `[jobs.j]` and its handler.
const JOB: &str = r##"
enabled = true => 1:7 this job has no queue
queue = "q"\nqueues = [{ name = "r" }] => 3:1 both `queue` and `queues`
queue = ["q"] => 2:9 `queue` must be a string, not an array
queue = "" => 2:9 a queue needs a name
queue = "amq.x" => 2:9 RabbitMQ keeps these names
queue = "warrend.delay.07" => 2:9 delay ladder
queue = "a.*.b" => 2:9 a word of this queue's name is `*` or `#`
queue = "#" => 2:9 a word of this queue's name is `*` or `#`
queue = "j.dead" => 1:7 one of its work queues
queue = "q"\nconcurrency = 0 => 3:15 allowed: 1 to 1024
queue = "q"\nconcurrency = 1025 => 3:15 allowed: 1 to 1024
queue = "q"\nconcurrency = 99999999999999999999 => 3:15 allowed: 1 to 1024
queue = "q"\nconcurrency = 4.0 => 3:15 must be an integer, not a float
queue = "q"\nconcurrency = "${NAME}" => 3:15 only strings can come from the environment
queue = "q"\nprefetch = 0 => 3:12 to RabbitMQ 0 is no limit
queue = "q"\nprefetch = -1 => 3:12 allowed: 1 to 65535
queue = "q"\nprefetch = 65536 => 3:12 allowed: 1 to 65535
queue = "q"\nprefetch = 3 => 3:12 at most 3 of 4 handlers
queue = "q"\nprefetch = 4.0 => 3:12 must be an integer, not a float
queue = "q"\nprefetch = "8" => 3:12 a number from 1 to 65535 without quotes
queue = "q"\nprefetch = "Auto" => 3:12 did you mean "auto"?
queue = "q"\nprefetch = "auto" => 3:12 no workers to keep busy
queue = "q"\nreply = 1 => 3:9 allowed: true, false
queue = "q"\nreply = true => 3:9 nothing to reply with
queue = "q"\nbatch = 5 => 3:1 belongs in [jobs.NAME.handler] or [jobs.NAME.ack]
queue = "q"\norder = "Strict!" => 3:9 did you mean "strict"?
queue = "q"\nmax_body = 1024 => 3:12 write "1024B"
queue = "q"\nmax_body = "0B" => 3:12 must not be zero
queue = "q"\nmax_body = "16MB!" => 3:12 `max_body` is not a size
queue = "q"\nenabled = "yes" => 3:11 allowed: true, false
queue = "q"\ntimeout = "5s" => 3:1 `timeout` belongs in [jobs.NAME.handler]
queue = "q"\nin_doubt = "maybe" => 3:12 `in_doubt` cannot be "maybe"
queue = "q"\nack.batch = 0 => 3:13 allowed: 1 to 65535
queue = "q"\nack.interval = "11s" => 3:16 allowed: "0s" to "10s"
queue = "q"\nack.flush = "1s" => 3:5 allowed in [jobs.NAME.ack]: batch, interval
queue = "q"\nack.linger = "1s" => 3:5 `linger` belongs in [jobs.NAME.handler]
queue = "q"\nidempotency.key = "message-id" => 3:19 did you mean "message_id"?
queue = "q"\nidempotency.key = "header:" => 3:19 write "header:NAME"
queue = "q"\nidempotency.key = "json:order" => 3:19 a JSON pointer begins with `/`
queue = "q"\nidempotency.key = "json:/a~b" => 3:19 `~` of this JSON pointer
queue = "q"\nidempotency.on_missing = "skip" => 3:26 "run", "dead", "body"
queue = "q"\nidempotency = { key = "none", on_missing = "run" } => 3:44 no effect
queue = "q"\nidempotency = { key = "none", retention = "1d" } => 3:43 no effect
queue = "q"\nretry.max_attempts = 0 => 3:22 allowed: 1 to 4294967295
queue = "q"\nretry.initial = "500ms" => 3:17 allowed: "1s" to "12d", in whole seconds
queue = "q"\nretry.initial = "1500ms" => 3:17 in whole seconds
queue = "q"\nretry.max = "13d" => 3:13 allowed: "1s" to "12d"
queue = "q"\nretry = { initial = "2h", max = "1h" } => 3:33 `max` is below `initial`
queue = "q"\nretry.multiplier = 0.5 => 3:20 allowed: 1.0 to 1000.0
queue = "q"\nretry.multiplier = nan => 3:20 out of range
queue = "q"\nretry.multiplier = inf => 3:20 out of range
queue = "q"\nretry.multiplier = "3" => 3:20 must be a number, not a string
queue = "q"\nretry.jitter = 1.5 => 3:16 allowed: 0.0 to 1.0
queue = "q"\nretry.max_crashes = 0 => 3:21 out of range
queue = "q"\nretry.prefetch = 3 => 3:7 `prefetch` belongs in [jobs.NAME]
queue = "q"\nkill_switch = true => 3:15 allowed keys: ratio, min_samples, window, restart_after
queue = "q"\nkill_switch = {} => 3:1 no effect
queue = "q"\nkill_switch.ratio = 0 => 3:1 no effect => 3:21 allowed: 0.01 to 1.0
queue = "q"\nkill_switch.ratio = 1.1 => 3:1 no effect => 3:21 allowed: 0.01 to 1.0
queue = "q"\nkill_switch.min_samples = 0 => 3:1 no effect => 3:27 allowed: 1 to 4294967295
queue = "q"\nkill_switch.window = "999ms" => 3:1 no effect => 3:22 allowed: "1s" to "1h"
queue = "q"\nkill_switch.window = 60 => 3:1 no effect => 3:22 write "60s"
queue = "q"\nkill_switch.restart_after = "2h" => 3:1 no effect => 3:29 allowed: "1s" to "1h"
queue = "q"\nkill_switch.restart = "1s" => 3:1 no effect => 3:13 did you mean `restart_after`?
queue = "q"\nkill_switch.max_crashes = 1 => 3:1 no effect => 3:13 belongs in [jobs.NAME.retry]
queue = "q"\ndead_letter.message_ttl = "15d" => 3:27 forgotten after 14d, its dead letters are kept for 15d
queue = "q"\nidempotency.retention = "1d"\ndead_letter.message_ttl = "25h" => 3:25 forgotten after 1d
queue = "q"\ndead_letter.queue = "q" => 3:21 one of its work queues
queue = "q"\ndead_letter.queue = "amq.q" => 3:21 RabbitMQ keeps these names
queue = "q"\ndead_letter.message_ttl = "0s" => 3:27 allowed: "1ms" to "3650d"
"##;

/// Of a queue; the snippet begins on line 3, below `[[jobs.j.queues]]`.
const QUEUE: &str = r##"
weight = 1 => 2:1 this queue has no name
name = 1 => 3:8 `name` must be a string, not an integer
name = "q"\nweight = 0 => 4:10 allowed: 1 to 1000
name = "q"\ndeclare = "exclusive" => 4:11 allowed: "create", "passive"
name = "q"\ntype = "quorom" => 4:8 did you mean "quorum"?
name = "q"\nmax_priority = 0 => 4:16 allowed: 1 to 255
name = "q"\nmax_priority = 256 => 4:16 allowed: 1 to 255
name = "q"\ntype = "quorum"\nmax_priority = 5 => 5:16 a quorum queue has no `max_priority`
name = "q"\nmessage_ttl = 3600 => 4:15 write "3600s"
name = "q"\nmessage_ttl = "3651d" => 4:15 allowed: "1ms" to "3650d"
name = "q"\nexpires = "0s" => 4:11 allowed: "1ms" to "3650d"
name = "q"\nmax_length = 0 => 4:14 allowed: 1 or more
name = "q"\nmax_lenght = 5 => 4:1 did you mean `max_length`?
name = "q"\narguments = 5 => 4:13 `arguments` must be a table
name = "q"\narguments = { x-max-priority = 5 } => 4:15 write the key `max_priority`
name = "q"\narguments = { x-queue-type = "quorum" } => 4:15 write the key `type`
name = "q"\narguments = { overflow = "reject-publish" } => 4:15 begins with `x-`
name = "q"\narguments = { x-when = 2020-01-01 } => 4:24 must be what RabbitMQ takes, not a datetime
name = "q"\nbindings = { exchange = "e" } => 4:12 must be an array
name = "q"\nbindings = [ { type = "topic" } ] => 4:14 this binding has no `exchange`
name = "q"\nbindings = [ { exchange = "e" } ] => 4:14 this binding has no `type`
name = "q"\nbindings = [ { exchange = "", type = "topic" } ] => 4:27 `exchange` is empty
name = "q"\nbindings = [ { exchange = "e", type = "topik" } ] => 4:39 did you mean "topic"?
name = "q"\nbindings = [ { exchange = "e", type = "topic", key = "k" } ] => 4:48 unknown key `key`
name = "q"\n[[jobs.j.queues]]\nname = "q" => 5:8 names a queue twice
"##;

/// Checks each row of a table; `whole` makes a file of a snippet.
fn check_table(table: &str, whole: impl Fn(&str) -> String) {
    for row in table.trim_matches('\n').lines() {
        let mut parts = row.split(" => ");
        let snippet = parts.next().expect("a split gives something").replace("\\n", "\n");
        let expect: Vec<(&str, &str)> = parts.map(|part| part.split_once(' ').expect("a place and a part")).collect();
        assert!(!expect.is_empty(), "{row}");
        check(&whole(&snippet), &expect);
    }
}

#[test]
fn general_tables() {
    check_table(BROKER, |snippet| format!("[broker]\n{snippet}"));
    check_table(GENERAL, str::to_owned);
    check("brokr = 1", &[("1:1", "did you mean `broker`?")]);
    let long = format!("[control]\nsocket = \"/{}\"", "x".repeat(107));
    check(&long, &[("2:10", "at most 107")]);
}

#[test]
fn alerts() {
    let job = "[jobs.j]\nqueue = \"q\"\nhandler.discard = true\n";
    check_table(ALERT, |snippet| format!("[[alerts]]\n{snippet}\n{job}"));
    check(&format!("alerts = {{}}\n{job}"), &[("1:10", "a table [[alerts]] for each alert")]);
    check(&format!("[alerts]\nwhen = \"paused\"\n{job}"), &[("1:1", "must be an array")]);
}

#[test]
fn jobs() {
    check_table(JOB, job);
    check("[jobs.\"a b\"]\nqueue = \"q\"\nhandler.discard = true", &[("1:7", "cannot be the name of a job")]);
    check("[jobs.\"amq.a\"]\nqueue = \"q\"\nhandler.discard = true", &[("1:7", "would be called `amq.a.dead`")]);
    check("[jobs]\na = 1", &[("2:5", "`a` must be a table, not an integer")]);
    check("jobs = 1", &[("1:8", "`jobs` must be a table, not an integer")]);
    check("# no jobs", &[("0:0", "there is no job")]);
    let disabled = "[jobs.a]\nqueue = \"q\"\nenabled = false\nhandler.discard = true";
    check(disabled, &[("1:7", "all jobs are disabled")]);
}

#[test]
fn a_retention_that_covers_the_dead_letters_is_no_fault() {
    let lasts = |more: &str| check(&job(&format!("queue = \"q\"\n{more}")), &[]);
    lasts("dead_letter.message_ttl = \"14d\"");
    lasts("idempotency.retention = \"30d\"\ndead_letter.message_ttl = \"30d\"");
    // No time to live: kept until somebody looks at them, by default.
    lasts("idempotency.retention = \"1h\"");
    // No key to forget.
    lasts("idempotency.key = \"none\"\ndead_letter.message_ttl = \"30d\"");
    let store = "[store]\nretention = \"1d\"\n[jobs.j]\nqueue = \"q\"\nhandler.discard = true\n";
    check(&format!("{store}dead_letter.message_ttl = \"2d\""), &[("6:27", "forgotten after 1d")]);
}

#[test]
fn queues() {
    check_table(QUEUE, |snippet| job(&format!("[[jobs.j.queues]]\n{snippet}")));
    check(&job(&format!("queue = \"{}\"", "q".repeat(201))), &[("2:9", "1 to 200 bytes")]);
    check(&job("queues = []"), &[("2:10", "give at least one queue")]);
    check(&job("queues = [\"q\"]"), &[("2:11", "an entry of `queues` must be a table, not a string")]);
    let table = "[jobs.j.queues]\nname = \"q\"";
    check(&job(table), &[("2:1", "a table [[jobs.NAME.queues]] for each queue")]);
    let types = "[[jobs.j.queues]]
name = \"q\"
bindings = [{ exchange = \"e\", type = \"topic\" }, { exchange = \"e\", type = \"direct\" }]";
    check(&job(types), &[("4:62", "this exchange has another type elsewhere")]);
}

#[test]
fn six_errors_at_once() {
    let text = r#"[broker]
urls = ["amqp://guest:hunter2@localhost:port/%2f"]

[jobs.a]
queue = "a"
concurrency = "four"
prefetcch = 10

[jobs.b]
queue = "b"

[jobs.c]
queue = "c"
[jobs.c.handler]
command = ["/bin/c"]
timeout = "30 parsecs"
discard = true
"#;
    let folder = Folder::new(&text.replace("[jobs.b]", "[jobs.a.handler]\ndiscard = true\n[jobs.b]"));
    let report = folder.faulty();
    let expect = [
        "2:9 the port of this URL is not a number from 1 to 65535",
        "6:15 `concurrency` must be an integer, not a string",
        "7:1 unknown key `prefetcch`",
        "11:7 this job has no handler",
        "18:11 `timeout` is not a duration",
        "19:1 `discard` is a second handler",
    ];
    assert_eq!(outline(&report), expect);
    assert!(!report.to_string().contains("hunter2"), "{report}");
    assert!(report.to_string().contains("amqp://guest:***@localhost"), "{report}");
}

#[test]
fn faults_between_jobs() {
    let two = |enabled: &str| {
        format!(
            "[jobs.a]\nqueue = \"q\"\nhandler.discard = true\n\
             [jobs.b]\nqueue = \"q\"\nhandler.discard = true\n{enabled}"
        )
    };
    check(&two(""), &[("5:9", "another job consumes this queue too")]);
    check(&two("enabled = false"), &[]);
    // An escalation: what failed for good in one job is the work of another.
    check(
        "[jobs.a]\nqueue = \"q\"\nhandler.discard = true\n[jobs.b]\nqueue = \"a.dead\"\nhandler.discard = true\n",
        &[],
    );
}

#[test]
fn faults_of_syntax() {
    check("[store]\npath = x\n", &[("2:8", "string values must be quoted")]);
    check("[store]\npath = \"x\npath = \"y\"", &[("2:10", "invalid basic string"), ("3:1", "duplicate key")]);
    // What is missing may stand in the part that could not be read: here the queue.
    check("[jobs.a]\nqueue\n= \"q\"\n", &[("2:6", "not valid TOML")]);
    // What stands on good lines is judged all the same.
    check("[store]\npath = x\n[shutdown]\ntimeout = 5\n", &[("2:8", "not valid TOML"), ("4:11", "write \"5s\"")]);
    check(
        "[jobs.a]\nqueue = \"q\"\nhandler.discard = true\n[jobs.a]\nenabled = true\n",
        &[("4:7", "not valid TOML: duplicate key")],
    );
}
