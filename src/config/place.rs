//! Where a value stands: a file and a range of its bytes.

use std::path::PathBuf;

/// A place in one of the files that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Position of the file in the list of sources.
    pub file: usize,
    /// First byte and the byte after the last; `None`: the file as a whole.
    pub bytes: Option<(usize, usize)>,
}

impl Place {
    /// The file as a whole, for what has no line: an unreadable file, a table that is missing.
    pub fn whole(file: usize) -> Self {
        Self { file, bytes: None }
    }

    /// A range that the TOML parser gave.
    pub fn of(file: usize, range: std::ops::Range<usize>) -> Self {
        Self { file, bytes: Some((range.start, range.end)) }
    }
}

/// One configuration file as it was read.
#[derive(Debug)]
pub struct Source {
    /// As it was asked for, not made absolute.
    pub path: PathBuf,
    /// Its text; what is not UTF-8 in it is replaced. Empty where it could not be read.
    pub text: String,
}

impl Source {
    /// First byte of the line that holds `offset`, and the byte after its last, without the line break.
    pub fn line_around(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[start..].find('\n').map_or(self.text.len(), |length| start + length);
        let end = if self.text[start..end].ends_with('\r') { end - 1 } else { end };
        (start, end.max(start))
    }

    /// Line and column, both from 1, the column in characters.
    pub fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The nearest boundary of a character at or before `offset`.
    pub fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters_from_one() {
        let source = Source { path: "x".into(), text: "a\r\nbé = 1\n\nlast".to_owned() };
        let check = |offset, position, line: &str| {
            assert_eq!(source.line_and_column(offset), position, "offset {offset}");
            let (start, end) = source.line_around(offset);
            assert_eq!(&source.text[start..end], line, "offset {offset}");
        };
        check(0, (1, 1), "a");
        check(1, (1, 2), "a");
        check(3, (2, 1), "bé = 1");
        check(7, (2, 4), "bé = 1");
        check(11, (3, 1), "");
        check(12, (4, 1), "last");
        check(16, (4, 5), "last");
        check(99, (4, 5), "last");
    }
}
