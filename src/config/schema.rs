//! The JSON Schema of the configuration, for editors and for whoever checks files before they are deployed.
//!
//! Keys, types, words and bounds are those that the readers note in a sketch; what explains a key, and its default, come
//! from config/warrend.toml. A schema cannot say all that `warrend check` says: the length of a duration, and what takes two
//! keys to see, is left to that.

use serde_json::{Map, Value, json};

use super::load;
use super::reference::{Entry, Reference, reference};
use super::shape::{self, Shape};
use super::sketch::{Node, Rule, Want};

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// A string that takes a variable may be anything: its value is not known.
const VARIABLE: &str = r"\$\{";

/// The schema as text, as it is kept in config/warrend.schema.json.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// The schema. One for the main file and for those in jobs.d.
pub fn schema() -> Value {
    let drawing = Drawing { nodes: load::sketch(), reference: reference() };
    let about = "The configuration of warrend, a task-worker daemon for RabbitMQ. `warrend check` finds more than a schema can.";
    let mut schema =
        object([("$schema", json!(DIALECT)), ("title", json!("warrend.toml")), ("description", json!(about))]);
    schema.extend(drawing.table(&drawing.nodes[0], &shape::ROOT, None));
    // A file of jobs.d has jobs and nothing else; any other is the main file.
    let alone = json!({ "propertyNames": { "enum": shape::JOBS_FILE.keys } });
    schema.insert("anyOf".to_owned(), json!([{ "required": ["broker"] }, alone]));
    Value::Object(schema)
}

struct Drawing {
    nodes: Vec<Node>,
    reference: Reference,
}

type Object = Map<String, Value>;

fn object<const N: usize>(pairs: [(&str, Value); N]) -> Object {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

impl Drawing {
    /// What a value may be. `default`: what stands for it where it is part of a default.
    fn value(&self, node: &Node, default: Option<&Value>) -> Object {
        let said = node.wants.iter().any(|want| matches!(want, Want::Words(_) | Want::Form(_)));
        let wants: Vec<&Want> = node.wants.iter().filter(|want| !(said && **want == Want::Text)).collect();
        let mut forms = Vec::new();
        for want in &wants {
            forms.extend(self.want(node, want, default));
        }
        if forms.len() == 1 {
            return forms.pop().unwrap_or_default();
        }
        object([("anyOf", Value::Array(forms.into_iter().map(Value::Object).collect()))])
    }

    /// One thing that it may be, in one form or two.
    fn want(&self, node: &Node, want: &Want, default: Option<&Value>) -> Vec<Object> {
        let text = |pattern: String| object([("type", json!("string")), ("pattern", json!(pattern))]);
        let or_variable = |form: &str| text(format!("({form})|{VARIABLE}"));
        vec![match want {
            Want::Anything => Object::new(),
            Want::Boolean => object([("type", json!("boolean"))]),
            Want::Integer(least, most) => {
                bounded("integer", (json!(least), *least > i64::MIN), (json!(most), *most < i64::MAX))
            }
            Want::Number(least, most) => bounded("number", (json!(least), true), (json!(most), true)),
            Want::Duration => or_variable("^[0-9]+(ms|s|m|h|d)$"),
            Want::Size => or_variable("^[0-9]+(B|[KMG]iB|[kMG]B)$"),
            Want::Words(words) => return vec![object([("enum", json!(words))]), text(VARIABLE.to_owned())],
            Want::Form(form) => or_variable(form),
            Want::Text => object([("type", json!("string"))]),
            Want::Table(shape) => self.table(node, shape, default),
            Want::Map => {
                let mut map = object([("type", json!("object"))]);
                for rule in &node.rules {
                    if let Rule::Names(form) = rule {
                        map.insert("propertyNames".to_owned(), json!({ "pattern": form }));
                    }
                }
                map.insert("additionalProperties".to_owned(), self.below(node.entry));
                map
            }
            Want::Array => object([("type", json!("array")), ("items", self.below(node.entry))]),
        }]
    }

    fn below(&self, node: Option<usize>) -> Value {
        node.map_or(json!(true), |node| Value::Object(self.value(&self.nodes[node], None)))
    }

    fn table(&self, node: &Node, shape: &Shape, default: Option<&Value>) -> Object {
        let mut properties = Object::new();
        for key in shape.keys {
            if let Some(below) = node.keys.get(*key) {
                properties.insert((*key).to_owned(), Value::Object(self.key(shape, key, &self.nodes[*below], default)));
            }
        }
        let mut table = Object::new();
        let said = self.reference.tables.iter().find(|table| table.header == shape.name);
        table.extend(said.map(|said| ("description".to_owned(), json!(said.text))));
        table.insert("type".to_owned(), json!("object"));
        table.insert("properties".to_owned(), Value::Object(properties));
        table.insert("additionalProperties".to_owned(), json!(false));
        rules(&node.rules, &mut table);
        table
    }

    /// A key of a table: what explains it comes first, as in an editor.
    fn key(&self, shape: &Shape, key: &str, node: &Node, default: Option<&Value>) -> Object {
        let entry = self.reference.entry(shape, key);
        let own = entry.and_then(default_of);
        let default = own.or_else(|| default.and_then(|table| table.get(key)).cloned());
        let mut schema = Object::new();
        if let Some(entry) = entry {
            schema.insert("description".to_owned(), json!(entry.text));
        }
        schema.extend(self.value(node, default.as_ref()));
        schema.extend(default.map(|default| ("default".to_owned(), default)));
        schema
    }
}

/// The default that the file shows, unless its words say that it is another one.
fn default_of(entry: &Entry) -> Option<Value> {
    let text = entry.default.filter(|_| !entry.text.contains("Default: "))?;
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

fn bounded(kind: &str, (least, from): (Value, bool), (most, to): (Value, bool)) -> Object {
    let mut schema = object([("type", json!(kind))]);
    schema.extend(from.then(|| ("minimum".to_owned(), least)));
    schema.extend(to.then(|| ("maximum".to_owned(), most)));
    schema
}

/// What is said of a table as a whole.
fn rules(rules: &[Rule], table: &mut Object) {
    let one_of = |keys: &[&str]| -> Vec<Value> { keys.iter().map(|key| json!({ "required": [key] })).collect() };
    let (mut required, mut all, mut beside) = (Vec::new(), Vec::new(), Object::new());
    for rule in rules {
        match rule {
            Rule::One([key]) => required.push(json!(key)),
            Rule::One(keys) => all.push(json!({ "oneOf": one_of(keys) })),
            Rule::Beside(key, keys) => drop(beside.insert((*key).to_owned(), json!({ "anyOf": one_of(keys) }))),
            Rule::Names(form) => drop(table.insert("propertyNames".to_owned(), json!({ "pattern": form }))),
        }
    }
    for (name, value) in [("required", required), ("allOf", all)] {
        if !value.is_empty() {
            table.insert(name.to_owned(), Value::Array(value));
        }
    }
    if !beside.is_empty() {
        table.insert("dependentSchemas".to_owned(), Value::Object(beside));
    }
}
