//! What keeps a file from being TOML, in words for somebody who meant to write TOML.
//!
//! The parser says what it expected; what was probably meant is guessed here from the line. No message repeats a value: it
//! may be a secret, and what is not TOML cannot be masked with certainty.

use std::ops::Range;

use super::mask;
use super::place::Source;

/// What the parser says of an array that goes on where its end was forgotten.
const UNCLOSED_ARRAY: &str = "missing comma between array elements";
/// Quotes that word processors and web pages make of plain ones.
const CURLY: [char; 10] = ['“', '”', '„', '‟', '‘', '’', '‚', '‛', '«', '»'];
/// What other languages say for `true` and `false`.
const BOOLEANS: [&str; 6] = ["yes", "no", "on", "off", "true", "false"];

/// A syntax error as it is told.
pub struct Slip {
    /// Where it is.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub help: Option<String>,
}

/// Explains what the parser found at `span`.
pub fn explain(source: &Source, span: Range<usize>, message: &str) -> Slip {
    if message.starts_with(UNCLOSED_ARRAY)
        && let Some(start) = forgotten_bracket(source, span.start)
    {
        let help = "close it with `]`, or put a comma between its entries".to_owned();
        let message = "not valid TOML: this array is not closed".to_owned();
        return Slip { span: start..start + 1, message, help: Some(help) };
    }
    let (start, end) = source.line_around(span.start);
    let help = mend(&source.text[start..end], message);
    // What the parser expected instead is one of many things, and seldom what was meant.
    let short = if help.is_some() { message.split(", expected").next().unwrap_or(message) } else { message };
    Slip { span, message: format!("not valid TOML: {short}"), help }
}

/// How to mend a file that is not UTF-8.
pub fn mend_encoding(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "it seems to be UTF-16, as some editors of Windows write it: save it as UTF-8, or convert it with `iconv -f UTF-16 -t UTF-8`"
    } else {
        "save it as UTF-8, or convert it with `iconv -f LATIN1 -t UTF-8`"
    }
}

/// The bracket of the last array before `offset`, where the line at `offset` cannot be a part of one.
fn forgotten_bracket(source: &Source, offset: usize) -> Option<usize> {
    let (start, end) = source.line_around(offset);
    let line = source.text[start..end].trim_start();
    // Such a line begins a table, or a key.
    let ends_array = line.starts_with('[') || key_of(line).is_some();
    let mut at = start;
    while ends_array && at > 0 {
        let (begin, end) = source.line_around(at - 1);
        let line = &source.text[begin..end];
        if let Some(key) = key_of(line) {
            let value = &line[key.len() + 1..];
            let blanks = value.len() - value.trim_start().len();
            return value.trim_start().starts_with('[').then_some(begin + key.len() + 1 + blanks);
        }
        at = begin;
    }
    None
}

/// What stands before the `=` of a line, if that can be a key.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.\"' \t".contains(c);
    (!key.trim().is_empty() && key.chars().all(plain)).then_some(key)
}

fn mend(line: &str, message: &str) -> Option<String> {
    let trimmed = line.trim();
    let help = |text: &str| Some(text.to_owned());
    if let Some(strange) = line.chars().find(|c| is_invisible(*c)) {
        let code = u32::from(strange);
        return Some(format!(
            "a character that cannot be seen stands in this line (U+{code:04X}): write it anew by hand"
        ));
    }
    if line.contains(CURLY) {
        return help("write plain quotes, \"...\": those are a word processor's");
    }
    if message.contains("carriage return") {
        return help("the lines of this file end with carriage returns alone: save it with Unix line ends");
    }
    if let Some(control) = line.chars().find(|c| c.is_control() && *c != '\t') {
        let code = u32::from(control);
        return Some(format!("a control character stands in this line (U+{code:04X}): delete it"));
    }
    if message.contains("duplicate key") {
        return help(if trimmed.starts_with('[') {
            "a table stands once in a file: put its keys together, or give one of the two another name"
        } else {
            "a key stands once in a table: keep one of the two lines"
        });
    }
    if ["//", "/*", ";", "--"].iter().any(|mark| trimmed.starts_with(mark)) {
        return help("a comment begins with `#`");
    }
    if trimmed.starts_with('{') {
        return help("this looks like JSON: TOML has a line [TABLE], and lines KEY = VALUE below it");
    }
    if message.contains("unclosed table") {
        return help("close it with `]`; a name of a table has no blanks");
    }
    if let Some(help) = mend_assignment(trimmed, message) {
        return Some(help);
    }
    mend_value(trimmed, message)
}

/// What goes wrong between a key and its value, and after the value.
fn mend_assignment(line: &str, message: &str) -> Option<String> {
    let help = |text: &str| Some(text.to_owned());
    let after_key = line.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_.\"".contains(c)).trim_start();
    if ["==", "=>", ":="].iter().any(|sign| after_key.starts_with(sign)) {
        return help("write KEY = VALUE, with one `=`");
    }
    if message.contains("key with no value") {
        return help(match after_key.strip_prefix(':').map(str::trim) {
            Some("") => "this looks like YAML: TOML has a line [TABLE], and lines KEY = VALUE below it",
            Some(_) => "write KEY = VALUE, with `=` in place of the colon",
            None => "write KEY = VALUE",
        });
    }
    if message.contains("unexpected key or value")
        && let Some(last) = line.chars().next_back().filter(|last| matches!(last, ';' | ','))
    {
        return Some(format!("remove the `{last}` at the end of the line"));
    }
    None
}

/// What goes wrong in a value.
fn mend_value(line: &str, message: &str) -> Option<String> {
    let help = |text: &str| Some(text.to_owned());
    if message.contains("missing escaped value") || message.contains("invalid escape") {
        return help("a `\\` in a string begins an escape: write `\\\\`, or put the string into single quotes");
    }
    if message.contains("invalid basic string") || message.contains("invalid literal string") {
        return help("close the string with the quote that it began with, on the same line");
    }
    if message.contains("missing comma between key-value pairs") {
        return help("close the table with `}`, or put a comma between its entries");
    }
    if message.contains("leading zero") {
        return help("remove the zeros at the beginning of the number");
    }
    let is_word = ["must be quoted", "invalid boolean", "missing opening quote"];
    if !is_word.iter().any(|part| message.contains(part)) {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let value = value.split('#').next().unwrap_or_default().trim();
    if BOOLEANS.contains(&value.to_lowercase().as_str()) {
        return help("a boolean is `true` or `false`, in small letters and without quotes");
    }
    Some(format!("write text in quotes: {} = \"...\"; a number in digits", mask::quote(key.trim())))
}

/// Blanks and marks that look like nothing or like a plain blank, and are none to TOML.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{ad}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{2064}' | '\u{3000}' | '\u{feff}')
}
