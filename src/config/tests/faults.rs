//! Faulty files, and what is said about them.
//!
//! A row of a table is a snippet and what is expected of it, each expectation after ` => `: `line:column`, and a part of
//! the message or its mend. `\n` in a snippet is a line break. Nothing else may be found in it.

use super::*;

/// Of `[broker]`; the first line of the file.
const BROKER: &str = r##"
heartbeat = "15s" => 1:2 there are no broker URLs
urls = "amqp://h" => 2:8 `urls` must be an array, not a string
urls = [] => 2:8 give at least one URL
urls = [5672] => 2:9 an entry of `urls` must be a string, not an integer
urls = ["amqp://h", "http://h"] => 2:21 this is no AMQP URL
urls = ["amqps://h"] => 2:9 TLS is not supported by this version yet
urls = ["amqp://h/a", "amqp://h/b"] => 2:23 names another virtual host than the first
urls = ["amqp://h"]\nheartbeat = 15 => 3:13 write "15s"
urls = ["amqp://h"]\nheartbeat = "1500ms" => 3:13 "0s" to "65535s", in whole seconds
urls = ["amqp://h"]\nheartbeat = "65536s" => 3:13 in whole seconds
urls = ["amqp://h"]\nconnect_timeout = "0s" => 3:19 allowed: "1ms" to "36500d"
urls = ["amqp://h"]\nreconnect = "1s" => 3:13 allowed keys: initial, max
urls = ["amqp://h"]\nreconnect = { initial = "0s" } => 3:25 cannot be that duration
urls = ["amqp://h"]\nreconnect = { initial = "31s" } => 3:25 `max` is below `initial`
urls = ["amqp://h"]\nreconnect = { max = "499ms" } => 3:21 `initial` is "500ms"
urls = ["amqp://h"]\nreconnect = { factor = 2 } => 3:15 allowed in [broker.reconnect]: initial, max
urls = ["amqp://h"]\npassword_file = "" => 3:17 `password_file` is empty
urls = ["amqp://h"]\npassword = "hunter2" => 3:1 did you mean `password_file`?
urls = ["amqp://h"]\n[broker.tls]\nca_file = "x" => 3:9 unknown key `tls`
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
[store]\ntimeout = "5s" => 2:1 belongs in [shutdown] or [jobs.NAME.handler]
[shutdown]\ntimeout = "25 s" => 2:11 did you mean "25s"?
[control]\nsockett = "x" => 2:1 did you mean `socket`?
[http]\nlisten = "127.0.0.1:9419" => 1:2 unknown key `http`
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

/// Of a handler; the snippet begins on line 3, in a job with a queue.
const HANDLER: &str = r##"
 => 1:7 this job has no handler
[jobs.j.handler] => 3:9 this job has no handler
handler = "discard" => 3:11 `handler` must be a table, not a string
handler.timeout = "1s" => 3:1 this job has no handler
handler.discard = false => 3:19 write discard = true
handler.discard = 1 => 3:19 must be a boolean, not an integer
handler = { discard = true, command = ["x"] } => 3:29 `command` is a second handler
handler = { discard = true, timeout = "5s" } => 3:29 a `discard` handler has no `timeout`
handler.workers = ["x"] => 3:1 this job has no handler => 3:9 did you mean `worker`?
handler.comand = ["x"] => 3:1 this job has no handler => 3:9 did you mean `command`?
handler.command = "/bin/thumb -q 80" => 3:19 write ["/bin/thumb", "-q", "80"]
handler.command = "a | b" => 3:19 for a shell write ["sh", "-c", "..."]
handler.command = [] => 3:19 `command` is empty
handler.command = [""] => 3:20 an entry of `command` is empty
handler.command = ["a", 5] => 3:25 must be a string, not an integer
handler.command = ["a", "b\u0000"] => 3:25 holds a NUL byte
handler = { command = ["a"], timeout = "0s" } => 3:40 cannot be that duration
handler = { command = ["a"], timeout = "30m" } => 3:40 longer than RabbitMQ waits
handler = { command = ["a"], kill_grace = 5 } => 3:43 write "5s"
handler = { command = ["a"], cwd = 5 } => 3:36 must be a string, not an integer
handler = { command = ["a"], env = ["A=b"] } => 3:36 write { KEY = "value" }
handler = { command = ["a"], env = { A = 80 } } => 3:42 `A` must be a string, not an integer
handler = { command = ["a"], env = { "" = "b" } } => 3:38 no name of a variable
handler = { command = ["a"], env = { "A=" = "b" } } => 3:38 no name of a variable
handler = { command = ["a"], env = { A = "\u0000" } } => 3:42 `A` holds a NUL byte
handler = { command = ["a"], env = { WARREND_JOB = "b" } } => 3:38 begin with WARREND_
"##;

