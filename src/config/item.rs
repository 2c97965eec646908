//! Reading one value: each method takes one type, notes what is wrong with it, and gives `None` then.

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::environment::{self, Fault};
use super::mask;
use super::place::Place;
use super::section::{Reader, Section};
use super::shape::{Shape, nearest};
use super::sketch::{Pass, Rule, Want};
use super::value::{parse_duration, parse_size, show_duration};

/// A key of the user's choice, in a sketch: good wherever there are such keys.
const ANY_NAME: &str = "x-NAME";

/// One value of a file.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    reader: &'a Reader<'a>,
    /// How messages call it: its key, or "an entry of" its key.
    name: &'a str,
    in_array: bool,
    /// Its node, in a sketch.
    node: Option<usize>,
    value: &'a DeValue<'a>,
    /// Where the value stands.
    pub place: Place,
    /// Where its key stands.
    pub key_place: Place,
}

/// A string, expanded.
#[derive(Debug, Clone)]
pub struct Text<'a> {
    /// With the values of its variables.
    pub value: String,
    raw: &'a str,
}

/// Bounds of a duration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    least: Duration,
    most: Duration,
    whole_seconds: bool,
}

impl Limits {
    /// From `least` to `most`, both allowed.
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, whole_seconds: false }
    }

    /// Without fractions of a second.
    pub const fn whole_seconds(self) -> Self {
        Self { whole_seconds: true, ..self }
    }

    /// Whether `duration` lies within.
    pub fn allow(&self, duration: Duration) -> bool {
        (self.least..=self.most).contains(&duration) && (!self.whole_seconds || duration.subsec_nanos() == 0)
    }

    fn describe(&self) -> String {
        let whole = if self.whole_seconds { ", in whole seconds" } else { "" };
        format!("allowed: \"{}\" to \"{}\"{whole}", show_duration(self.least), show_duration(self.most))
    }
}

impl Text<'_> {
    /// The text as a message may show it: as the file has it, since a variable may hold a secret.
    pub fn shown(&self) -> String {
        mask::quote(self.raw)
    }
}

