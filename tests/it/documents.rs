//! What the documents say exists: commands, flags, targets, files, tests, rows and keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};

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

/// Every command is run as it stands there, in the order of each document, beside a daemon that has what they speak of.
///
/// What asks a person is given `--yes`, and the copy of the store goes elsewhere. The screen of `--watch` wants a terminal, which
/// the tests of `watch.rs` give it.
#[test]
fn every_command_line_works() {
    let vhost = Vhost::new();
    let jobs = "[[alerts]]\nwhen = \"dead_ready > 0\"\n[jobs.thumbnails]\nqueue = \"thumbnails\"\nhandler.discard = true\n\
                [jobs.hello]\nqueue = \"hello\"\nhandler.discard = true\n[jobs.mail]\nqueue = \"mail\"\n\
                handler.command = [\"/bin/sh\", \"-c\", \"echo order 7 is unknown >&2; exit 65\"]\n";
    let mut daemon = Daemon::new(&vhost, jobs);
    daemon.start();
    let folder = daemon.folder().to_owned();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_warrend"), folder.join("warrend")).expect("the name is free");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("there is one"));
    let backups = folder.join("backups");
    fs::create_dir(&backups).expect("the folder is ours");
    vhost.publish("thumbnails", "", with_id("01c8f0de"));
    vhost.publish("mail", "", with_id("4711"));
    daemon.wait_until("there is what they speak of", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("mail", "dead") == 1 && daemon.counter("thumbnails", "done") == 1
    });
    let mut ran = 0;
    for (document, text) in documents() {
        for line in typed(&text) {
            let Some(call) = calls(line, "warrend").into_iter().next().filter(|call| !call.contains(&"--watch")) else {
                continue;
            };
            let line =
                line.split(" #").next().unwrap_or_default().replace("/var/backups", &backups.display().to_string());
            let asks = matches!(call[..], ["dead", "replay" | "purge" | "import", ..] | ["store", "forget", ..]);
            let script = format!("sudo() {{ \"$@\"; }}; {line} {}", if asks { "--yes" } else { "" });
            let mut command = Command::new("bash");
            command.args(["-c", &script]).current_dir(&folder).stdin(Stdio::null());
            command.env("PATH", &path).env("WARREND_CONFIG", daemon.config_path());
            let output = command.output().expect("bash runs");
            let expected: &[i32] = match call[0] {
                // It runs already.
                "run" => &[75],
                // The alert is a problem, once it is seen.
                "status" => &[0, 1],
                _ => &[0],
            };
            let code = output.status.code().expect("it ends by itself");
            assert!(expected.contains(&code), "{}: {line}: {output:?}", document.display());
            ran += 1;
        }
    }
    assert!(ran >= 20, "{ran}");
    assert_eq!(daemon.terminate().code(), Some(0));
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

/// All files below a folder of the project that end in `.rs`, by their paths there.
fn sources(folder: &str) -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("it is a folder") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("it was found there").display().to_string();
                found.insert(name, fs::read_to_string(&path).expect("it is text"));
            }
        }
    }
    let mut found = BTreeMap::new();
    let root = root().join(folder);
    walk(&root, &root, &mut found);
    found
}

/// The rows of `make chaos` with the promises that they say they hold to: `"P1 P3"`.
fn rows() -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for text in sources("tests/chaos/rows").into_values() {
        let mut before = "";
        for piece in text.split("promises: \"") {
            if !before.is_empty() {
                let promises = piece.split('"').next().unwrap_or_default();
                // Either the row stands there, or a function that makes rows, each by its call.
                let (literal, function) = (before.rfind("name: \""), before.rfind("const fn "));
                let after = if function > literal {
                    let name =
                        before[function.expect("it is there")..].split([' ', '(']).nth(2).expect("it has a name");
                    text.split(&format!(" {name}(\"")).skip(1).collect::<Vec<_>>()
                } else {
                    vec![&before[literal.expect("a row has a name") + "name: \"".len()..]]
                };
                let names = after.into_iter().filter_map(|after| after.split('"').next());
                rows.extend(names.map(|name| (name.to_owned(), promises.to_owned())));
            }
            before = piece;
        }
    }
    rows
}

