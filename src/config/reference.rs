//! config/warrend.toml taken apart: what it says of each key. The manual and the JSON Schema explain with its words.
//!
//! In that file prose begins with `# `, and what stands below it is what it explains: a table, a key with its default, or a
//! key in a comment, which has none. A second example of the same key, with prose of its own or without, belongs to the first.
//! What must stand, as the URLs, or is one of several ways, as a command, has no default though it stands there.

use super::load;
use super::shape::Shape;
use super::sketch::{Rule, Want};

const FILE: &str = include_str!("../../config/warrend.toml");
/// What its example job is called there.
const EXAMPLE_JOB: &str = "jobs.thumbnails";

/// The whole file.
#[derive(Debug)]
pub struct Reference {
    /// What stands before the first table, by paragraphs of one line or more.
    pub preface: Vec<Vec<&'static str>>,
    /// Its tables in their order.
    pub tables: Vec<Table>,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    /// As in the file, with `NAME` for the job: `[jobs.NAME.handler]`.
    pub header: String,
    /// What is said of it.
    pub text: String,
    /// Its keys in their order.
    pub entries: Vec<Entry>,
}

/// One key.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: &'static str,
    /// Its value as TOML, where it stands there with its default.
    pub default: Option<&'static str>,
    /// Whole lines that show how it is written, where that is not its default.
    pub examples: Vec<&'static str>,
    /// What is said of it.
    pub text: String,
    /// As it stands in the file.
    line: &'static str,
}

impl Reference {
    /// What is said of a key of a shape.
    pub fn entry(&self, shape: &Shape, key: &str) -> Option<&Entry> {
        let table = self.tables.iter().find(|table| table.header == shape.name)?;
        table.entries.iter().find(|entry| entry.key == key)
    }
}

/// Takes the file apart.
pub fn reference() -> Reference {
    let mut reference = parse(FILE);
    for node in load::sketch() {
        let shapes =
            node.wants.iter().filter_map(|want| if let Want::Table(shape) = want { Some(*shape) } else { None });
        for shape in shapes {
            let table = reference.tables.iter_mut().find(|table| table.header == shape.name);
            let must_stand = |key| node.rules.iter().any(|rule| matches!(rule, Rule::One(keys) if keys.contains(&key)));
            for entry in table.into_iter().flat_map(|table| &mut table.entries).filter(|entry| must_stand(entry.key)) {
                if let Some(line) = entry.default.take().map(|_| entry.line)
                    && !entry.examples.contains(&line)
                {
                    entry.examples.insert(0, line);
                }
            }
        }
    }
    reference
}

fn parse(text: &'static str) -> Reference {
    let mut reference = Reference { preface: Vec::new(), tables: Vec::new() };
    let mut prose: Vec<&'static str> = Vec::new();
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# ") {
            prose.push(said);
        } else if line.starts_with('[') {
            let header = line.replace(EXAMPLE_JOB, "jobs.NAME");
            reference.tables.push(Table { header, text: take(&mut prose), entries: Vec::new() });
        } else if let Some(table) = reference.tables.last_mut() {
            if let Some((key, value)) = line.strip_prefix('#').unwrap_or(line).split_once(" = ") {
                table.add(key, value, line, take(&mut prose));
            }
        } else if !prose.is_empty() {
            reference.preface.push(std::mem::take(&mut prose));
        }
    }
    reference
}

/// The lines in one, as the text of a paragraph.
fn take(prose: &mut Vec<&'static str>) -> String {
    std::mem::take(prose).join(" ").replace(EXAMPLE_JOB, "jobs.NAME")
}

impl Table {
    fn add(&mut self, key: &'static str, value: &'static str, line: &'static str, text: String) {
        let example = line.strip_prefix('#');
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) {
            entry.examples.extend(example);
            if !text.is_empty() {
                entry.text = format!("{} {text}", entry.text);
            }
            return;
        }
        let default = if example.is_none() { Some(value) } else { None };
        self.entries.push(Entry { key, default, examples: example.into_iter().collect(), text, line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::shape;

    #[test]
    fn the_file_is_taken_apart() {
        let reference = reference();
        assert!(reference.preface.len() >= 3, "{:?}", reference.preface);
        let first = &reference.tables[0];
        assert_eq!((&*first.header, first.entries[0].key), ("[broker]", "urls"));
        let heartbeat = reference.entry(&shape::BROKER, "heartbeat").unwrap();
        assert_eq!(heartbeat.default, Some("\"15s\""));
        let urls = reference.entry(&shape::BROKER, "urls").unwrap();
        assert_eq!((urls.default, urls.examples.len()), (None, 1));
        assert_eq!(reference.entry(&shape::HANDLER, "command").unwrap().default, None);
        assert!(heartbeat.text.starts_with("Whole seconds, "), "{heartbeat:?}");
        let file = reference.entry(&shape::BROKER, "password_file").unwrap();
        assert_eq!((file.default, file.examples.len()), (None, 1));
        let prefetch = reference.entry(&shape::JOB, "prefetch").unwrap();
        assert_eq!((prefetch.default, &*prefetch.examples), (Some("8"), &["prefetch = \"auto\""][..]));
        assert_eq!(reference.entry(&shape::HANDLER, "forward").unwrap().examples.len(), 2);
    }

    /// What explains a key is found by its table: so each table that has a header in the file is called as there.
    #[test]
    fn every_key_is_explained() {
        let reference = reference();
        for table in &reference.tables {
            let shape = shape::ALL.iter().find(|shape| shape.name == table.header);
            let shape = shape.unwrap_or_else(|| panic!("no shape is called {}", table.header));
            for entry in &table.entries {
                assert!(shape.keys.contains(&entry.key), "{} {}", table.header, entry.key);
                assert!(entry.text.len() > 20, "{} of {} is not explained: {:?}", entry.key, table.header, entry.text);
            }
            // A key that is a table with a header of its own is explained there.
            for key in shape.keys {
                let own = format!("{}.{key}", table.header.trim_matches(['[', ']']));
                let apart = reference.tables.iter().any(|other| other.header.trim_matches(['[', ']']) == own);
                let here = table.entries.iter().any(|entry| entry.key == *key);
                assert_ne!(apart, here, "{key} of {}", table.header);
            }
        }
    }
}
