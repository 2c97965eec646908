//! What the documents say exists: commands, flags, targets, files, tests, rows and keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The documents that are read, with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut paths = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name)).to_vec();
    let docs = fs::read_dir(root.join("docs")).expect("there are documents");
    paths.extend(docs.map(|entry| entry.expect("the folder can be read").path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(paths.len() >= 5, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("it is text"))).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Lines that a reader would type: those of an indented block, and those of a fenced one of the shell.
fn typed(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut fence = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(language), None) => fence = Some(language),
            (None, Some("sh")) => lines.push(line),
            (None, Some(_)) => {}
            (None, None) => lines.extend(line.strip_prefix("    ")),
        }
    }
    lines
}

/// The calls of a program in such a line: what follows its name, up to a pipe, a comment or the end.
fn calls<'t>(line: &'t str, program: &str) -> Vec<Vec<&'t str>> {
    let line = line.split(" #").next().unwrap_or_default();
    let commands = line.split(['|', ';', '&']).map(|command| command.split_whitespace().collect::<Vec<_>>());
    let stripped = commands.map(|words| if words.first() == Some(&"sudo") { words[1..].to_vec() } else { words });
    stripped.filter(|words| words.first() == Some(&program)).map(|words| words[1..].to_vec()).collect()
}

fn help(subcommands: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warrend"));
    let output = command.args(subcommands).arg("--help").output().expect("the built binary runs");
    assert!(output.status.success(), "warrend {subcommands:?} --help: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a help text lists that word as a command.
fn lists(help: &str, word: &str) -> bool {
    let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
    commands.lines().take_while(|line| !line.is_empty()).any(|line| line.split_whitespace().next() == Some(word))
}

/// Every command is one, and knows the flags that it is given.
#[test]
fn every_command_line_is_understood() {
    let mut seen = BTreeSet::new();
    for (path, text) in documents() {
        for line in typed(&text) {
            for call in calls(line, "warrend") {
                let mut subcommands = Vec::new();
                let mut page = help(&[]);
                for word in call.iter().filter(|word| !word.starts_with('-')) {
                    if !lists(&page, word) {
                        break;
                    }
                    subcommands.push(*word);
                    page = help(&subcommands);
                }
                assert!(!subcommands.is_empty(), "{}: {line}: no such command", path.display());
                for flag in call.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
                    let flag = flag.split('=').next().unwrap_or_default();
                    let is_known = page.split([' ', ',', '\n']).any(|word| word == flag);
                    assert!(is_known, "{}: {line}: {flag} is no flag of it", path.display());
                }
                seen.insert(subcommands.join(" "));
            }
        }
    }
    assert!(seen.len() >= 12, "{seen:?}");
}

/// Every target of `make` is one.
#[test]
fn every_target_can_be_made() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("it is there");
    let mut seen = BTreeSet::new();
    for (path, text) in documents() {
        let inline = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("make "));
        for line in typed(&text).into_iter().chain(inline) {
            for call in calls(line, "make") {
                let Some(target) = call.iter().find(|word| !word.contains('=')) else { continue };
                let rule = format!("\n{target}:");
                assert!(makefile.contains(&rule), "{}: {line}: no such target", path.display());
                seen.insert((*target).to_owned());
            }
        }
    }
    assert!(seen.len() >= 6, "{seen:?}");
}

/// Links lead to files, and what is named like a file of the project is one.
#[test]
fn every_file_is_there() {
    let folders = ["config/", "docs/", "examples/", "migrations/", "src/", "systemd/", "tests/"];
    let mut seen = 0;
    for (path, text) in documents() {
        let folder = path.parent().expect("it lies in a folder");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(folder.join(link).exists(), "{}: {link} leads nowhere", path.display());
            seen += 1;
        }
        // What a release changed may be gone by now.
        if path.ends_with("CHANGELOG.md") {
            continue;
        }
        for code in text.split('`').skip(1).step_by(2) {
            let is_path = folders.iter().any(|folder| code.starts_with(folder)) && !code.contains([' ', '*', '<', '{']);
            assert!(!is_path || root().join(code).exists(), "{}: {code} is not there", path.display());
            seen += usize::from(is_path);
        }
    }
    assert!(seen >= 30, "{seen}");
}

/// The page on reliability names rows of `make chaos` and tests.
#[test]
fn every_row_and_every_test_exists() {
    let read = |folder: &str| -> String {
        fn all(folder: &Path, into: &mut String) {
            for entry in fs::read_dir(folder).expect("it is a folder") {
                let path = entry.expect("the folder can be read").path();
                if path.is_dir() {
                    all(&path, into);
                } else {
                    *into += &fs::read_to_string(&path).expect("it is text");
                }
            }
        }
        let mut text = String::new();
        all(&root().join(folder), &mut text);
        text
    };
    let (tests, rows) = (read("tests/it"), read("tests/chaos/rows"));
    let page = fs::read_to_string(root().join("docs/RELIABILITY.md")).expect("it is there");
    let promises: Vec<&str> = page.lines().filter(|line| line.starts_with("| P")).collect();
    for promise in ["P1", "P2", "P3", "P4", "P5", "P7"] {
        let line = promises.iter().find(|line| line.starts_with(&format!("| {promise}.")));
        let cells: Vec<&str> = line.unwrap_or_else(|| panic!("{promise} is missing")).split('|').collect();
        let [_, _, its_rows, its_tests, _] = cells[..] else { panic!("{promise} has not three cells: {cells:?}") };
        let codes = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        for row in codes(its_rows) {
            assert!(rows.contains(&format!("\"{row}\"")), "{promise}: there is no row {row}");
        }
        let named: Vec<String> = codes(its_tests).into_iter().filter(|code| code.contains("::")).collect();
        for test in &named {
            let name = test.rsplit("::").next().unwrap_or_default();
            assert!(tests.contains(&format!("fn {name}()")), "{promise}: there is no test {test}");
        }
        assert!(!named.is_empty() || promise == "P4", "{promise} names no test");
    }
    // Rows of the table of a run.
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let row = line.split('`').nth(1).unwrap_or_default();
        assert!(rows.contains(&format!("\"{row}\"")), "there is no row {row}");
    }
}

/// A piece of configuration is accepted, with a broker and a job where it has none; its files need not be there.
#[test]
fn every_piece_of_configuration_is_accepted() {
    let mut seen = 0;
    for (path, text) in documents() {
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            let mut whole = block.to_owned();
            if !block.contains("urls") {
                whole += "\n[broker]\nurls = [\"amqps://127.0.0.1/%2f\"]\n";
            }
            if block.contains("[broker.tls]") {
                whole = format!("broker.urls = [\"amqps://127.0.0.1/%2f\"]\n{block}");
            }
            if !block.contains("[jobs.") {
                whole += "\n[jobs.example]\nqueue = \"example\"\nhandler.discard = true\n";
            }
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let file = folder.path().join("warrend.toml");
            fs::write(&file, &whole).expect("the folder can be written");
            let mut command = Command::new(env!("CARGO_BIN_EXE_warrend"));
            let output = command.args(["check", "-c"]).arg(&file).output().expect("the built binary runs");
            let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            let mut errors = said.lines().filter(|line| line.starts_with("error: "));
            let only_files =
                !output.status.success() && errors.all(|error| error.ends_with("no such file or directory"));
            assert!(output.status.success() || only_files, "{}:\n{block}\n{said}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}
