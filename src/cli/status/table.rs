//! Columns that fit: each row has a name, which is cut where it must be, and cells, of which the less important columns are
//! left out where there is no room.

use super::line::{Line, Tone};
use super::text::{Glyphs, cut, width};

/// Between two columns.
const GAP: usize = 2;
/// What a name needs at least, and what it gets before further columns do.
const SHORTEST_NAME: usize = 8;
const FAIR_NAME: usize = 20;

/// A column after the name.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub head: &'static str,
    /// The higher, the later it is left out.
    pub rank: u8,
    /// Words stand to the left, numbers to the right.
    pub left: bool,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Row {
    /// The name, and how it looks.
    pub name: (Tone, String),
    /// One cell for each column.
    pub cells: Vec<(Tone, String)>,
}

/// The heading and then each row, at most `most` columns wide. Where `whole` is set, no name is cut, whatever comes of it.
pub fn lines(
    name: &'static str,
    columns: &[Column],
    rows: &[Row],
    most: usize,
    whole: bool,
    glyphs: Glyphs,
) -> Vec<Line> {
    let longest = rows.iter().map(|row| width(&row.name.1)).chain([width(name)]).max().unwrap_or(0);
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().map(|row| width(&row.cells[index].1));
            cells.chain([width(column.head)]).max().unwrap_or(0)
        })
        .collect();
    let mut shown: Vec<usize> = Vec::new();
    let mut room = most.saturating_sub(longest.min(FAIR_NAME));
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|index| std::cmp::Reverse(columns[*index].rank));
    for index in by_rank {
        // One that does not fit ends it: what is left out is always the least important.
        let Some(left) = room.checked_sub(GAP + widths[index]) else { break };
        room = left;
        shown.push(index);
    }
    shown.sort_unstable();
    let name_width =
        if whole { longest } else { longest.min(longest.min(FAIR_NAME) + room).max(SHORTEST_NAME.min(longest)) };

    let line = |name: &(Tone, String), cells: &dyn Fn(usize) -> (Tone, String)| {
        let name_text = cut(&name.1, name_width, glyphs);
        let pad = " ".repeat(name_width - width(&name_text));
        let mut line = Line::of(name.0, name_text).text(pad);
        for index in &shown {
            let (tone, text) = cells(*index);
            let pad = " ".repeat(widths[*index] - width(&text));
            line = line.text(" ".repeat(GAP));
            line = if columns[*index].left { line.and(tone, text).text(pad) } else { line.text(pad).and(tone, text) };
        }
        line
    };
    let head = line(&(Tone::Head, name.to_owned()), &|index| (Tone::Head, columns[index].head.to_owned()));
    std::iter::once(head).chain(rows.iter().map(|row| line(&row.name, &|index| row.cells[index].clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { head: "STATE", rank: 3, left: true },
        Column { head: "BUF", rank: 1, left: false },
        Column { head: "DONE", rank: 2, left: false },
    ];

    fn text(name: &str, most: usize, whole: bool) -> Vec<String> {
        let cells = ["running", "7", "12.3k"].map(|text| (Tone::Plain, text.to_owned())).to_vec();
        let row = Row { name: (Tone::Plain, name.to_owned()), cells };
        lines("JOB", &COLUMNS, &[row], most, whole, Glyphs::ASCII).iter().map(|line| line.print(false)).collect()
    }

    #[test]
    fn the_least_important_column_goes_first() {
        assert_eq!(text("mail", 40, false), ["JOB   STATE    BUF   DONE", "mail  running    7  12.3k"]);
        assert_eq!(text("mail", 24, false), ["JOB   STATE     DONE", "mail  running  12.3k"]);
        assert_eq!(text("mail", 16, false), ["JOB   STATE", "mail  running"]);
    }

    #[test]
    fn a_long_name_is_cut_unless_it_must_not_be() {
        let long = "thumbnails-of-everything-there-is";
        for most in [30, 40, 50] {
            assert!(text(long, most, false).iter().all(|line| line.len() <= most), "{most}");
        }
        assert!(text(long, 50, false)[1].starts_with("thumbnails-of-everything-th.."));
        assert!(text(long, 40, true)[1].starts_with(long));
        assert!(text("漢漢漢漢漢漢漢漢漢漢漢漢", 40, false).iter().all(|line| width(line) <= 40));
    }
}
