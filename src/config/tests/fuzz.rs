//! No text makes the loader panic, and every finding has a place that is there.

use proptest::prelude::*;

use super::Folder;
use crate::config::Handler;
use crate::config::report::{Report, Spot};

/// The shipped file: every key stands in it, many of them commented out.
const SHIPPED: &str = include_str!("../../../config/warrend.toml");

/// Pieces of TOML: in any order they come nearer to what people write than any text does.
fn piece() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("[broker]\n"),
        Just("urls = "),
        Just("[\"amqp://u:p@h/"),
        Just("\"]\n"),
        Just("[jobs.a]\n"),
        Just("[[jobs.a.queues]]\n"),
        Just("queue = "),
        Just("name = \"q\"\n"),
        Just("{ "),
        Just(" }"),
        Just("[jobs.a.handler]\n"),
        Just("command = [\"x\"]\n"),
        Just("forward = { exchange = \"{"),
        Just("retry.max = "),
        Just("\"1h\"\n"),
        Just("1\n"),
        Just("\n"),
        Just("\""),
        Just("'''"),
        Just("\"\"\""),
        Just("é"),
        Just("${"),
        Just("${NAME}"),
        Just("-1.5e9"),
        Just("bindings = "),
        Just("arguments = "),
        Just(","),
        Just("# "),
        Just("\\"),
        Just("\\u00e9"),
        Just("\r\n"),
        Just("\u{feff}"),
        Just("\u{202e}"),
        Just("\0"),
        Just("]"),
        Just("9999999999999999999"),
        Just("\"99999d\""),
        Just("1979-05-27"),
        Just("true"),
    ]
}

/// What may be done to a file: a range of it is replaced, and commented keys are put into force.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, String)>> {
    let new = prop_oneof![3 => piece().prop_map(str::to_owned), 1 => any::<String>(), 2 => Just(String::new())];
    prop::collection::vec((any::<prop::sample::Index>(), 0..30_usize, new), 1..5)
}

fn changed(changes: Vec<(prop::sample::Index, usize, String)>, uncommented: &[bool]) -> Vec<u8> {
    let mut forced = uncommented.iter().cycle();
    let lines = SHIPPED.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && *forced.next().unwrap_or(&false) => key,
        Some(_) | None => line,
    });
    let mut bytes = lines.collect::<Vec<_>>().join("\n").into_bytes();
    for (at, length, new) in changes {
        let at = at.index(bytes.len().max(1));
        let end = (at + length).min(bytes.len());
        bytes.splice(at.min(end)..end, new.into_bytes());
    }
    bytes
}

/// Loads it, and looks at every finding.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let folder = Folder::new("");
    folder.write("warrend.toml", bytes);
    let report = match folder.load() {
        Ok(loaded) => loaded.warnings,
        Err(report) => {
            prop_assert!(report.errors() > 0);
            report
        }
    };
    let text = String::from_utf8_lossy(bytes);
    for entry in &report.entries {
        check_spot(&entry.spot, &text)?;
        if let Some((spot, _)) = &entry.also {
            check_spot(spot, &text)?;
        }
        let said = format!("{}{}", entry.message, entry.help.as_deref().unwrap_or_default());
        prop_assert!(said.chars().all(|c| !c.is_control()), "{:?}", said);
    }
    check_shown(&report)
}

fn check_spot(spot: &Spot, text: &str) -> Result<(), TestCaseError> {
    let Some(line) = &spot.line else { return Ok(()) };
    let its = text.split('\n').nth(line.line - 1);
    prop_assert!(its.is_some_and(|its| (1..=its.chars().count() + 1).contains(&line.column)), "{:?}", spot);
    // The caret lies in the line as it is shown.
    prop_assert!(line.text.get(line.caret.clone()).is_some(), "{:?}", spot);
    Ok(())
}

fn check_shown(report: &Report) -> Result<(), TestCaseError> {
    let (plain, coloured) = (report.render(false), report.render(true));
    prop_assert_eq!(plain.is_empty(), coloured.is_empty());
    prop_assert!(plain.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", plain);
    let json = report.to_json();
    prop_assert_eq!(json.as_array().map(Vec::len), Some(report.entries.len()));
    Ok(())
}

proptest! {
    #[test]
    fn any_text_gives_a_result(text in ".*\n.*\n.*") {
        check(text.as_bytes())?;
    }

    #[test]
    fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
    }

    #[test]
    fn any_mixture_gives_a_result(pieces in prop::collection::vec(piece(), 0..40)) {
        check(pieces.concat().as_bytes())?;
    }

    #[test]
    fn the_shipped_file_with_changes_gives_a_result(changes in changes(), uncommented in prop::collection::vec(any::<bool>(), 1..60)) {
        check(&changed(changes, &uncommented))?;
    }

    #[test]
    fn any_template_gives_a_result(text in prop_oneof![any::<String>(), "[a-z{}.:]{0,30}", "\\{[a-z_:]{1,12}\\}"]) {
        check(with_routing_key(&text).as_bytes())?;
    }

    /// With its braces doubled, a text is no more than itself.
    #[test]
    fn a_plain_text_is_its_own_template(text in "[^\0]{1,60}") {
        prop_assume!(!text.contains("${"));
        let doubled = text.replace('{', "{{").replace('}', "}}");
        let loaded = Folder::new(&with_routing_key(&doubled)).good();
        let Handler::Forward(forward) = &loaded.config.jobs[0].handler else {
            return Err(TestCaseError::fail("it is no forward"));
        };
        prop_assert_eq!(forward.routes[0].to.routing_key.literal(), Some(text));
    }
}

fn with_routing_key(text: &str) -> String {
    let text = toml::Value::from(text);
    format!(
        "[broker]\nurls = [\"amqp://h\"]\n[jobs.j]\nqueue = \"q\"\n\
         handler.forward = {{ exchange = \"x\", routing_key = {text} }}\n"
    )
}
