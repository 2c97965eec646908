//! What is wrong with a configuration, as people and programs read it.
//!
//! A [`Report`] holds no text of the files but the lines that it shows, and those without their secrets: it can be
//! printed and logged anywhere.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level as Style, Origin, Renderer, Snippet};

use super::mask;
use super::place::{Place, Source};

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably not as it was meant.
    Warning,
}

/// What kind of fault a finding is: decides whether it is still worth telling in a file that is not valid TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file is not valid TOML.
    Syntax,
    /// Something is absent. Where the syntax is broken it may stand in the part that could not be read.
    Missing,
    /// Something is there and wrong.
    Fault,
}

/// One finding, while the files are still at hand.
#[derive(Debug)]
pub struct Finding {
    /// How grave it is.
    pub level: Level,
    /// What kind it is.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// What is wrong, as one lowercase sentence.
    pub message: String,
    /// What is allowed, or how to mend it.
    pub help: Option<String>,
    /// A second place that has to do with it, and what it is.
    pub also: Option<(Place, &'static str)>,
}

/// A place as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Path of the file.
    pub file: String,
    /// The line and what is marked in it; `None`: the file as a whole.
    pub line: Option<SpotLine>,
}

/// A line of a file as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpotLine {
    /// From 1.
    pub line: usize,
    /// In characters from 1, counted in the file itself: not in `text`, which may be shorter.
    pub column: usize,
    /// The line without secrets.
    pub text: String,
    /// The marked bytes of `text`.
    pub caret: Range<usize>,
}

/// One finding, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How grave it is.
    pub level: Level,
    /// Where.
    pub spot: Spot,
    /// What is wrong.
    pub message: String,
    /// What is allowed, or how to mend it.
    pub help: Option<String>,
    /// A second place, and what it is.
    pub also: Option<(Spot, &'static str)>,
}

/// Everything found in one reading, in the order of the files and their lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// All of it.
    pub entries: Vec<Entry>,
}

/// Entries that are printed in full; a file that is no TOML at all has thousands.
const SHOWN: usize = 100;

