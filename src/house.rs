//! Reads the sources and keeps the rules of ARCHITECTURE.md true. Tests only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the ground up: a module may use what stands before it, and nothing behind it. Modules on one line do not know
/// each other.
const LAYERS: [&[&str]; 11] = [
    &["task", "failpoint", "report", "histogram", "background", "tls", "who", "shell"],
    &["config", "encoding", "system"],
    &["policy"],
    &["broker", "store", "handler", "management"],
    &["job"],
    &["panel", "deadletters"],
    &["control", "metrics", "alerts"],
    &["web"],
    &["daemon", "logging"],
    &["doctor"],
    &["cli"],
];

/// Words that may stand only below these paths.
const ONLY_IN: [(&str, &[&str]); 9] = [
    // The log names it to keep it quiet.
    ("amiquip::", &["broker", "logging"]),
    ("rusqlite::", &["store"]),
    ("rustls::", &["tls", "broker/secure", "handler/http"]),
    ("execve", &["handler"]),
    ("unsafe_code", &["handler/process/exec.rs", "background.rs"]),
    ("Committed::attest(", &["store/recorder.rs", "policy/sim", "task"]),
    (".ack_multiple(", &["broker"]),
    ("session.ack(", &["job/settle.rs"]),
    ("process::Command", &["handler", "cli"]),
];

/// What a module that decides must not touch: the clock, the log, IO.
const NOT_IN_POLICY: [&str; 6] = ["Instant::now", "UnixMillis::now", "log::", "std::fs", "std::thread", "fastrand::"];

#[test]
fn imports_go_downward_only() {
    let rank: BTreeMap<_, _> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(rank, modules)| modules.iter().map(move |module| (*module, rank)))
        .collect();
    for (path, text) in sources() {
        let module = module_of(&path);
        let Some(own) = rank.get(module.as_str()) else {
            assert!(["main", "house", "units"].contains(&&*module), "{module} has no layer");
            continue;
        };
        for used in used_modules(&text) {
            let Some(other) = rank.get(used.as_str()) else { continue };
            assert!(used == module || other < own, "{} uses {used}, which is not below it", path.display());
        }
    }
}

#[test]
fn what_belongs_to_one_place_stays_there() {
    for (path, text) in sources() {
        for (word, places) in ONLY_IN {
            let allowed = places.iter().any(|place| path.starts_with(place)) || path == Path::new("house.rs");
            let allowed = allowed || places.iter().any(|place| path == Path::new(&format!("{place}.rs")));
            let line = text.lines().position(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert!(allowed || line.is_none(), "{}:{} says {word}", path.display(), line.unwrap_or(0) + 1);
        }
    }
}

#[test]
fn policy_has_no_clock_and_no_effects() {
    for (path, text) in sources() {
        if !path.starts_with("policy") || is_sim(&path) {
            continue;
        }
        for word in NOT_IN_POLICY {
            let line = without_tests(&text).lines().position(|line| line.contains(word));
            assert!(line.is_none(), "{}:{} says {word}", path.display(), line.unwrap_or(0) + 1);
        }
    }
}

#[test]
fn a_file_fits_in_a_head() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        let all_test = is_sim(&path) || path.to_string_lossy().contains("tests");
        let code = if all_test { 0 } else { without_tests(&text).lines().count() };
        assert!(lines <= 720 && code <= 460, "{} has {lines} lines, {code} without its tests", path.display());
    }
}

/// Every Rust file below src/, by its path there.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("src/ can be read") {
            let path = entry.expect("src/ can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 30, "the walk finds the sources");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source file can be read");
        (path.strip_prefix(&root).expect("it was found below src/").to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

/// The simulator is tests alone.
fn is_sim(path: &Path) -> bool {
    path == Path::new("policy/sim.rs") || path.starts_with("policy/sim")
}

fn module_of(path: &Path) -> String {
    let first = path.components().next().expect("a path has a part").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that come after `crate::` anywhere outside tests and comments.
fn used_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for line in without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//")) {
        for after in line.split("crate::").skip(1) {
            match after.strip_prefix('{') {
                Some(list) => used.extend(list.split(',').map(first_word)),
                None => used.push(first_word(after)),
            }
        }
    }
    used
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or(text)
        .split("\n#[cfg(test)]\npub mod tests")
        .next()
        .unwrap_or(text)
}
