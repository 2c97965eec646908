//! How `check --online` prints what the doctor found.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::Exit;
use crate::doctor::{Area, Diagnosis, Finding, Level, Mend};
use crate::logging::clean;

/// The version of the JSON; it only grows.
const SCHEMA: u32 = 1;
/// Columns of the text; commands may be longer, so that they can be pasted.
const WIDTH: usize = 80;
/// Where the text of a finding begins, after its mark.
const INDENT: usize = 11;

/// 1 where something does not work, 69 where no host let us in; warnings are good enough.
pub fn exit(diagnosis: &Diagnosis) -> Exit {
    let failed = diagnosis.findings.iter().any(|finding| finding.level == Level::Error);
    match (diagnosis.reached, failed) {
        (false, _) => Exit::NoBroker,
        (true, true) => Exit::Failed,
        (true, false) => Exit::Done,
    }
}

/// One object. `configuration`: what `check` says without `--online`.
pub fn to_json(diagnosis: &Diagnosis, configuration: &Value) -> Value {
    let counts: serde_json::Map<String, Value> =
        Level::ALL.iter().map(|level| (level.mark().to_owned(), json!(count(diagnosis, *level)))).collect();
    json!({
        "schema": SCHEMA,
        "reached": diagnosis.reached,
        "counts": counts,
        "configuration": configuration,
        "findings": diagnosis.findings,
    })
}

/// Every finding below the heading of its area, and their number.
pub fn render(diagnosis: &Diagnosis, color: bool) -> String {
    let mut text = String::new();
    for area in Area::ALL {
        let mut findings = diagnosis.findings.iter().filter(|finding| finding.area == area).peekable();
        if findings.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "\n{}", paint(color, "1", area.name()));
        findings.for_each(|finding| line(&mut text, finding, color));
    }
    let _ = writeln!(text, "\n{}", verdict(diagnosis, color));
    text
}

fn paint(color: bool, code: &str, text: &str) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn line(text: &mut String, finding: &Finding, color: bool) {
    let mark = paint(color, code(finding.level), &format!("{:<7}", finding.level.mark()));
    let _ = writeln!(text, "  {mark}  {}", wrapped(&finding.text, INDENT));
    let blank = " ".repeat(INDENT);
    if let Some(why) = &finding.why {
        let _ = writeln!(text, "{blank}{}", paint(color, "2", &wrapped(why, INDENT)));
    }
    for (index, mend) in finding.mends.iter().enumerate() {
        let way = if index == 0 { "mend:" } else { "  or:" };
        match mend {
            // Never broken into lines.
            Mend::Command(command) => {
                let _ = writeln!(text, "{blank}{way} {}", paint(color, "1", &clean(command)));
            }
            Mend::Words(words) => {
                let _ = writeln!(text, "{blank}{way} {}", wrapped(words, INDENT + way.len() + 1));
            }
        }
    }
}

fn code(level: Level) -> &'static str {
    match level {
        Level::Ok => "32",
        Level::Note => "36",
        Level::Warning => "33",
        Level::Error => "1;31",
    }
}

/// Broken at blanks, so that no line is longer than the screen; the first begins at that column, and later ones too.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in clean(text).split(' ') {
        let width = word.chars().count();
        if column > indent && column + 1 + width > WIDTH {
            let _ = write!(lines, "\n{}", " ".repeat(indent));
            column = indent;
        }
        if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
    }
    lines
}

fn count(diagnosis: &Diagnosis, level: Level) -> usize {
    diagnosis.findings.iter().filter(|finding| finding.level == level).count()
}

fn verdict(diagnosis: &Diagnosis, color: bool) -> String {
    let number = |level: Level| count(diagnosis, level);
    let plural = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let (errors, warnings) = (number(Level::Error), number(Level::Warning));
    let rest = format!("{}, {} ok", plural(number(Level::Note), "note"), number(Level::Ok));
    let judged = match (errors, warnings) {
        (0, 0) => paint(color, "32", "all is well"),
        (0, warnings) => paint(color, "33", &plural(warnings, "warning")),
        (errors, 0) => paint(color, "1;31", &plural(errors, "error")),
        (errors, warnings) => {
            format!("{}, {}", paint(color, "1;31", &plural(errors, "error")), plural(warnings, "warning"))
        }
    };
    let unseen = if diagnosis.reached { "" } else { "; without a broker its queues and rights were not seen" };
    format!("{judged}: {rest}{unseen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(levels: &[Level]) -> Diagnosis {
        let findings = levels.iter().map(|level| {
            let told = Finding::new(
                Area::Queues,
                *level,
                "queue",
                "queue \"work\" is something that takes a whole line and a half of the screen to be told",
            );
            if *level > Level::Note {
                told.why("It matters.").run(&["rabbitmqctl", "a b"]).or("or by hand")
            } else {
                told
            }
        });
        Diagnosis { findings: findings.collect(), reached: true }
    }

    #[test]
    fn lines_fit_the_screen_and_marks_are_words() {
        let expect = "
queues
  ok       queue \"work\" is something that takes a whole line and a half of the
           screen to be told
  warning  queue \"work\" is something that takes a whole line and a half of the
           screen to be told
           It matters.
           mend: rabbitmqctl 'a b'
             or: or by hand

1 warning: 0 notes, 1 ok
";
        assert_eq!(render(&diagnosis(&[Level::Ok, Level::Warning]), false), expect);
        assert!(render(&diagnosis(&[Level::Ok]), true).contains("\u{1b}[32mok"));
    }

    #[test]
    fn the_exit_code_tells_the_worst() {
        let code = |levels: &[Level]| exit(&diagnosis(levels)) as i32;
        assert_eq!(code(&[Level::Ok, Level::Note, Level::Warning]), 0);
        assert_eq!(code(&[Level::Ok, Level::Error]), 1);
        assert_eq!(exit(&Diagnosis { reached: false, ..diagnosis(&[Level::Ok]) }) as i32, 69);
    }

    #[test]
    fn json_says_all_of_it() {
        let value = to_json(&diagnosis(&[Level::Error]), &json!([]));
        assert_eq!(value["counts"], json!({"ok": 0, "note": 0, "warning": 0, "error": 1}));
        assert_eq!(value["schema"], 1);
        let finding = &value["findings"][0];
        assert_eq!(
            (&finding["area"], &finding["level"], &finding["code"]),
            (&json!("queues"), &json!("error"), &json!("queue"))
        );
        assert_eq!(finding["mends"], json!([{"command": "rabbitmqctl 'a b'"}, {"words": "or by hand"}]));
    }
}