impl Report {
    /// Cuts the lines out of the files. `secrets` are the parts of each file that must not be shown.
    pub fn new<'a>(
        mut findings: Vec<Finding>,
        sources: impl IntoIterator<Item = &'a Source>,
        secrets: &[Vec<Range<usize>>],
    ) -> Self {
        let sources: Vec<&Source> = sources.into_iter().collect();
        findings.sort_by_key(|finding| finding.place);
        let spot = |place: Place| Spot::cut(place, sources[place.file], &secrets[place.file]);
        let entries = findings.into_iter().map(|finding| Entry {
            level: finding.level,
            spot: spot(finding.place),
            message: finding.message,
            help: finding.help,
            also: finding.also.map(|(place, label)| (spot(place), label)),
        });
        Self { entries: entries.collect() }
    }

    /// Adds a warning about a file as a whole, which was found outside of it.
    pub fn warn(&mut self, file: &Path, message: String) {
        let spot = Spot { file: file.display().to_string(), line: None };
        self.entries.push(Entry { level: Level::Warning, spot, message, help: None, also: None });
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.entries.iter().filter(|entry| entry.level == Level::Error).count()
    }

    /// Text for people: each entry with its line, a caret and the mend, one blank line between two. Ends with a
    /// line break unless empty.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for entry in self.entries.iter().take(SHOWN) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&entry.render(&renderer));
            text.push('\n');
        }
        if let Some(more) = self.entries.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            text.push_str(&format!("\nand {more} more\n"));
        }
        text
    }

    /// A line for each entry, for the log: place, what is wrong, how to mend it.
    pub fn lines(&self) -> Vec<String> {
        self.entries.iter().take(SHOWN).map(Entry::line).collect()
    }

    /// A JSON array of objects with `level` (`error` or `warning`), `file`, `line`, `column`, `message` and `help`;
    /// the last four of them null where there is none. Line and column count from 1, the column in characters.
    pub fn to_json(&self) -> serde_json::Value {
        let entries = self.entries.iter().map(|entry| {
            serde_json::json!({
                "level": entry.level.as_str(),
                "file": entry.spot.file,
                "line": entry.spot.line.as_ref().map(|line| line.line),
                "column": entry.spot.line.as_ref().map(|line| line.column),
                "message": entry.message,
                "help": entry.help,
            })
        });
        entries.collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Report {}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Spot {
    fn cut(place: Place, source: &Source, secrets: &[Range<usize>]) -> Self {
        let line = place.bytes.map(|(start, end)| {
            let (line, column) = source.line_and_column(start);
            let (from, to) = source.line_around(start);
            // A value over several lines is marked to the end of its first.
            let caret = source.floor(start)..source.floor(end);
            let (text, caret) = mask::masked(&source.text, from..to, caret, secrets);
            SpotLine { line, column, text, caret }
        });
        Self { file: source.path.display().to_string(), line }
    }
}

impl Entry {
    fn line(&self) -> String {
        let place = self.spot.line.as_ref().map_or_else(String::new, |line| format!(":{}:{}", line.line, line.column));
        let help = self.help.as_ref().map_or_else(String::new, |help| format!("; {help}"));
        format!("{}{place}: {}{help}", self.spot.file, self.message)
    }

    fn render(&self, renderer: &Renderer) -> String {
        let title = match self.level {
            Level::Error => Style::ERROR,
            Level::Warning => Style::WARNING,
        };
        let mut group = title.primary_title(self.message.as_str()).elements(std::iter::empty::<Origin<'_>>());
        group = self.spot.show(group, AnnotationKind::Primary, None);
        if let Some((spot, label)) = &self.also {
            group = spot.show(group, AnnotationKind::Context, Some(label));
        }
        if let Some(help) = &self.help {
            group = group.element(Style::HELP.message(help.as_str()));
        }
        // The renderer shows what ASCII has of control characters as pictures, and leaves the others to the terminal.
        let text = renderer.render(&[group]).replace(|c| ('\u{80}'..='\u{9f}').contains(&c), "\u{fffd}");
        let text = self.spot.set_column(text);
        match &self.also {
            Some((spot, _)) => spot.set_column(text),
            None => text,
        }
    }
}

impl Spot {
    fn show<'a>(&'a self, group: Group<'a>, kind: AnnotationKind, label: Option<&'a str>) -> Group<'a> {
        match &self.line {
            None => group.element(Origin::path(self.file.as_str())),
            Some(line) => group.element(
                Snippet::source(line.text.as_str())
                    .path(self.file.as_str())
                    .line_start(line.line)
                    .annotation(kind.span(line.caret.clone()).label(label)),
            ),
        }
    }

    /// The renderer counts the column in the line as it is shown; where a mask stands before the caret, the true
    /// column is put in its place.
    fn set_column(&self, rendered: String) -> String {
        let Some(line) = &self.line else {
            return rendered;
        };
        let counted = line.text[..line.caret.start].chars().count() + 1;
        if counted == line.column {
            return rendered;
        }
        let place = |column: usize| format!("{}:{}:{column}", self.file, line.line);
        rendered.replacen(&place(counted), &place(line.column), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, findings: Vec<Finding>) -> Report {
        let (tree, errors) = toml::de::DeTable::parse_recoverable(text);
        let secrets = mask::secrets(text, tree.get_ref(), !errors.is_empty());
        Report::new(findings, &[Source { path: "w.toml".into(), text: text.to_owned() }], &[secrets])
    }

    fn finding(bytes: Range<usize>, message: &str) -> Finding {
        Finding {
            level: Level::Error,
            kind: Kind::Fault,
            place: Place::of(0, bytes),
            message: message.to_owned(),
            help: None,
            also: None,
        }
    }

    #[test]
    fn shows_the_line_with_a_caret_and_the_mend() {
        let text = "[store]\npth = \"/x\"\n";
        let faulty = Finding { help: Some("did you mean `path`?".to_owned()), ..finding(8..11, "unknown key `pth`") };
        let report = report(text, vec![faulty]);
        let expect = "\
error: unknown key `pth`
 --> w.toml:2:1
  |
2 | pth = \"/x\"
  | ^^^
  |
  = help: did you mean `path`?
";
        assert_eq!(report.render(false), expect);
        assert!(report.render(true).contains("\u{1b}["), "coloured where asked for");
        let json = r#"[{"level":"error","file":"w.toml","line":2,"column":1,"message":"unknown key `pth`","help":"did you mean `path`?"}]"#;
        assert_eq!(report.to_json().to_string(), json);
    }

    #[test]
    fn a_mask_moves_the_caret_and_keeps_the_column() {
        let text = r#"urls = ["amqp://u:a-long-secret@h", 5]"#;
        let five = text.find('5').expect("there is a five");
        let report = report(text, vec![finding(five..five + 1, "not a string")]);
        let expect = r#"error: not a string
 --> w.toml:1:37
  |
1 | urls = ["amqp://u:***@h", 5]
  |                           ^
"#;
        assert_eq!(report.render(false), expect);
    }

    #[test]
    fn shows_the_second_place() {
        let text = "[a]\nx = 1\n\n[b]\nx = 1\n";
        let both = Finding { also: Some((Place::of(0, 1..2), "first defined here")), ..finding(12..13, "twice") };
        let rendered = report(text, vec![both]).render(false);
        assert!(rendered.contains("w.toml:4:2"), "{rendered}");
        assert!(rendered.contains("first defined here"), "{rendered}");
    }

    #[test]
    fn marks_only_the_first_line_of_a_value() {
        let text = "a = [\n 1,\n 2\n]\n";
        let rendered = report(text, vec![finding(4..14, "too much")]).render(false);
        assert!(rendered.contains("1 | a = [\n  |     ^"), "{rendered}");
        assert!(!rendered.contains("2 |"), "{rendered}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = "a\u{9b}2Jb\u{1b}c\u{85} = 1";
        let shown = report(text, vec![finding(0..1, "bad")]).render(false);
        assert!(shown.contains("a\u{fffd}2Jb␛c\u{fffd} = 1"), "{shown}");
    }

    #[test]
    fn a_file_without_lines_is_named() {
        let mut gone = finding(0..0, "cannot be read");
        gone.place = Place::whole(0);
        let report = report("", vec![gone]);
        assert_eq!(report.render(false), "error: cannot be read\n--> w.toml\n");
        assert_eq!(report.to_json()[0]["line"], serde_json::Value::Null);
    }

    #[test]
    fn stops_after_a_hundred() {
        let many = (0..250).map(|_| finding(0..1, "bad")).collect();
        let rendered = report("x", many).render(false);
        assert_eq!(rendered.matches("error: bad").count(), SHOWN);
        assert!(rendered.ends_with("\nand 150 more\n"), "{rendered}");
    }
}
