//! Files as an administrator gets them wrong: each is refused, at the right line, and nearly each with its mend.

use super::super::report::Level;
use super::*;

/// What is wrong, the file, the place of the first error, its message, and the begin of its mend. `{broker}`, `{mail}` and
/// `{command}` stand for lines that are right; other files follow after a line with three dashes and their name.
const SEEDS: [[&str; 5]; 75] = [
    [
        "a key is misspelt",
        "{broker}{mail}concurency = 4\n{command}",
        "5:1",
        "unknown key `concurency`",
        "did you mean `concurrency`?",
    ],
    [
        "a table is misspelt",
        "[brokers]\nurls = [\"amqp://127.0.0.1\"]\n{mail}{command}",
        "1:2",
        "unknown key `brokers`",
        "did you mean `broker`?",
    ],
    [
        "one job is called job",
        "{broker}[job.mail]\nqueue = \"mail\"\n",
        "3:2",
        "unknown key `job`",
        "did you mean `jobs`?",
    ],
    [
        "one URL is called url",
        "[broker]\nurl = \"amqp://127.0.0.1\"\n{mail}{command}",
        "2:1",
        "unknown key `url`",
        "did you mean `urls`?",
    ],
    [
        "the URL stands without its brackets",
        "[broker]\nurls = \"amqp://127.0.0.1\"\n{mail}{command}",
        "2:8",
        "`urls` must be an array, not a string",
        "write [\"amqp://guest:guest@127.0.0.1:5672/%2f\"]",
    ],
    [
        "URL without scheme",
        "[broker]\nurls = [\"127.0.0.1:5672\"]\n{mail}{command}",
        "2:9",
        "this is no AMQP URL",
        "write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for ",
    ],
    [
        "URL of the management page",
        "[broker]\nurls = [\"http://127.0.0.1:15672\"]\n{mail}{command}",
        "2:9",
        "this is no AMQP URL",
        "write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for ",
    ],
    [
        "slash in the password",
        "[broker]\nurls = [\"amqp://mail:hun/ter2@127.0.0.1\"]\n{mail}{command}",
        "2:9",
        "the user or password of this URL holds a plain `/`, `?` or `#`",
        "write it percent-encoded: / is %2F, ? is %3F, # is %23",
    ],
    [
        "password missing",
        "[broker]\nurls = [\"amqp://mail@127.0.0.1\"]\n{mail}{command}",
        "2:9",
        "this URL has a user but no password",
        "add the password, or set broker.password_file",
    ],
    [
        "vhost with plain slash",
        "[broker]\nurls = [\"amqp://127.0.0.1//mail\"]\n{mail}{command}",
        "2:9",
        "the virtual host of this URL holds a plain `/`",
        "write each / of its name as %2f",
    ],
    [
        "password as a key",
        "{broker}password = \"hunter2\"\n{mail}{command}",
        "3:1",
        "unknown key `password`",
        "did you mean `password_file`?",
    ],
    [
        "duration without unit",
        "{broker}{mail}{command}timeout = 30\n",
        "7:11",
        "`timeout` is a number without a unit",
        "write \"30s\" for seconds; the units are ms, s, m, h, d",
    ],
    [
        "duration with long unit",
        "{broker}{mail}{command}timeout = \"30 seconds\"\n",
        "7:11",
        "`timeout` is not a duration",
        "did you mean \"30s\"?",
    ],
    [
        "size in MB lower",
        "{broker}{mail}max_body = \"16mb\"\n{command}",
        "5:12",
        "`max_body` is not a size",
        "did you mean \"16MiB\"?",
    ],
    [
        "number in quotes",
        "{broker}{mail}concurrency = \"4\"\n{command}",
        "5:15",
        "`concurrency` must be an integer, not a string",
        "allowed: 1 to 1024",
    ],
    [
        "word instead of number",
        "{broker}{mail}concurrency = four\n{command}",
        "5:15",
        "not valid TOML: invalid boolean",
        "write text in quotes: concurrency = \"...\"; a number in digits",
    ],
    [
        "boolean as yes",
        "{broker}{mail}enabled = yes\n{command}",
        "5:11",
        "not valid TOML: string values must be quoted",
        "a boolean is `true` or `false`, in small letters and without",
    ],
    [
        "boolean True",
        "{broker}{mail}enabled = True\n{command}",
        "5:11",
        "not valid TOML: invalid boolean",
        "a boolean is `true` or `false`, in small letters and without",
    ],
    [
        "prefetch zero",
        "{broker}{mail}prefetch = 0\n{command}",
        "5:12",
        "`prefetch` cannot be 0",
        "allowed: 1 to 65535; to RabbitMQ 0 is no limit, and a whole ",
    ],
    [
        "negative",
        "{broker}{mail}retry.max_attempts = -1\n{command}",
        "5:22",
        "`max_attempts` is out of range",
        "allowed: 1 to 4294967295",
    ],
    [
        "misspelt enum",
        "{broker}{mail}order = \"weigthed\"\n{command}",
        "5:9",
        "`order` cannot be \"weigthed\"",
        "did you mean \"weighted\"? allowed: \"weighted\", \"strict\"",
    ],
    [
        "a mode that there is not",
        "{broker}[store]\nsynchronous = \"off\"\n{mail}{command}",
        "4:15",
        "`synchronous` cannot be \"off\"",
        "allowed: \"full\", \"normal\"",
    ],
    [
        "command as string",
        "{broker}{mail}[jobs.mail.handler]\ncommand = \"/bin/mail --send\"\n",
        "6:11",
        "`command` must be an array, not a string",
        "write [\"/bin/mail\", \"--send\"]",
    ],
    [
        "two handlers",
        "{broker}{mail}{command}http = \"https://example.org\"\n",
        "7:1",
        "`http` is a second handler",
        "a job has exactly one of: command, worker, http, forward, di",
    ],
    [
        "no handler",
        "{broker}{mail}",
        "3:7",
        "this job has no handler",
        "add [jobs.mail.handler] with command = [\"PROGRAM\", \"ARGUMENT",
    ],
    [
        "handler key in job",
        "{broker}{mail}command = [\"/bin/mail\"]\n",
        "3:7",
        "this job has no handler",
        "add [jobs.mail.handler] with command = [\"PROGRAM\", \"ARGUMENT",
    ],
    [
        "timeout in job",
        "{broker}{mail}timeout = \"30s\"\n{command}",
        "5:1",
        "unknown key `timeout`",
        "`timeout` belongs in [jobs.NAME.handler]",
    ],
    [
        "a word of another program",
        "{broker}{mail}retries = 5\n{command}",
        "5:1",
        "unknown key `retries`",
        "write `max_attempts` in [jobs.NAME.retry]",
    ],
    [
        "retry as number",
        "{broker}{mail}retry = 5\n{command}",
        "5:9",
        "`retry` must be a table, not an integer",
        "allowed keys: max_attempts, initial, multiplier, max, jitter",
    ],
    [
        "queue missing",
        "{broker}[jobs.mail]\nconcurrency = 2\n{command}",
        "3:7",
        "this job has no queue",
        "add queue = \"NAME\", or a table [[jobs.mail.queues]] for each",
    ],
    [
        "queue and queues",
        "{broker}{mail}queues = [{ name = \"a\" }]\n{command}",
        "5:1",
        "this job has both `queue` and `queues`",
        "`queue` is short for one entry of `queues`: keep one of them",
    ],
    [
        "queues as strings",
        "{broker}[jobs.mail]\nqueues = [\"a\", \"b\"]\n{command}",
        "4:11",
        "an entry of `queues` must be a table, not a string",
        "allowed keys: name, weight, declare, type, max_priority, mes",
    ],
    [
        "queues as a table",
        "{broker}[jobs.mail]\n[jobs.mail.queues]\nname = \"a\"\n{command}",
        "4:1",
        "`queues` must be an array, not a table",
        "write a table [[jobs.NAME.queues]] for each queue",
    ],
    [
        "job name with space",
        "{broker}[jobs.send mail]\nqueue = \"a\"\n",
        "3:11",
        "not valid TOML: unclosed table",
        "close it with `]`; a name of a table has no blanks",
    ],
    [
        "queue twice",
        "{broker}{mail}{command}[jobs.other]\nqueue = \"mail\"\nhandler.discard = true\n",
        "8:9",
        "another job consumes this queue too",
        "two jobs would share its messages at random: give each a que",
    ],
    [
        "same table twice",
        "{broker}{mail}{command}[jobs.mail]\nconcurrency = 2\n",
        "7:7",
        "not valid TOML: duplicate key",
        "a table stands once in a file: put its keys together, or giv",
    ],
    [
        "key twice",
        "{broker}{mail}concurrency = 1\nconcurrency = 2\n{command}",
        "6:1",
        "not valid TOML: duplicate key",
        "a key stands once in a table: keep one of the two lines",
    ],
    [
        "unclosed quote",
        "{broker}[jobs.mail]\nqueue = \"mail\n{command}",
        "4:14",
        "not valid TOML: invalid basic string",
        "close the string with the quote that it began with, on the s",
    ],
    [
        "unclosed bracket",
        "[broker]\nurls = [\"amqp://127.0.0.1\"\n{mail}{command}",
        "2:8",
        "not valid TOML: this array is not closed",
        "close it with `]`, or put a comma between its entries",
    ],
    [
        "header bracket",
        "{broker}[jobs.mail\nqueue = \"mail\"\n{command}",
        "3:11",
        "not valid TOML: unclosed table",
        "close it with `]`; a name of a table has no blanks",
    ],
    [
        "no quotes",
        "{broker}[jobs.mail]\nqueue = mail\n{command}",
        "4:9",
        "not valid TOML: string values must be quoted",
        "write text in quotes: queue = \"...\"; a number in digits",
    ],
    [
        "colon for equals",
        "{broker}[jobs.mail]\nqueue: \"mail\"\n{command}",
        "4:8",
        "not valid TOML: key with no value",
        "write KEY = VALUE, with `=` in place of the colon",
    ],
    [
        "the file is YAML",
        "broker:\n  urls:\n    - amqp://127.0.0.1\n",
        "1:8",
        "not valid TOML: key with no value",
        "this looks like YAML: TOML has a line [TABLE], and lines KEY",
    ],
    [
        "the file is JSON",
        "{\"broker\": {\"urls\": [\"amqp://127.0.0.1\"]}}\n",
        "1:1",
        "not valid TOML: invalid key-value pair",
        "this looks like JSON: TOML has a line [TABLE], and lines KEY",
    ],
    [
        "double equals",
        "{broker}[jobs.mail]\nqueue == \"mail\"\n{command}",
        "4:8",
        "not valid TOML: extra `=`",
        "write KEY = VALUE, with one `=`",
    ],
    [
        "unicode quotes",
        "{broker}[jobs.mail]\nqueue = “mail”\n{command}",
        "4:9",
        "not valid TOML: string values must be quoted",
        "write plain quotes, \"...\": those are a word processor's",
    ],
    [
        "a blank of a web page",
        "{broker}[jobs.mail]\nqueue =\u{a0}\"mail\"\n{command}",
        "4:8",
        "not valid TOML: missing opening quote",
        "a character that cannot be seen stands in this line (U+00A0)",
    ],
    [
        "semicolon",
        "{broker}[jobs.mail]\nqueue = \"mail\";\n{command}",
        "4:15",
        "not valid TOML: unexpected key or value",
        "remove the `;` at the end of the line",
    ],
    [
        "a comment of another language",
        "{broker}// the mail job\n{mail}{command}",
        "3:4",
        "not valid TOML: key with no value",
        "a comment begins with `#`",
    ],
    [
        "a comment of an INI file",
        "{broker}; the mail job\n{mail}{command}",
        "3:3",
        "not valid TOML: key with no value",
        "a comment begins with `#`",
    ],
    [
        "trailing comma",
        "{broker}[jobs.mail]\nqueue = \"mail\",\n{command}",
        "4:15",
        "not valid TOML: unexpected key or value",
        "remove the `,` at the end of the line",
    ],
    [
        "backslash path",
        "{broker}{mail}[jobs.mail.handler]\ncommand = [\"C:\\mail\\send\"]\n",
        "6:16",
        "not valid TOML: missing escaped value",
        "a `\\` in a string begins an escape: write `\\\\`, or put the s",
    ],
    [
        "multiline inline table",
        "{broker}{mail}[jobs.mail.handler]\nenv = { A = \"1\",\n  B = \"2\"\n command = [\"a\"]\n",
        "8:2",
        "not valid TOML: missing comma between key-value pairs",
        "close the table with `}`, or put a comma between its entries",
    ],
    [
        "line ends of Windows",
        "[broker]\r\nurls = [\"amqp://127.0.0.1\"]\r\n[jobs.mail]\r\nqueue = \"mail\"\r\nconcurency = 4\r\n[jobs.mail.handler]\r\ncommand = [\"/bin/mail\"]\r\n",
        "5:1",
        "unknown key `concurency`",
        "did you mean `concurrency`?",
    ],
    [
        "a byte order mark at the beginning",
        "\u{feff}{broker}{mail}concurency = 4\n{command}",
        "5:1",
        "unknown key `concurency`",
        "did you mean `concurrency`?",
    ],
    [
        "a zero byte",
        "{broker}{mail}queue_x = \"a\0b\"\n{command}",
        "5:13",
        "not valid TOML: invalid basic string",
        "a control character stands in this line (U+0000): delete it",
    ],
    [
        "tabs",
        "{broker}{mail}\tconcurency\t=\t4\n{command}",
        "5:2",
        "unknown key `concurency`",
        "did you mean `concurrency`?",
    ],
    [
        "env unset",
        "[broker]\nurls = [\"amqp://mail:${MAIL_PASSWORD}@127.0.0.1\"]\n{mail}{command}",
        "2:9",
        "the environment variable MAIL_PASSWORD is not set",
        "set it, or give a default: ${MAIL_PASSWORD:-default}",
    ],
    [
        "leading zero",
        "{broker}{mail}concurrency = 04\n{command}",
        "5:15",
        "not valid TOML: unexpected leading zero",
        "remove the zeros at the beginning of the number",
    ],
    [
        "bad max vs initial",
        "{broker}{mail}retry = { initial = \"2h\", max = \"1h\" }\n{command}",
        "5:33",
        "`max` is below `initial`",
        "`initial` is \"2h\", `max` is \"1h\"",
    ],
    [
        "retry sub-second",
        "{broker}{mail}retry.initial = \"500ms\"\n{command}",
        "5:17",
        "`initial` cannot be that duration",
        "allowed: \"1s\" to \"12d\", in whole seconds",
    ],
    [
        "quorum prio",
        "{broker}[jobs.mail]\nqueues = [{ name = \"m\", type = \"quorum\", max_priority = 5 }]\n{command}",
        "4:57",
        "a quorum queue has no `max_priority`",
        "remove it, or use type = \"classic\"; a quorum queue sorts int",
    ],
    [
        "arg without x",
        "{broker}[jobs.mail]\nqueues = [{ name = \"m\", arguments = { max-length = 5 } }]\n{command}",
        "4:39",
        "RabbitMQ has no such queue argument",
        "the name of an argument begins with `x-` and has at most 255",
    ],
    [
        "verification is to be switched off",
        "[broker]\nurls = [\"amqps://h\"]\n[broker.tls]\nverify = false\n{mail}{command}",
        "4:1",
        "unknown key `verify`",
        "allowed in [broker.tls]: ca_file, cert_file, key_file, auth",
    ],
    [
        "there is no broker",
        "{mail}{command}",
        "0:0",
        "there are no broker URLs",
        "write urls = [\"amqp://guest:guest@127.0.0.1:5672/%2f\"] in [b",
    ],
    [
        "json pointer",
        "{broker}{mail}idempotency.key = \"json:id\"\n{command}",
        "5:19",
        "a JSON pointer begins with `/`",
        "write it as in \"json:/order/id\"",
    ],
    [
        "carriage returns alone",
        "[broker]\rurls = [\"amqp://127.0.0.1\"]\r[jobs.mail]\rqueue = \"mail\"\r[jobs.mail.handler]\rcommand = [\"/bin/mail\"]\r",
        "1:10",
        "not valid TOML: carriage return must be followed by newline",
        "the lines of this file end with carriage returns alone: save",
    ],
    [
        "a job in two files",
        "broker.urls = [\"amqp://127.0.0.1\"]\n{mail}handler.discard = true\n\n--- jobs.d/mail.toml\n[jobs.mail]\nqueue = \"mail\"\nhandler.discard = true\n",
        "mail.toml:1:7",
        "the job `mail` is defined twice",
        "rename one of them, or remove it",
    ],
    [
        "a queue in two files",
        "broker.urls = [\"amqp://127.0.0.1\"]\n{mail}handler.discard = true\n\n--- jobs.d/other.toml\n[jobs.other]\nqueue = \"mail\"\nhandler.discard = true\n",
        "other.toml:2:9",
        "another job consumes this queue too",
        "two jobs would share its messages at random: give each a que",
    ],
    [
        "a table of the main file in jobs.d",
        "broker.urls = [\"amqp://127.0.0.1\"]\n\n--- jobs.d/mail.toml\n[jobs.mail]\nqueue = \"mail\"\nhandler.discard = true\n[store]\npath = \"/srv/w.db\"\n",
        "mail.toml:4:2",
        "unknown key `store`",
        "`store` belongs in the main file",
    ],
    [
        "a syntax error in the second file",
        "broker.urls = [\"amqp://127.0.0.1\"]\n\n--- jobs.d/mail.toml\n[jobs.mail]\nqueue = mail\nhandler.discard = true\n",
        "mail.toml:2:9",
        "not valid TOML: string values must be quoted",
        "write text in quotes: queue = \"...\"; a number in digits",
    ],
    [
        "nothing but comments",
        "# to be written\n",
        "0:0",
        "there are no broker URLs",
        "write urls = [\"amqp://guest:guest@127.0.0.1:5672/%2f\"] in [b",
    ],
    [
        "a relative key in an inline table",
        "{broker}{mail}ack = { batch = 10, flush = \"1s\" }\n{command}",
        "5:21",
        "unknown key `flush`",
        "allowed in [jobs.NAME.ack]: batch, interval",
    ],
    [
        "an exchange without a type",
        "{broker}[jobs.mail]\nqueues = [{ name = \"m\", bindings = [{ exchange = \"e\" }] }]\n{command}",
        "4:37",
        "this binding has no `type`",
        "add type = \"topic\", or what the exchange is: it is created w",
    ],
    [
        "port as a word",
        "[broker]\nurls = [\"amqp://127.0.0.1:amqp\"]\n{mail}{command}",
        "2:9",
        "the port of this URL is not a number from 1 to 65535",
        "write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for ",
    ],
];

