//! Faulty handlers: their tables, in the form that `faults` explains.

use super::*;

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
handler.workers = ["x"] => 3:9 did you mean `worker`?
handler.comand = ["x"] => 3:9 did you mean `command`?
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
    check(&worker("prefetch = 3"), &[("4:12", "this prefetch keeps at most 3 of 4 handlers busy")]);
    let command = |queues: &str, more: &str| format!("[jobs.j]\n{queues}\nhandler.command = [\"a\"]\n{more}");
    check(&command("queue = \"q\"", "prefetch = 4"), &[]);
    check(
        &command("queue = \"q\"", "prefetch = 19\nconcurrency = 20"),
        &[("4:12", "this prefetch keeps at most 19 of 20 handlers busy")],
    );
    // Each queue has its own.
    let two = "queues = [{ name = \"a\" }, { name = \"b\" }]";
    check(&command(two, "prefetch = 2"), &[]);
    check(&command(two, "prefetch = 1"), &[("4:12", "this prefetch keeps at most 2 of 4 handlers busy")]);
    check(&worker("prefetch = \"auto\"\nreply = true"), &[]);
}