/// Of a `worker` or `http` handler; the snippet stands in `handler = { }` on line 3, whose first column is 13.
const WORKER_AND_HTTP: &str = r##"
worker = "python3 worker.py" => 3:22 write ["python3", "worker.py"]
worker = [] => 3:22 `worker` is empty
worker = ["a"], batch = 0 => 3:37 allowed: 1 to 1000
worker = ["a"], batch = 1001 => 3:37 allowed: 1 to 1000
worker = ["a"], bacth = 5 => 3:29 did you mean `batch`?
worker = ["a"], linger = "1s" => 3:38 a batch of one is always full
worker = ["a"], batch = 2, linger = "11s" => 3:49 allowed: "0s" to "10s"
worker = ["a"], batch = 2, linger = 1 => 3:49 write "1s"
worker = ["a"], max_tasks = 0 => 3:41 allowed: 1 or more
worker = ["a"], max_memory = "1023KiB" => 3:42 allowed: "1MiB" or more
worker = ["a"], max_memory = 512 => 3:42 write "512B"
worker = ["a"], max_age = "0s" => 3:39 cannot be that duration
worker = ["a"], timeout = "1h" => 3:39 longer than RabbitMQ waits
worker = ["a"], headers = {} => 3:29 a `worker` handler has no `headers`
worker = ["a"], command = ["b"] => 3:29 `command` is a second handler
worker = ["a"], http = "https://h", discard = true => 3:29 `http` is a second handler => 3:49 `discard` is a second handler
command = ["a"], batch = 5 => 3:30 it belongs to a `worker` handler
discard = true, batch = 5, cwd = "x" => 3:29 a `discard` handler has no `batch` => 3:40 belongs to a `command` or `worker` handler
http = "https://h", batch = 5 => 3:33 an `http` handler has no `batch`
http = "https://h", kill_grace = "1s", env = {} => 3:33 no `kill_grace` => 3:52 no `env`
http = "example.org" => 3:20 this is no URL
http = "ftp://h" => 3:20 no http:// or https:// URL
http = "https://" => 3:20 no host
http = "https://h:port" => 3:20 the port of this URL
http = "https://h:0/" => 3:20 the port of this URL is 0
http = "https://h h/" => 3:20 holds a blank
http = "https://u@h/" => 3:20 holds a user or a password
http = "https://u:p@h/" => 3:20 Authorization
http = "https://h/#x" => 3:20 holds a `#`
http = "https://h!/" => 3:20 no name and no address
http = "" => 3:20 `http` is empty
http = 5 => 3:20 must be a string
http = "http://example.org" => 3:20 unencrypted
http = "http://10.0.0.1" => 3:20 unencrypted
http = "http://127.0.0.2", ca_file = "x" => 3:40 no effect with an http:// URL
http = "https://h", timeout = "0s" => 3:43 cannot be that duration
http = "https://h", secret_file = "" => 3:47 `secret_file` is empty
http = "https://h", secret = "x" => 3:33 did you mean `secret_file`?
http = "https://h", ca_file = 1 => 3:43 must be a string
http = "https://h", headers = ["A: b"] => 3:43 write { KEY = "value" }
http = "https://h", headers = { A = 5 } => 3:49 `A` must be a string
http = "https://h", headers = { "A b" = "c" } => 3:45 no name of a header
http = "https://h", headers = { "" = "c" } => 3:45 no name of a header
http = "https://h", headers = { A = "b\nc" } => 3:49 no header can
http = "https://h", headers = { A = "b\u0000" } => 3:49 no header can
http = "https://h", headers = { A = "\u00fc" } => 3:49 visible ASCII
http = "https://h", headers = { A = " b" } => 3:49 begins or ends with a blank
http = "https://h", headers = { A = "b", a = "c" } => 3:54 stands here twice
http = "https://h", headers = { Idempotency-Key = "b" } => 3:45 warrend sets the header `Idempotency-Key` itself
http = "https://h", headers = { WARREND-Job = "b" } => 3:45 itself
http = "https://h", headers = { Webhook-Id = "b" } => 3:45 itself
http = "https://h", headers = { host = "b", Content-Length = "5" } => 3:45 itself => 3:57 itself
http = "https://h", headers = { Transfer-Encoding = "chunked" } => 3:45 itself
"##;

/// Of `forward`; the snippet stands in `handler.forward = { }` on line 3, whose first column is 21. The job's queue is `q`,
/// bound to the exchange `e`.
const FORWARD: &str = r##"
 => 3:9 this target has no `routing_key`
