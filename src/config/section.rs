//! Reading one table: typed values with their places, and everything that is wrong with them.
//!
//! Nothing here stops at an error. A faulty value is noted and a stand-in goes on, so that one run finds all errors;
//! the configuration that comes out is thrown away when there was one.

use std::cell::RefCell;
use std::path::Path;

use toml::de::DeTable;

use super::item::Item;
use super::mask;
use super::place::Place;
use super::report::{Finding, Kind, Level};
use super::shape::{Shape, nearest};
use super::sketch::{Pass, Rule, Want};

/// What all sections of one reading share.
pub struct Reader<'a> {
    /// Gives the value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Relative paths are taken from here.
    pub folder: &'a Path,
    /// Set where nothing is read, but noted what would be.
    pub pass: Option<Pass<'a>>,
    /// Whether the files that the configuration names are judged too.
    pub inspects_files: bool,
    findings: RefCell<Vec<Finding>>,
}

/// One table of a file; empty where the file does not have it.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    reader: &'a Reader<'a>,
    table: Option<&'a DeTable<'a>>,
    /// Its node, in a sketch.
    node: Option<usize>,
    /// Which keys it may have; `None` in a sketch.
    shape: Option<&'static Shape>,
    /// Its key, or the place of the table above it where it is not written.
    pub place: Place,
    /// False where something else stands in place of the table: that is noted, and what it lacks is not missing.
    pub good: bool,
}

/// A value, and where it came from.
#[derive(Debug, Clone)]
pub struct Got<T> {
    /// The value; the default where the file has none or a faulty one.
    pub value: T,
    /// Where it stands, if the file has it.
    pub at: Option<Place>,
    /// False where the file has a faulty one: nothing may be concluded from `value` then.
    pub good: bool,
}

impl<T> Got<T> {
    /// Both values, where both can be relied on.
    pub fn both<U>(&self, other: &Got<U>) -> bool {
        self.good && other.good
    }
}

impl<'a> Reader<'a> {
    /// Nothing noted yet.
    pub fn new(env: &'a dyn Fn(&str) -> Option<String>, folder: &'a Path) -> Self {
        Self { env, folder, pass: None, inspects_files: false, findings: RefCell::new(Vec::new()) }
    }

    /// Where to note for a sketch, and for which node.
    pub fn sketching(&self, node: Option<usize>) -> Option<(Pass<'a>, usize)> {
        self.pass.zip(node)
    }

    /// Notes an error.
    pub fn error(&self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.note(Finding {
            level: Level::Error,
            kind: Kind::Fault,
            place,
            message: message.into(),
            help: Some(help.into()),
            also: None,
        });
    }

    /// Notes that something is absent.
    pub fn missing(&self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.note(Finding {
            level: Level::Error,
            kind: Kind::Missing,
            place,
            message: message.into(),
            help: Some(help.into()),
            also: None,
        });
    }

    /// Notes an error that takes two places.
    pub fn clash(
        &self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
        also: (Place, &'static str),
    ) {
        self.note(Finding {
            level: Level::Error,
            kind: Kind::Fault,
            place,
            message: message.into(),
            help: Some(help.into()),
            also: Some(also),
        });
    }

    /// Notes a warning.
    pub fn warn(&self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.note(Finding {
            level: Level::Warning,
            kind: Kind::Fault,
            place,
            message: message.into(),
            help: Some(help.into()),
            also: None,
        });
    }

    /// Notes anything.
    pub fn note(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }

    /// All that was noted.
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner()
    }
}

impl<'a> Section<'a> {
    /// The table of a file. Reports keys that `shape` does not have.
    pub fn new(reader: &'a Reader<'a>, table: &'a DeTable<'a>, place: Place, shape: &'static Shape) -> Self {
        for key in table.keys() {
            if !shape.keys.contains(&key.get_ref().as_ref()) {
                let name = mask::quote(key.get_ref());
                let place = Place::of(place.file, key.span());
                reader.error(place, format!("unknown key `{name}`"), shape.mend(key.get_ref()));
            }
        }
        Self { reader, table: Some(table), node: None, shape: Some(shape), place, good: true }
    }

    /// A table of a sketch.
    pub fn sketched(reader: &'a Reader<'a>, pass: Pass<'a>, node: usize, shape: &'static Shape) -> Self {
        pass.sketch.want(node, Want::Table(shape));
        Self { reader, table: None, node: Some(node), shape: None, place: Place::whole(0), good: true }
    }

    /// Says what cannot be seen from the reading of single keys, for the schema.
    pub fn rule(&self, rule: Rule) {
        if let Some((pass, node)) = self.reader.sketching(self.node) {
            pass.sketch.rule(node, rule);
        }
    }

    /// Where to note what is wrong.
    pub fn reader(&self) -> &'a Reader<'a> {
        self.reader
    }

    /// Notes that none of these keys stands here, unless one of them is here with a slip of the pen: that is told already.
    pub fn lacks(&self, keys: &[&'static str], place: Place, message: impl Into<String>, help: impl Into<String>) {
        if !self.misspells(keys) {
            self.reader.missing(place, message, help);
        }
    }

    /// Whether an unknown key stands here that was probably meant as one of these.
    pub fn misspells(&self, keys: &[&'static str]) -> bool {
        let Some(shape) = self.shape else { return false };
        let is_meant = |key: &str| {
            !shape.keys.contains(&key) && nearest(key, shape.keys).is_some_and(|meant| keys.contains(&meant))
        };
        self.table.is_some_and(|table| table.keys().any(|key| is_meant(key.get_ref())))
    }

    /// The value of a key.
    pub fn item(&self, key: &'a str) -> Option<Item<'a>> {
        if let Some((pass, node)) = self.reader.sketching(self.node) {
            return Some(Item::sketched(self.reader, pass, key, pass.sketch.key(node, key)));
        }
        let (written, value) = self.table?.get_key_value(key)?;
        Some(Item::below(self.reader, self.place.file, key, written, value))
    }

    /// The value of a key as `read` takes it, or the default. `read` notes what is wrong and gives `None` then.
    pub fn get<T>(&self, key: &'a str, default: T, read: impl FnOnce(Item<'a>) -> Option<T>) -> Got<T> {
        let Some(item) = self.item(key) else {
            return Got { value: default, at: None, good: true };
        };
        let at = Some(item.place);
        match read(item) {
            Some(value) => Got { value, at, good: true },
            None => Got { value: default, at, good: false },
        }
    }

    /// The table below a key; an empty one where it is absent or no table.
    pub fn section(&self, key: &'a str, shape: &'static Shape) -> Self {
        let absent = Self { table: None, node: None, ..*self };
        let faulty = Self { good: false, ..absent };
        self.item(key).map_or(absent, |item| item.section(shape).unwrap_or(faulty))
    }
}
