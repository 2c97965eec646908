//! No report shows a secret.

use proptest::prelude::*;

use super::*;

#[test]
fn no_secret_is_shown() {
    for snippet in [
        "broker.urls = [\"amqp://u:hunter2@h:x\"]",
        "broker.urls = [\"amqp://u:hunter2/@h\"]",
        "broker.urls = [\"amqp://u:hunter2\"]",
        "broker.urls = [\"u:hunter2@h\"]",
        "broker.urls = [\"amqp://u:hunter2@h\", 5, \"amqp://u:hunter2@h/other\", \"x\"]",
        "broker.urls = \"amqp://u:hunter2@h\"",
        "broker.urls = [\"amqp://u:hunter2@h]\n",
        "broker.urls = [amqp://u:hunter2@h]\n",
        "broker.urls = [\"${BAD_URL}\"]",
        "broker.urls = [\"amqp://u:${GONE:-hunter2}@h:x\"]",
        "broker.urls = [\"amqp://u:${GONE}hunter2@h\"]",
        "[broker]\nurls = [\"amqp://h\"]\npassword = \"hunter2\"",
        "\"amqp://u:hunter2@h\" = 1",
        "[store]\nsynchronous = \"${WORD}\"",
        "[store]\nsynchronous = \"amqp://u:hunter2@h\"",
        "[jobs.\"amqp://u:hunter2@h\"]\nqueue = \"q\"\nhandler.discard = true",
        "[jobs.a]\nqueue = \"q\"\nhandler.command = \"curl http://u:hunter2@h\"",
        "[jobs.a]\nqueue = \"q\"\nhandler = { command = [\"a\"], env = { A_TOKEN = \"hunter2\", B = 5 } }",
        "[jobs.a]\nqueue = \"q\"\nhandler.http = \"https://u:hunter2@h/\"",
        "[jobs.a]\nqueue = \"q\"\nhandler.http = \"https://h:port/hunter2\"",
        "[jobs.a]\nqueue = \"q\"\nhandler.http = \"h/hunter2\"",
        "[jobs.a]\nqueue = \"q\"\nhandler.http = \"https://h/#hunter2\"",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h/hunter2\", discard = true }",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h/hunter2\", headers = { A = 5 } }",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h/hunter2 }\n",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h\", headers = { A = \"hunter2\\n\" } }",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h\", headers = { A = \"hunter2\", Host = \"hunter2\" } }",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h\", headers = { A = \"hunter2 } }\n",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h\", headers = { A = \"${WORD}\u{fc}\" } }",
        "[jobs.a]\nqueue = \"q\"\nhandler = { http = \"https://h\", secret = \"hunter2\" }",
    ] {
        let report = Folder::new(&complete(snippet)).faulty();
        assert!(report.errors() > 0);
        for shown in [report.to_string(), report.render(true), report.to_json().to_string(), format!("{report:?}")] {
            assert!(!shown.contains("hunter2"), "{snippet}\n{shown}");
        }
    }
}

/// A good file with a password, for breaking.
const WITH_PASSWORD: &str = r#"[broker]
urls = ["amqp://bob:hunter2@localhost:5672/%2f"]
heartbeat = "15s"
[jobs.a]
queues = [{ name = "q", arguments = { x-a = 1 } }]
[jobs.a.handler]
command = ["/bin/true", "é"]
timeout = "30s"
"#;

/// A good file with a webhook, for breaking.
const WITH_WEBHOOK: &str = r#"[broker]
urls = ["amqp://localhost"]
[jobs.a]
queue = "q"
handler = { http = "https://example.org/hooks/hunter2", timeout = "30s", cwd = 5 }
"#;

proptest! {
    /// Wherever a file with a secret is broken, no report shows it.
    #[test]
    fn a_broken_file_keeps_its_secret(
        file in prop_oneof![Just(WITH_PASSWORD), Just(WITH_WEBHOOK)],
        at in 0..WITH_PASSWORD.len(),
        cut in 0_usize..12,
        piece in prop_oneof![Just("\""), Just("\n"), Just("'"), Just("["), Just("]"), Just("="), Just("#"), Just("@"), Just("/"), Just(":"), Just(" "), Just("${"), Just("x")],
    ) {
        // The secret itself stays whole, so that it can be looked for; and with it what says that it is a webhook's.
        let secret = file.find("https://example").or(file.find("hunter2")).expect("it is there");
        let secret = secret..file.find("hunter2").expect("it is there") + "hunter2".len();
        let boundary = |mut at: usize| {
            at = at.min(file.len());
            while !file.is_char_boundary(at) { at += 1; }
            at
        };
        let (start, end) = (boundary(at), boundary(at + cut));
        if start < secret.end && end > secret.start {
            return Ok(());
        }
        let text = format!("{}{piece}{}", &file[..start], &file[end..]);
        if let Err(report) = Folder::new(&text).load() {
            for shown in [report.render(false), report.to_json().to_string(), format!("{report:?}")] {
                prop_assert!(!shown.contains("hunter2"), "{}\n{}", text, shown);
            }
        }
    }
}