const BROKER: &str = "[broker]\nurls = [\"amqp://127.0.0.1\"]\n";
const MAIL: &str = "[jobs.mail]\nqueue = \"mail\"\n";
const COMMAND: &str = "[jobs.mail.handler]\ncommand = [\"/bin/mail\"]\n";

fn folder(text: &str) -> Folder {
    let text = text.replace("{broker}", BROKER).replace("{mail}", MAIL).replace("{command}", COMMAND);
    let mut files = text.split("\n--- ");
    let main = Folder::new(files.next().expect("a split gives something"));
    files.fold(main, |folder, file| {
        let (name, text) = file.split_once('\n').expect("a name and a text");
        folder.with(name, text)
    })
}

#[test]
fn each_is_refused_at_its_line_and_mended() {
    let mut mended = 0;
    for [what, text, place, message, mend] in SEEDS {
        let report = folder(text).faulty();
        let error = report.entries.iter().position(|entry| entry.level == Level::Error).expect("it is refused");
        assert_eq!(outline(&report)[error], format!("{place} {message}"), "{what}\n{text}");
        let help = report.entries[error].help.as_deref().unwrap_or_default();
        assert!(help.starts_with(mend) && mend.is_empty() == help.is_empty(), "{what}: {help}");
        mended += usize::from(!help.is_empty());
        assert!(!report.to_string().contains("hun"), "no password is told\n{report}");
    }
    assert!(SEEDS.len() >= 60 && mended >= 50, "{mended} of {} are mended", SEEDS.len());
}

#[test]
fn a_file_in_another_encoding_is_told_with_the_command_that_converts_it() {
    let folder = folder("");
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(BROKER.bytes().flat_map(|byte| [byte, 0])).collect();
    for (bytes, place, mend) in [
        (utf16.as_slice(), "1:1", "iconv -f UTF-16 -t UTF-8"),
        (&b"# f\xfcr die Post\n[broker]\n"[..], "1:4", "iconv -f LATIN1 -t UTF-8"),
    ] {
        folder.write("warrend.toml", bytes);
        let report = folder.faulty();
        assert_eq!(outline(&report), [format!("{place} this file is not UTF-8")]);
        assert!(report.entries[0].help.as_deref().unwrap_or_default().contains(mend), "{report}");
    }
}