exchange = "" => 3:9 this target has no `routing_key`
exchange = "x", otherwise = "dead" => 3:37 `otherwise` needs `routes`
exchange = "x", routing_ky = "k" => 3:37 did you mean `routing_key`?
exchange = 5 => 3:32 must be a string
exchange = "x", routing_key = 5 => 3:51 must be a string
routing_key = "" => 3:35 `routing_key` is empty
routing_key = "q" => 3:35 forward to its own queue
routing_key = "{routing_key}" => 3:35 may forward to its own queue
exchange = "e" => 3:32 the exchange that feeds it
routing_key = "a{b" => 3:35 `{` without a `}`
routing_key = "{a{b}}" => 3:35 `{` without a `}`
routing_key = "a}b" => 3:35 `}` without a `{`
routing_key = "a{}" => 3:35 empty
routing_key = "{ a }" => 3:35 blanks around it
routing_key = "{header:}" => 3:35 empty
routing_key = "{message-id}" => 3:35 did you mean {message_id}?
exchange = "{x", routing_key = "y}" => 3:32 `{` without => 3:52 `}` without
routes = { match = "#" } => 3:30 must be an array
routes = [] => 3:30 `routes` is empty
routes = ["a"] => 3:31 must be a table, not a string
routes = [{ match = "a", routing_key = "b" }], exchange = "x" => 3:68 `exchange` stands beside `routes`
routes = [{ match = "a", routing_key = "b" }], otherwise = "ded" => 3:80 did you mean "dead"?
routes = [{ match = "a", routing_key = "b" }], otherwise = 5 => 3:80 must be "dead" or a table
routes = [{ match = "a", routing_key = "b" }], otherwise = {} => 3:68 this target has no `routing_key`
routes = [{ match = "a", routing_key = "b" }], otherwise = { routing_key = "q" } => 3:96 forward to its own queue
routes = [{ match = "a", routing_key = "b" }], otherwise = { key = "k", exchange = "x" } => 3:82 unknown key `key`
routes = [{ routing_key = "b" }] => 3:31 does not say what it matches
routes = [{ match = "a", header = "b", exchange = "x" }] => 3:46 both `match` and `header`
routes = [{ match = "a", value = "b", exchange = "x" }] => 3:46 `value` needs `header`
routes = [{ header = "", exchange = "x" }] => 3:42 `header` is empty
routes = [{ header = "a", value = 1.5, exchange = "x" }] => 3:55 a string or an integer
routes = [{ match = "a" }] => 3:31 this target has no `routing_key`
routes = [{ match = "a*.b", exchange = "x" }] => 3:41 matches a plain `*` or `#`
routes = [{ match = "#", exchange = "x" }, { match = "a", exchange = "y" }] => 3:64 no message comes to this route
routes = [{ mach = "a", exchange = "x" }] => 3:31 does not say what it matches => 3:33 did you mean `match`?
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
fn handlers() {
    check_table(HANDLER, |snippet| format!("[jobs.j]\nqueue = \"q\"\n{snippet}\n"));
    // A line break in these snippets is one of a TOML string.
    let inline = |snippet: &str| snippet.replace('\n', "\\n");
    check_table(WORKER_AND_HTTP, |snippet| format!("[jobs.j]\nqueue = \"q\"\nhandler = {{ {} }}\n", inline(snippet)));
    check_table(FORWARD, |snippet| {
        let queues = "queues = [{ name = \"q\", bindings = [{ exchange = \"e\", type = \"topic\" }] }]";
        format!("[jobs.j]\n{queues}\nhandler.forward = {{ {snippet} }}\n")
    });
    let long = |text: &str| format!("[jobs.j]\nqueue = \"q\"\nhandler.forward = {{ routing_key = \"{text}\" }}\n");
    check(&long(&"k".repeat(255)), &[]);
    check(&long(&"k".repeat(256)), &[("3:35", "at most 255 bytes")]);
    check(&long(&format!("{{{}}}", "k".repeat(256))), &[("3:35", "too long")]);
    let worker = |more: &str| format!("[jobs.j]\nqueue = \"q\"\nhandler = {{ worker = [\"a\"], batch = 10 }}\n{more}");
    check(&worker("prefetch = 40"), &[]);
    check(&worker("prefetch = 39"), &[("4:12", "leaves the batches of 4 x 10 with at most 39 tasks")]);
    check(&worker("prefetch = 3"), &[("4:12", "at most 3 of 4 handlers")]);
    check(&worker("prefetch = \"auto\"\nreply = true"), &[]);
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
