//! What the doctor has to say: one finding a line, as data.

use serde::Serialize;

use crate::shell;

/// What a finding is about; they are printed in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// Reaching the broker, and the broker as a whole.
    Broker,
    /// Work queues, dead-letter queues, the delay ladder, and who else consumes them.
    Queues,
    /// What our user may do there.
    Permissions,
    /// The SQLite file and its place.
    Store,
    /// The systemd unit.
    Unit,
}

impl Area {
    /// All of them in their order.
    pub const ALL: [Self; 5] = [Self::Broker, Self::Queues, Self::Permissions, Self::Store, Self::Unit];

    /// Its heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Queues => "queues",
            Self::Permissions => "permissions",
            Self::Store => "store",
            Self::Unit => "unit",
        }
    }
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know; also what could not be seen.
    Note,
    /// It works, but not as it was meant, or not for long.
    Warning,
    /// It does not work, or loses something.
    Error,
}

impl Level {
    /// All of them, from the least.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Note, Self::Warning, Self::Error];

    /// The mark before the line.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// How something is mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mend {
    /// A command for a shell, as it can be pasted there.
    Command(String),
    /// In words: a line of the configuration, something to install.
    Words(String),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// How grave it is.
    pub level: Level,
    /// What kind of finding it is, for programs: these names stay.
    pub code: &'static str,
    /// One lowercase line.
    pub text: String,
    /// Why that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Ways to mend it; any one of them will do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mends: Vec<Mend>,
}

impl Finding {
    /// Without a reason and without a mend.
    pub fn new(area: Area, level: Level, code: &'static str, text: impl Into<String>) -> Self {
        Self { area, level, code, text: text.into(), why: None, mends: Vec::new() }
    }

    /// Says why it matters.
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds a command that mends it. Its words are quoted here where a shell needs that.
    pub fn run(mut self, words: &[&str]) -> Self {
        let words: Vec<String> = words.iter().map(|word| shell::word(word)).collect();
        self.mends.push(Mend::Command(words.join(" ")));
        self
    }

    /// Adds a command line as it stands.
    pub fn paste(mut self, line: impl Into<String>) -> Self {
        self.mends.push(Mend::Command(line.into()));
        self
    }

    /// Adds a way to mend it in words.
    pub fn or(mut self, words: impl Into<String>) -> Self {
        self.mends.push(Mend::Words(words.into()));
        self
    }
}

/// A name as a part of a pattern of RabbitMQ's permissions and policies, which are those of Perl.
pub fn pattern_of(name: &str) -> String {
    let special = |c: char| r".^$*+?()[]{}|\".contains(c);
    name.chars().fold(String::new(), |mut pattern, c| {
        if special(c) {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted() {
        let finding = Finding::new(Area::Unit, Level::Ok, "x", "x").run(&["set", "/", "it's", "^(a|b\\.c)$", ""]);
        assert_eq!(finding.mends, [Mend::Command(r"set / 'it'\''s' '^(a|b\.c)$' ''".to_owned())]);
    }

    #[test]
    fn a_pattern_matches_the_name_and_nothing_else() {
        for name in ["a.b", "a+b", "(x)|y", "plain", "[1]", r"back\slash", "$^*?{2}"] {
            let pattern = regex::Regex::new(&format!("^{}$", pattern_of(name))).expect("it is one");
            assert!(pattern.is_match(name), "{name}");
            assert!(!pattern.is_match("a_b") || name == "a_b", "{name}");
        }
    }
}
