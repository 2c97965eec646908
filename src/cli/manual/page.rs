//! A page of the manual: what it says, as roff.

use clap_mangen::roff::{Inline, Roff, bold, roman};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One page.
#[derive(Debug)]
pub struct Page {
    /// Without its section: `warrend-dead-replay`.
    pub name: String,
    section: &'static str,
    /// Rendered parts in their order: clap_mangen gives text.
    parts: Vec<String>,
    /// Nothing stands below the last heading yet.
    is_headed: bool,
}

impl Page {
    /// With its title.
    pub fn new(name: &str, section: &'static str) -> Self {
        let mut page = Self { name: name.to_owned(), section, parts: Vec::new(), is_headed: false };
        // No word is broken, so that names are found again. The title has no date: a page is that of its version.
        let title = name.to_uppercase();
        page.part(format!(
            ".nr HY 0\n.TH {title} {section} \"\" \"warrend {VERSION}\" \"warrend manual\"\n.nh\n.ad l\n"
        ));
        page
    }

    /// As man(1) looks for it.
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    /// The whole page. It is ASCII: what is not is written as roff has it.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for c in self.parts.concat().chars() {
            if c.is_ascii() {
                text.push(c);
            } else {
                text.push_str(&format!("\\[u{:04X}]", u32::from(c)));
            }
        }
        text
    }

    /// A part that is made elsewhere.
    pub fn part(&mut self, text: String) {
        self.is_headed = false;
        self.parts.push(text);
    }

    fn add(&mut self, write: impl FnOnce(&mut Roff)) {
        let mut roff = Roff::new();
        write(&mut roff);
        self.is_headed = false;
        // Without its preamble of two lines, which is there once.
        self.parts.push(roff.to_roff().replace('\'', "\\(aq"));
    }

    /// A heading.
    pub fn heading(&mut self, name: &str) -> &mut Self {
        self.add(|roff| {
            roff.control("SH", [name]);
        });
        self.is_headed = true;
        self
    }

    /// Lines that go on where the last ones ended.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.add(|roff| {
            roff.text(inline(text));
        });
        self
    }

    /// A paragraph. What stands between backticks is bold.
    pub fn paragraph(&mut self, text: &str) -> &mut Self {
        let headed = self.is_headed;
        self.add(|roff| {
            if !headed {
                roff.control("PP", []);
            }
            roff.text(inline(text));
        });
        self
    }

    /// A term and what is said of it, both with backticks.
    pub fn item(&mut self, term: &str, text: &str) -> &mut Self {
        self.add(|roff| {
            roff.control("TP", []).text(inline(term)).text(inline(text));
        });
        self
    }

    /// Another paragraph of an item.
    pub fn more(&mut self, text: &str) -> &mut Self {
        self.add(|roff| {
            roff.control("IP", []).text(inline(text));
        });
        self
    }

    /// Lines as they are, indented.
    pub fn example(&mut self, lines: &str) -> &mut Self {
        self.add(|roff| {
            roff.control("PP", []).control("RS", ["4"]).control("EX", []);
            for line in lines.lines() {
                roff.text([roman(line)]);
            }
            roff.control("EE", []).control("RE", []);
        });
        self
    }
}

/// Text with bold parts between backticks.
fn inline(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}
