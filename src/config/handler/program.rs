//! What `command` and `worker` have in common: a program, and how it is run.

use std::collections::BTreeMap;

use crate::config::Command;
use crate::config::general::{ABOVE_ZERO, ANY};
use crate::config::item::{Item, Limits};
use crate::config::mask;
use crate::config::section::Section;
use crate::config::value::{LONGEST, secs};

/// RabbitMQ's `consumer_timeout` by default: it closes the channel of a consumer that takes longer for an ack.
const CONSUMER_TIMEOUT: Limits = Limits::new(secs(1_800), LONGEST);

/// What stands beside the program, which is still empty here. `timeout` is that of an `http` handler too.
pub fn settings(section: &Section<'_>) -> Command {
    let timeout = section.get("timeout", secs(30), |item| item.duration(ABOVE_ZERO));
    if let Some(place) = timeout.at.filter(|_| timeout.good && CONSUMER_TIMEOUT.allow(timeout.value)) {
        let help = "by default RabbitMQ closes the channel of a consumer that has not acknowledged for 30 minutes; \
                    raise its consumer_timeout, or stay below it";
        section.reader().warn(place, "this handler may run longer than RabbitMQ waits for it", help);
    }
    Command {
        argv: Vec::new(),
        timeout: timeout.value,
        kill_grace: section.get("kill_grace", secs(5), |item| item.duration(ANY)).value,
        env: section.get("env", BTreeMap::new(), environment).value,
        cwd: section.get("cwd", None, |item| item.path().map(Some)).value,
    }
}

/// The program and its arguments.
pub fn argv(item: &Item<'_>) -> Option<Vec<String>> {
    if let Some(line) = item.value().as_str() {
        return item.wrong_type("an array", &as_array(line));
    }
    let items = item.array("[\"PROGRAM\", \"ARGUMENT\"]")?;
    let Some((program, arguments)) = items.split_first() else {
        return item.error(format!("{} is empty", item.name()), "write [\"PROGRAM\", \"ARGUMENT\"]");
    };
    let program = program.program();
    let arguments: Vec<_> = arguments.iter().map(without_nul).collect();
    let whole: Option<Vec<String>> = std::iter::once(program).chain(arguments).collect();
    whole
}

/// How to write a command line as an array: exact where no shell would do more than split it.
fn as_array(line: &str) -> String {
    let line = mask::quote(line);
    let plain = |c: char| c.is_alphanumeric() || " ./_-+=:,@%".contains(c);
    if line.trim().is_empty() || !line.chars().all(plain) {
        return "write [\"PROGRAM\", \"ARGUMENT\"]; for a shell write [\"sh\", \"-c\", \"...\"]".to_owned();
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    format!("write {words:?}")
}

fn environment(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    item.names("^(?!WARREND_)[^=]+$");
    for (name, value) in item.entries()? {
        if name.is_empty() || name.contains(['=', '\0']) {
            let help = "the name of a variable is not empty and has no `=` and no NUL byte";
            value.reader().error(value.key_place, "this is no name of a variable", help);
        } else if name.starts_with("WARREND_") {
            let help = "warrend sets the variables that begin with WARREND_: choose another name";
            value.reader().error(value.key_place, "a variable cannot begin with WARREND_", help);
        } else if let Some(value) = without_nul(&value) {
            environment.insert(name.to_owned(), value);
        }
    }
    Some(environment)
}

fn without_nul(item: &Item<'_>) -> Option<String> {
    let text = item.text()?.value;
    if text.contains('\0') {
        return item.error(format!("{} holds a NUL byte", item.name()), "remove it: the system ends strings there");
    }
    Some(text)
}
