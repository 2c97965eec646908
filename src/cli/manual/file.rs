//! warrend.toml(5), from config/warrend.toml: so it says what that says.

use super::page::Page;
use crate::config::{self, Entry};

const MINIMAL: &str = include_str!("../../../config/minimal.toml");
const JOB: &str = include_str!("../../../config/jobs.d/mail.toml.example");

/// The page.
pub fn page() -> Page {
    let reference = config::reference();
    let mut page = Page::new("warrend.toml", "5");
    page.heading("NAME").text("warrend.toml - configuration of warrend, a task worker for RabbitMQ");
    page.heading("SYNOPSIS");
    page.paragraph(&format!("`{}`", config::DEFAULT_PATH)).paragraph("`/etc/warrend/jobs.d/*.toml`");
    page.heading("DESCRIPTION");
    page.paragraph(&format!(
        "The configuration is TOML (https://toml.io). The main file is what `--config` names, else what the environment \
         variable {} names, else the first of the above. Below, a key stands with its default, and one without a default stands \
         alone. Only `urls` in [broker], and for each job a queue and a handler, must be there.",
        config::PATH_VARIABLE
    ));
    // The first paragraph of the file is about the file.
    for lines in &reference.preface[1..] {
        for (index, line) in lines.iter().enumerate() {
            // A line that goes on begins with a small letter.
            if index == 0 || !line.starts_with(char::is_lowercase) {
                page.paragraph(line);
            } else {
                page.text(line);
            }
        }
    }
    for table in &reference.tables {
        page.heading(&table.header);
        if !table.text.is_empty() {
            page.paragraph(&table.text);
        }
        for entry in &table.entries {
            key(&mut page, entry);
        }
    }
    page.heading("EXAMPLES");
    page.paragraph("The smallest useful file:").example(&shown(MINIMAL));
    page.paragraph("A job in a file of its own:").example(&shown(JOB));
    page.heading("EDITORS");
    page.paragraph(
        "`warrend config schema` prints a JSON Schema. Editors that know TOML complete and check a file that begins with a line \
         such as:",
    );
    page.example("#:schema /usr/share/warrend/warrend.schema.json");
    page.heading("SEE ALSO").paragraph("`warrend`(1), `warrend-check`(1), `warrend-config-schema`(1)");
    page
}

/// A key with its default, what is said of it, and how it is written where there is none.
fn key(page: &mut Page, entry: &Entry) {
    let term = match entry.default {
        Some(default) => format!("`{}` = {default}", entry.key),
        None => format!("`{}`", entry.key),
    };
    page.item(&term, &entry.text);
    for example in &entry.examples {
        page.more(&format!("For example: {example}"));
    }
}

/// Without the line for editors, and without its comments.
fn shown(file: &str) -> String {
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join("\n").trim().to_owned()
}