/// Whether `module::function` is a test of `tests/it`.
fn is_test(files: &BTreeMap<String, String>, path: &str) -> bool {
    let Some((module, function)) = path.rsplit_once("::") else { return false };
    let Some(text) = files.get(&format!("{}.rs", module.replace("::", "/"))) else { return false };
    let Some((before, _)) = text.split_once(&format!("\nfn {function}() {{\n")) else { return false };
    before.lines().rev().take_while(|line| line.starts_with("#[")).any(|line| line == "#[test]")
}

/// What stands in the cells of a table's row as code.
fn codes(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The page on reliability says of each promise which rows of `make chaos` hold to it, and names tests. The rows say it too,
/// and some of them name tests.
#[test]
fn every_row_and_every_test_exists() {
    let (tests, rows) = (sources("tests/it"), rows());
    assert!(rows.len() >= 37, "{rows:?}");
    let page = fs::read_to_string(root().join("docs/RELIABILITY.md")).expect("it is there");
    let mut promised = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| P") && !line.starts_with("| Promise")) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [promise, its_rows, its_tests] = cells[..] else { panic!("not three cells: {cells:?}") };
        let promise = promise.trim_start_matches("| ").split('.').next().unwrap_or_default();
        let holds = |promises: &String| promises.split(' ').any(|held| held == promise);
        let expected: BTreeSet<String> = rows.iter().filter(|row| holds(row.1)).map(|row| row.0.clone()).collect();
        let found = if its_rows == "all" { rows.keys().cloned().collect() } else { codes(its_rows) };
        assert_eq!(found, expected, "{promise}: the page, and what the rows say of themselves");
        let named: Vec<String> = codes(its_tests).into_iter().filter(|code| code.contains("::")).collect();
        for test in &named {
            assert!(is_test(&tests, test), "{promise}: there is no test {test}");
        }
        assert!(!named.is_empty(), "{promise} names no test");
        assert!(promised.insert(promise.to_owned()), "{promise} is there twice");
    }
    let held: BTreeSet<String> = rows.values().flat_map(|promises| promises.split(' ')).map(str::to_owned).collect();
    assert_eq!(promised, held, "the promises of the page, and those that rows hold to");
    // Rows of the table of a run.
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let row = line.split('`').nth(1).unwrap_or_default();
        assert!(rows.contains_key(row), "there is no row {row}");
    }
    // Tests that are rows in their long form.
    let text = &sources("tests/chaos/rows")["tests.rs"];
    let named: Vec<&str> = text.split('"').skip(1).step_by(2).filter(|text| text.contains("::")).collect();
    assert!(named.len() >= 11, "{named:?}");
    for test in named {
        assert!(is_test(&tests, test), "there is no test {test}");
    }
}

/// The table of ARCHITECTURE.md has every thread that the daemon starts. Those of commands end with them.
#[test]
fn every_thread_is_in_the_table() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let known: BTreeSet<&str> = rows.map(|name| name.split('<').next().unwrap_or_default()).collect();
    let mut seen = 0;
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !path.starts_with("cli/")) {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        if path.contains("tests") {
            continue;
        }
        for after in text.split("thread::Builder::new()").skip(1) {
            let name = after.trim_start().strip_prefix(".name(").expect("every thread has a name");
            // A name that is handed over is none of this place.
            let Some((_, name)) = name.split_once('"').filter(|(before, _)| matches!(*before, "" | "format!(")) else {
                continue;
            };
            let name = name.split(['"', '{']).next().unwrap_or_default();
            assert!(known.contains(name), "{path}: the thread {name} is not in the table");
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen}");
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
