//! What the configuration may hold, as the code that reads it says: the ground of the JSON Schema.
//!
//! A sketch is a reading without a file. Every key of every table seems to stand in it, and each method of `Item` notes
//! what it takes instead of reading; it gives `None`, so that its caller goes on with the default. So a bound or a word of the
//! schema comes from the very call that judges it, and cannot be another one.
//!
//! Where a reader looks at the type of a value before it chooses a method, one pass is not enough: there is one for each
//! type of TOML, and what they note comes together.

use std::cell::RefCell;
use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::shape::Shape;

/// What a reader takes for a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// Whatever TOML has.
    Anything,
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds.
    Integer(i64, i64),
    /// A number within bounds.
    Number(f64, f64),
    /// A string with a duration.
    Duration,
    /// A string with a size.
    Size,
    /// One of these strings.
    Words(Vec<String>),
    /// A string that matches a regular expression.
    Form(&'static str),
    /// Any string: says nothing where a reader also says which strings.
    Text,
    /// A table with the keys of a shape.
    Table(&'static Shape),
    /// A table with keys of the user's choice.
    Map,
    /// An array.
    Array,
}

/// What a reader says of a table as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Exactly one of these keys must stand.
    One(&'static [&'static str]),
    /// The first key may stand only beside one of the others.
    Beside(&'static str, &'static [&'static str]),
    /// The keys of a user's choice match a regular expression.
    Names(&'static str),
}

/// A value of the configuration, wherever it may stand.
#[derive(Debug, Default)]
pub struct Node {
    /// What is taken, any of it; without repetitions.
    pub wants: Vec<Want>,
    /// The values of its keys, where it is a table of a shape.
    pub keys: BTreeMap<String, usize>,
    /// An entry of it, where it is an array, or a table with keys of the user's choice.
    pub entry: Option<usize>,
    /// What is said of it as a table.
    pub rules: Vec<Rule>,
}

/// All that was noted. Nodes name each other by their position; the first is the main file.
#[derive(Debug, Default)]
pub struct Sketch {
    nodes: RefCell<Vec<Node>>,
}

/// One reading for a sketch.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// Where to note.
    pub sketch: &'a Sketch,
    /// What every value seems to be.
    pub probe: &'a DeValue<'a>,
}

impl Sketch {
    /// With the node of the main file.
    pub fn new() -> Self {
        Self { nodes: RefCell::new(vec![Node::default()]) }
    }

    /// The value of a key.
    pub fn key(&self, node: usize, key: &str) -> usize {
        let mut nodes = self.nodes.borrow_mut();
        let new = nodes.len();
        let found = *nodes[node].keys.entry(key.to_owned()).or_insert(new);
        if found == new {
            nodes.push(Node::default());
        }
        found
    }

    /// An entry.
    pub fn entry(&self, node: usize) -> usize {
        let mut nodes = self.nodes.borrow_mut();
        let new = nodes.len();
        let found = *nodes[node].entry.get_or_insert(new);
        if found == new {
            nodes.push(Node::default());
        }
        found
    }

    /// Notes what is taken.
    pub fn want(&self, node: usize, want: Want) {
        let wants = &mut self.nodes.borrow_mut()[node].wants;
        if !wants.contains(&want) {
            wants.push(want);
        }
    }

    /// Notes what is said of a table.
    pub fn rule(&self, node: usize, rule: Rule) {
        let rules = &mut self.nodes.borrow_mut()[node].rules;
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }

    /// The nodes, the main file first.
    pub fn into_nodes(self) -> Vec<Node> {
        self.nodes.into_inner()
    }
}

/// One value of each type that readers tell apart. A number as text comes first: what takes it as a string says more.
pub fn probes() -> [DeValue<'static>; 4] {
    let number = DeTable::parse("value = 1").ok().and_then(|table| table.into_inner().remove("value"));
    let number = number.expect("a whole number is TOML").into_inner();
    [DeValue::String("".into()), number, DeValue::Array(toml::de::DeArray::new()), DeValue::Table(DeTable::new())]
}
