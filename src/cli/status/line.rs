//! A line of the screen: pieces of text, each with what it means. How meaning looks is decided where it is printed, so
//! that nothing is told by colour alone.

use super::text::{Glyphs, cut, width};

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing in particular.
    Plain,
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// Worth a look.
    Odd,
    /// A heading.
    Head,
    /// Beside the point.
    Quiet,
    /// A command to type.
    Command,
    /// Under the cursor.
    Chosen,
}

/// Pieces, from left to right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(pub Vec<(Tone, String)>);

impl Line {
    /// Without a meaning.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::of(Tone::Plain, text)
    }

    /// Of one piece.
    pub fn of(tone: Tone, text: impl Into<String>) -> Self {
        Self(vec![(tone, text.into())])
    }

    /// With one more piece.
    pub fn and(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.0.push((tone, text.into()));
        self
    }

    /// With one more piece that has no meaning.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.and(Tone::Plain, text)
    }

    /// Columns on a terminal.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| width(text)).sum()
    }

    /// At most so many columns of it.
    pub fn cut(self, most: usize, glyphs: Glyphs) -> Self {
        if self.width() <= most {
            return self;
        }
        let mut left = most;
        let mut kept = Vec::new();
        let last = self.0.len().saturating_sub(1);
        for (index, (tone, text)) in self.0.into_iter().enumerate() {
            let used = width(&text);
            // A piece that fills the rest is cut too, where others follow: the sign for it needs room.
            if used < left || (used == left && index == last) {
                left -= used;
                kept.push((tone, text));
                continue;
            }
            let shorter = if used == left { format!("{text} ") } else { text };
            kept.push((tone, cut(&shorter, left, glyphs)));
            break;
        }
        Self(kept)
    }

    /// As the line under the cursor, over the whole width.
    pub fn chosen(self, width: usize) -> Self {
        let pad = " ".repeat(width.saturating_sub(self.width()));
        let text: String = self.0.into_iter().map(|(_, text)| text).collect();
        Self::of(Tone::Chosen, text + &pad)
    }

    /// As a terminal takes it, or plain, without trailing blanks.
    pub fn print(&self, color: bool) -> String {
        let plain = || self.0.iter().map(|(_, text)| text.as_str()).collect::<String>();
        if !color {
            return plain().trim_end().to_owned();
        }
        self.0
            .iter()
            .map(|(tone, text)| match tone.code() {
                Some(code) if !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
                Some(_) | None => text.clone(),
            })
            .collect()
    }
}

impl Tone {
    /// The parameters of SGR (ECMA-48), where it looks like anything.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("1;32"),
            Self::Bad => Some("1;31"),
            Self::Odd => Some("33"),
            Self::Head => Some("1"),
            Self::Quiet => Some("2"),
            Self::Command => Some("36"),
            Self::Chosen => Some("7"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_as_a_whole() {
        let line = Line::plain("abc").and(Tone::Bad, "def");
        for most in 0..8 {
            let cut = line.clone().cut(most, Glyphs::UNICODE);
            assert!(cut.width() <= most, "{most}: {cut:?}");
        }
        assert_eq!(line.clone().cut(6, Glyphs::UNICODE), line);
        assert_eq!(line.clone().cut(3, Glyphs::UNICODE).print(false), "ab…");
        assert_eq!(line.clone().cut(5, Glyphs::UNICODE).print(false), "abcd…");
        assert_eq!(line.print(true), "abc\u{1b}[1;31mdef\u{1b}[0m");
    }
}