impl<'a> Item<'a> {
    /// The value of `key` in a table of `file`, called `name`.
    pub fn below(
        reader: &'a Reader<'a>,
        file: usize,
        name: &'a str,
        key: &Spanned<DeString<'_>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        Self {
            reader,
            name,
            in_array: false,
            node: None,
            value: value.get_ref(),
            place: Place::of(file, value.span()),
            key_place: Place::of(file, key.span()),
        }
    }

    /// The value of a key in a sketch.
    pub fn sketched(reader: &'a Reader<'a>, pass: Pass<'a>, name: &'a str, node: usize) -> Self {
        let place = Place::whole(0);
        Self { reader, name, in_array: false, node: Some(node), value: pass.probe, place, key_place: place }
    }

    /// Notes what is taken, in a sketch; there it gives `None`, so that nothing is read.
    pub fn want(&self, want: Want) -> Option<()> {
        let Some((pass, node)) = self.reader.sketching(self.node) else { return Some(()) };
        pass.sketch.want(node, want);
        None
    }

    /// Says what the names of a table with keys of the user's choice look like, for the schema.
    pub fn names(&self, form: &'static str) {
        if let Some((pass, node)) = self.reader.sketching(self.node) {
            pass.sketch.rule(node, Rule::Names(form));
        }
    }

    /// Notes that the value is wrong. Gives `None`, so that a reader can end with it.
    pub fn error<T>(&self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.reader.error(self.place, message, help);
        None
    }

    /// Where a part of its text stands in the file; the whole value where variables or escapes stand between.
    pub fn within(&self, text: &Text<'_>, part: Range<usize>) -> Place {
        let written =
            self.place.bytes.filter(|(start, end)| end - start == text.raw.len() + 2 && text.raw == text.value);
        match written {
            // An empty part is shown where it would stand.
            Some((start, _)) => {
                Place::of(self.place.file, start + 1 + part.start..start + 1 + part.end.max(part.start + 1))
            }
            None => self.place,
        }
    }

    /// Where to note what is wrong.
    pub fn reader(&self) -> &'a Reader<'a> {
        self.reader
    }

    /// How messages call it.
    pub fn name(&self) -> String {
        if self.in_array { format!("an entry of `{}`", self.name) } else { format!("`{}`", self.name) }
    }

    /// Its key as the file has it.
    pub fn key(&self) -> &'a str {
        self.name
    }

    /// The value itself.
    pub fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// A table with known keys.
    pub fn section(&self, shape: &'static Shape) -> Option<Section<'a>> {
        if let Some((pass, node)) = self.reader.sketching(self.node) {
            return Some(Section::sketched(self.reader, pass, node, shape));
        }
        match self.value.as_table() {
            Some(table) => Some(Section::new(self.reader, table, self.key_place, shape)),
            None => self.wrong_type("a table", &format!("allowed keys: {}", shape.keys.join(", "))),
        }
    }

    /// A table with keys of the user's choice.
    pub fn entries(&self) -> Option<Vec<(&'a str, Item<'a>)>> {
        if let Some((pass, node)) = self.reader.sketching(self.node) {
            pass.sketch.want(node, Want::Map);
            return Some(vec![(ANY_NAME, Self::sketched(self.reader, pass, ANY_NAME, pass.sketch.entry(node)))]);
        }
        let Some(table) = self.value.as_table() else {
            return self.wrong_type("a table", "write { KEY = \"value\" }");
        };
        let file = self.place.file;
        let entries = table.iter().map(|(key, value)| {
            let name: &str = key.get_ref();
            (name, Item::below(self.reader, file, name, key, value))
        });
        Some(entries.collect())
    }

    /// The entries of an array; `example` shows how to write one.
    pub fn array(&self, example: &str) -> Option<Vec<Item<'a>>> {
        if let Some((pass, node)) = self.reader.sketching(self.node) {
            pass.sketch.want(node, Want::Array);
            return Some(vec![Self::sketched(self.reader, pass, self.name, pass.sketch.entry(node))]);
        }
        let Some(array) = self.value.as_array() else {
            return self.wrong_type("an array", &format!("write {example}"));
        };
        let items = array.iter().map(|value| {
            let place = Place::of(self.place.file, value.span());
            Item { in_array: true, value: value.get_ref(), place, key_place: place, ..*self }
        });
        Some(items.collect())
    }

    /// A string with its variables replaced.
    pub fn text(&self) -> Option<Text<'a>> {
        self.want(Want::Text)?;
        let Some(raw) = self.value.as_str() else {
            return self.wrong_type("a string", "write it in quotes");
        };
        let fault = match environment::expand(raw, self.reader.env) {
            Ok(value) => return Some(Text { value, raw }),
            Err(fault) => fault,
        };
        match fault {
            Fault::Unset(name) => self.error(
                format!("the environment variable {name} is not set"),
                format!("set it, or give a default: ${{{name}:-default}}"),
            ),
            Fault::Unclosed => self.error("`${` without a `}`", "write ${NAME}, or $${ for a plain ${"),
            Fault::BadName => self.error(
                "what stands in `${ }` is no name of an environment variable",
                "allowed: ${NAME} and ${NAME:-default}, NAME of letters, digits and _; write $${ for a plain ${",
            ),
        }
    }

    /// A string that the system takes: not empty, without NUL.
    pub fn filled_text(&self) -> Option<Text<'a>> {
        let text = self.text()?;
        if text.value.is_empty() {
            return self.error(format!("{} is empty", self.name()), "leave the key out, or give it a value");
        }
        if text.value.contains('\0') {
            return self.error(format!("{} holds a NUL byte", self.name()), "remove it");
        }
        Some(text)
    }

    /// A path; a relative one is taken from the folder of the main configuration file.
    pub fn path(&self) -> Option<PathBuf> {
        Some(self.reader.folder.join(self.filled_text()?.value))
    }

    /// A path, or the name of a program that is looked up in `PATH`: that is one without a slash.
    pub fn program(&self) -> Option<String> {
        let name = self.filled_text()?.value;
        if !name.contains('/') {
            return Some(name);
        }
        // The rest came from a text; only the folder itself could be something else.
        Some(self.reader.folder.join(name).to_string_lossy().into_owned())
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        self.want(Want::Boolean)?;
        self.value.as_bool().or_else(|| self.wrong_type("a boolean", "allowed: true, false (without quotes)"))
    }

    /// A whole number within bounds, which must lie within those of its type.
    pub fn integer<T: TryFrom<i64>>(&self, allowed: RangeInclusive<i64>) -> Option<T> {
        self.want(Want::Integer(*allowed.start(), *allowed.end()))?;
        let range = if *allowed.end() == i64::MAX {
            format!("allowed: {} or more", allowed.start())
        } else {
            format!("allowed: {} to {}", allowed.start(), allowed.end())
        };
        let Some(integer) = self.value.as_integer() else {
            return self.wrong_type("an integer", &range);
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.filter(|value| allowed.contains(value)).and_then(|value| T::try_from(value).ok());
        value.or_else(|| self.error(format!("{} is out of range", self.name()), range))
    }

    /// A number within bounds; a whole one too.
    pub fn number(&self, allowed: RangeInclusive<f64>) -> Option<f64> {
        self.want(Want::Number(*allowed.start(), *allowed.end()))?;
        let range = format!("allowed: {:?} to {:?}", allowed.start(), allowed.end());
        let integer = self.value.as_integer().filter(|integer| integer.radix() == 10).map(|integer| integer.as_str());
        let Some(text) = self.value.as_float().map(|float| float.as_str()).or(integer) else {
            return self.wrong_type("a number", &range);
        };
        match text.parse() {
            Ok(value) if allowed.contains(&value) => Some(value),
            Ok(_) | Err(_) => self.error(format!("{} is out of range", self.name()), range),
        }
    }

    /// A duration within bounds.
    pub fn duration(&self, limits: Limits) -> Option<Duration> {
        self.want(Want::Duration)?;
        if let Some(integer) = self.value.as_integer() {
            let help = format!("write \"{integer}s\" for seconds; the units are ms, s, m, h, d");
            return self.error(format!("{} is a number without a unit", self.name()), help);
        }
        let duration = match parse_duration(&self.text()?.value) {
            Ok(duration) => duration,
            Err(mend) => return self.error(format!("{} is not a duration", self.name()), mend),
        };
        if limits.allow(duration) {
            return Some(duration);
        }
        self.error(format!("{} cannot be that duration", self.name()), limits.describe())
    }

    /// A size in bytes, at least 1.
    pub fn size(&self) -> Option<u64> {
        self.want(Want::Size)?;
        if let Some(integer) = self.value.as_integer() {
            let help = format!("write \"{integer}B\" for bytes; the units are B, KiB, MiB, GiB");
            return self.error(format!("{} is a number without a unit", self.name()), help);
        }
        match parse_size(&self.text()?.value) {
            Ok(0) => self.error(format!("{} must not be zero", self.name()), "allowed: \"1B\" or more"),
            Ok(size) => Some(size),
            Err(mend) => self.error(format!("{} is not a size", self.name()), mend),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.want(Want::Words(words.iter().map(|word| (*word).to_owned()).collect()))?;
        let allowed = format!("allowed: \"{}\"", words.join("\", \""));
        if self.value.as_str().is_none() {
            return self.wrong_type("a string", &allowed);
        }
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let help = match nearest(&text.value, &words) {
            Some(meant) => format!("did you mean \"{meant}\"? {allowed}"),
            None => allowed,
        };
        self.error(format!("{} cannot be \"{}\"", self.name(), text.shown()), help)
    }

    /// Notes that the value is of another type.
    pub fn wrong_type<T>(&self, wanted: &str, help: &str) -> Option<T> {
        let found = self.value.type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        let from_env = self.value.as_str().is_some_and(|text| text.contains("${"));
        let help =
            if from_env { format!("{help}; only strings can come from the environment") } else { help.to_owned() };
        self.error(format!("{} must be {wanted}, not {article} {found}", self.name()), help)
    }
}
