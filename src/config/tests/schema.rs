//! The schema and the parser say the same, as far as a schema can.
//!
//! Each good configuration of these tests is put to the schema, and each faulty one whose fault a schema can see.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::super::sketch::Want;
use super::super::{load, schema, shape};
use super::*;

static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&schema::schema()).expect("the schema is one"));

/// A file as a validator sees it; `None` where it is no TOML.
fn json(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(text).ok()?;
    serde_json::to_value(table).ok()
}

/// Fails unless the schema takes the file.
pub fn accept(path: &Path) {
    let text = std::fs::read_to_string(path).expect("it has just been read");
    let value = json(&text).expect("it has just been parsed");
    let errors: Vec<String> =
        VALIDATOR.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{text}\n{errors:#?}");
}

/// Faults that a schema sees: what a value is, which keys there are, and which must be.
const SEEN: [&str; 16] = [
    "unknown key",
    " must be a",
    " is a number without a unit",
    " is not a duration",
    " is not a size",
    " is out of range",
    " cannot be \"",
    "`prefetch` cannot be 0",
    "this job has no queue",
    "this job has no handler",
    "this queue has no name",
    "this binding has no",
    "both `queue` and `queues`",
    " is a second handler",
    " handler has no `",
    "does not say what it matches",
];

/// Fails unless the schema finds fault with what the parser refuses for a reason that a schema can see.
pub fn reject(text: &str, report: &Report) {
    let seen = |message: &str| {
        // To JSON Schema 4.0 is a whole number, and a string with a variable may be anything.
        SEEN.iter().any(|part| message.contains(part)) && !message.contains("not a float") && !text.contains("${")
    };
    if let Some(entry) = report.entries.iter().find(|entry| seen(&entry.message))
        && let Some(value) = json(text)
    {
        assert!(!VALIDATOR.is_valid(&value), "{}: the schema takes this\n{text}", entry.message);
    }
}

#[test]
fn the_schema_is_one() {
    let schema = schema::schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let committed = include_str!("../../../config/warrend.schema.json");
    // Not the two of them in the message: they are long.
    assert!(schema::schema_text() == committed, "config/warrend.schema.json is not up to date: run `make schema`");
}

/// A key that is known and that nobody reads would be an option that does nothing.
#[test]
fn every_key_that_is_known_is_read() {
    let mut seen = BTreeSet::new();
    for node in load::sketch() {
        for want in &node.wants {
            if let Want::Table(shape) = want {
                let read: BTreeSet<&str> = node.keys.keys().map(String::as_str).collect();
                let known: BTreeSet<&str> = shape.keys.iter().copied().collect();
                assert_eq!(read, known, "the keys of {} that are read, and those that are known", shape.name);
                seen.insert(shape.name);
            }
        }
        assert!(!node.wants.is_empty(), "nobody says what {node:?} takes");
    }
    assert_eq!(seen, shape::ALL.iter().map(|shape| shape.name).collect());
}

#[test]
fn what_comes_with_warrend_is_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for file in
        ["warrend.toml", "minimal.toml", "demo.toml", "instance.toml", "installed.toml", "jobs.d/mail.toml.example"]
    {
        let path = folder.join(file);
        accept(&path);
        let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
        let named = first.strip_prefix("#:schema ").unwrap_or_else(|| panic!("{file} names its schema: {first}"));
        assert!(path.parent().unwrap().join(named).is_file(), "{file}: {named}");
    }
}

#[test]
fn what_editors_show_is_there() {
    let schema = schema::schema();
    let job = &schema["properties"]["jobs"]["additionalProperties"];
    let heartbeat = &schema["properties"]["broker"]["properties"]["heartbeat"];
    assert_eq!(heartbeat["default"], "15s");
    assert!(heartbeat["description"].as_str().unwrap().contains("the broker may choose a shorter time"));
    assert_eq!(job["properties"]["order"]["anyOf"][0]["enum"], serde_json::json!(["weighted", "strict"]));
    assert_eq!(job["properties"]["concurrency"]["maximum"], 1024);
    // What depends on other keys is said in words.
    assert_eq!(job["properties"]["prefetch"].get("default"), None);
    assert_eq!(job["required"], serde_json::json!(["handler"]));
    let reconnect = &schema["properties"]["broker"]["properties"]["reconnect"];
    assert_eq!(reconnect["properties"]["max"]["default"], "30s");
}

#[test]
fn variables_may_stand_anywhere_in_strings() {
    let text = "broker.urls = [\"${URL}\"]\nstore = { synchronous = \"${MODE}\", retention = \"${DAYS}d\" }\n\
                [jobs.a]\nqueue = \"q\"\nmax_body = \"${SIZE:-1MiB}\"\nhandler.discard = true\n";
    assert!(VALIDATOR.is_valid(&json(text).unwrap()));
    assert!(!VALIDATOR.is_valid(&json(&text.replace("${DAYS}d", "14 days")).unwrap()));
}
