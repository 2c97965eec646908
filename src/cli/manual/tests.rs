//! What the pages must say, and that the programs that show them take them without a word.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::cli::Exit;

fn page(name: &str) -> String {
    let mut out = Vec::new();
    print(name, &mut out).unwrap();
    // Roff writes a minus for each hyphen, and no blanks that would end a line of it.
    String::from_utf8(out).unwrap().replace("\\-", "-").replace("\\(aq", "'").replace("\\*(Aq", "'")
}

#[test]
fn every_command_has_a_page_and_is_on_the_first() {
    let pages = pages();
    assert_eq!((&*pages[0].name, &*pages[1].file_name()), (MAIN, "warrend.toml.5"));
    for name in ["warrend-run", "warrend-status", "warrend-dead", "warrend-dead-replay", "warrend-config-schema"] {
        assert!(pages.iter().any(|page| page.name == name), "{name}");
    }
    let main = page(MAIN);
    for other in &pages[1..] {
        assert!(main.contains(&format!("\\fB{}\\fR", other.name)), "{} is not referred to", other.name);
    }
    assert_eq!(page("dead replay"), page("warrend-dead-replay"));
    assert_eq!(print("nope", &mut Vec::new()).unwrap_err().exit, Exit::Usage);
}

#[test]
fn the_first_page_has_every_exit_code_and_variable() {
    let main = page(MAIN);
    for exit in Exit::ALL {
        assert!(main.contains(&format!(".TP\n\\fB{}\\fR\n", exit as u8)), "{exit:?}");
    }
    for variable in [include_str!("../../handler/command/metadata.rs"), include_str!("../../config/load.rs")]
        .iter()
        .flat_map(|source| source.split('"'))
        .filter(|text| (text.starts_with("WARREND_") && !text.contains('=')) || *text == "TRACEPARENT")
    {
        assert!(main.contains(&format!("\\fB{variable}\\fR")), "{variable}");
    }
}

#[test]
fn the_page_of_the_file_has_every_key() {
    let page = page("warrend.toml");
    for table in crate::config::reference().tables {
        assert!(page.contains(&table.header), "{}", table.header);
        for entry in table.entries {
            assert!(page.contains(&format!(".TP\n\\fB{}\\fR", entry.key)), "{} {}", table.header, entry.key);
        }
    }
}

/// Runs a program on a page. Where it is not installed it says nothing, and where CI is set it must be.
fn says(program: &str, arguments: &[&str], text: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        assert!(!is_ci, "{program} is not here, and CI is set");
        // Not by a macro: what tests that pass print with one is not shown.
        let _ = writeln!(std::io::stderr(), "skipped: no {program}");
        return String::new();
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    // mandoc prints what it finds, groff complains.
    let page = if program == "mandoc" { output.stdout } else { Vec::new() };
    String::from_utf8_lossy(&[page, output.stderr].concat()).into_owned()
}

#[test]
fn groff_and_mandoc_take_every_page() {
    for page in pages() {
        let said = says("groff", &["-man", "-ww", "-Tutf8", "-z"], &page.render());
        assert!(said.is_empty(), "{}: {said}", page.name);
        // A page is that of its version: it has no date.
        let said = says("mandoc", &["-T", "lint", "-W", "warning"], &page.render());
        let faults: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(faults.is_empty(), "{}: {faults:?}", page.name);
    }
}
