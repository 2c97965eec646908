//! `make install` and `make uninstall`, below a folder of the test. What the Debian package does with the same files is looked
//! at by `make test-deb`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// What must be there, whatever else is.
const FILES: [&str; 12] = [
    "etc/warrend/warrend.toml",
    "etc/warrend/jobs.d/mail.toml.example",
    "usr/local/bin/warrend",
    "usr/local/lib/systemd/system/warrend.service",
    "usr/local/lib/systemd/system/warrend@.service",
    "usr/local/lib/sysusers.d/warrend.conf",
    "usr/local/lib/tmpfiles.d/warrend.conf",
    "usr/local/share/man/man1/warrend.1.gz",
    "usr/local/share/man/man5/warrend.toml.5.gz",
    "usr/local/share/bash-completion/completions/warrend",
    "usr/local/share/zsh/site-functions/_warrend",
    "usr/local/share/warrend/warrend.schema.json",
];

fn make(target: &str, folder: &Path) {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg(target);
    make.arg(format!("DESTDIR={}", folder.display())).arg(format!("BINARY={}", env!("CARGO_BIN_EXE_warrend")));
    // A make that runs this test has options of its own.
    make.env_remove("MAKEFLAGS").env_remove("MAKEOVERRIDES").env_remove("PREFIX");
    let output = make.output().expect("make is here");
    assert!(output.status.success(), "{output:?}");
}

/// The files below a folder, by their paths there.
fn files(folder: &Path) -> BTreeSet<String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let below = path.strip_prefix(root).expect("it was found there");
                found.insert(below.display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(folder, folder, &mut found);
    found
}

#[test]
fn make_installs_all_and_takes_it_away() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let below = |path: &str| folder.path().join(path);
    make("install", folder.path());
    let installed = files(folder.path());
    for file in FILES {
        assert!(installed.contains(file), "{file} is not there: {installed:#?}");
        let mode = fs::metadata(below(file)).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, if file.ends_with("bin/warrend") { 0o755 } else { 0o644 }, "{file}");
    }
    let unit = fs::read_to_string(below("usr/local/lib/systemd/system/warrend@.service")).expect("it is there");
    assert!(unit.contains("ExecStart=/usr/local/bin/warrend run ") && !unit.contains("@BINDIR"), "{unit}");
    let configuration = below("etc/warrend/warrend.toml");
    let text = fs::read_to_string(&configuration).expect("it is there");
    assert!(text.starts_with("#:schema /usr/local/share/warrend/warrend.schema.json\n"), "{text}");

    fs::write(&configuration, "# mine\n").expect("it can be written");
    make("install", folder.path());
    assert_eq!(fs::read_to_string(&configuration).expect("it is there"), "# mine\n", "a configuration is not touched");

    make("uninstall", folder.path());
    let left: Vec<String> = files(folder.path()).into_iter().collect();
    assert_eq!(left, ["etc/warrend/jobs.d/mail.toml.example", "etc/warrend/warrend.toml"]);
    assert!(!below("usr/local/share/doc/warrend").exists(), "folders of its own are gone too");
}
