//! `warrend man`: the manual, made of what the program itself knows.
//!
//! `commands` writes a page for each command from its definition for clap, and warrend(1) around them; `file` writes
//! warrend.toml(5) from config/warrend.toml. `prose` holds the words that stand nowhere else, and `page` knows roff.

mod commands;
mod file;
mod page;
mod prose;

use std::io::Write;
use std::path::Path;

use crate::cli::{Exit, Failure};

pub use page::Page;

/// The page that is meant where none is named.
pub const MAIN: &str = "warrend";

/// All pages: the main one first, then the file, then the commands.
pub fn pages() -> Vec<Page> {
    let mut pages = commands::pages();
    pages.insert(1, file::page());
    pages
}

/// Prints a page as roff: by its name, or by that of its command ("dead replay").
pub fn print(name: &str, out: &mut dyn Write) -> Result<Exit, Failure> {
    let name = name.trim().replace(' ', "-");
    let pages = pages();
    let found = pages.iter().find(|page| page.name == name || page.name.strip_prefix("warrend-") == Some(&name));
    let Some(page) = found else {
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        return Err(Failure::new(Exit::Usage, format!("there is no such page; there are {}", names.join(", "))));
    };
    out.write_all(page.render().as_bytes()).map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// Writes every page into a folder, each named as man(1) looks for it.
pub fn write_all(folder: &Path) -> Result<Exit, Failure> {
    let write = |folder: &Path| {
        std::fs::create_dir_all(folder)?;
        pages().iter().try_for_each(|page| std::fs::write(folder.join(page.file_name()), page.render()))
    };
    write(folder).map(|()| Exit::Done).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot write the manual to {}: {error}", folder.display()))
    })
}

#[cfg(test)]
mod tests;
