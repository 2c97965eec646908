//! `make install` and `make uninstall`, below a folder of the test. What the Debian package does with the same files is looked
//! at by `make test-deb`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// What must be there below the prefix, whatever else is.
const FILES: [&str; 11] = [
    "bin/warrend",
    "lib/systemd/system/warrend.service",
    "lib/systemd/system/warrend@.service",
    "lib/sysusers.d/warrend.conf",
    "lib/tmpfiles.d/warrend.conf",
    "share/man/man1/warrend.1.gz",
    "share/man/man5/warrend.toml.5.gz",
    "share/bash-completion/completions/warrend",
    "share/zsh/site-functions/_warrend",
    "share/fish/vendor_completions.d/warrend.fish",
    "share/warrend/warrend.schema.json",
];
/// What must be there outside of it.
const CONFIGURATION: [&str; 2] = ["etc/warrend/jobs.d/mail.toml.example", "etc/warrend/warrend.toml"];

/// Makes a target with these variables, and gives what it prints.
fn make(target: &str, variables: &[String]) -> String {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg(target);
    make.args(variables).arg(format!("BINARY={}", env!("CARGO_BIN_EXE_warrend")));
    // A make that runs this test has options of its own.
    make.env_remove("MAKEFLAGS").env_remove("MAKEOVERRIDES").env_remove("PREFIX").env_remove("DESTDIR");
    let output = make.output().expect("make is here");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
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

/// Installs below `folder`, twice, and takes it away again. `prefix` is the usual one where it is absent.
fn check(prefix: Option<&str>) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let below = |path: &str| folder.path().join(path);
    let mut variables = vec![format!("DESTDIR={}", folder.path().display())];
    variables.extend(prefix.map(|prefix| format!("PREFIX={prefix}")));
    let prefix = prefix.unwrap_or("/usr/local");
    let said = make("install", &variables);
    assert!(!said.contains("systemd-sysusers"), "whoever packs has triggers for it: {said}");
    let installed = files(folder.path());
    let inside = |file: &str| format!("{}/{file}", &prefix[1..]);
    for file in FILES.map(inside).into_iter().chain(CONFIGURATION.map(str::to_owned)) {
        assert!(installed.contains(&file), "{file} is not there: {installed:#?}");
        let mode = fs::metadata(below(&file)).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, if file.ends_with("bin/warrend") { 0o755 } else { 0o644 }, "{file}");
    }
    let outside = installed.iter().filter(|file| !file.starts_with(&inside("")));
    assert_eq!(outside.collect::<Vec<_>>(), CONFIGURATION);
    let read = |file: &str| fs::read_to_string(below(file)).expect("it is there");
    let unit = read(&inside("lib/systemd/system/warrend@.service"));
    assert!(unit.contains(&format!("ExecStart={prefix}/bin/warrend run ")) && !unit.contains("@BINDIR"), "{unit}");
    let text = read("etc/warrend/warrend.toml");
    assert!(text.starts_with(&format!("#:schema {prefix}/share/warrend/warrend.schema.json\n")), "{text}");
    let fish = read(&inside("share/fish/vendor_completions.d/warrend.fish"));
    assert!(fish.contains("complete -c warrend ") && fish.contains("\"reload\""), "{fish}");

    fs::write(below("etc/warrend/warrend.toml"), "# mine\n").expect("it can be written");
    make("install", &variables);
    assert_eq!(read("etc/warrend/warrend.toml"), "# mine\n", "a configuration is not touched");

    make("uninstall", &variables);
    assert_eq!(files(folder.path()).into_iter().collect::<Vec<_>>(), CONFIGURATION);
    assert!(!below(&inside("share/doc/warrend")).exists(), "folders of its own are gone too");
}

#[test]
fn make_installs_all_and_takes_it_away() {
    check(None);
}

#[test]
fn make_installs_where_packages_do() {
    check(Some("/usr"));
}

/// Nobody makes the daemon's user where nobody is told to.
#[test]
fn make_install_says_what_is_to_be_done_next() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let prefix = folder.path().join("usr").display().to_string();
    let etc = folder.path().join("etc").display().to_string();
    let said = make("install", &["DESTDIR=".to_owned(), format!("PREFIX={prefix}"), format!("SYSCONFDIR={etc}")]);
    let next: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let [users, folders] = ["sysusers", "tmpfiles"].map(|kind| format!("{prefix}/lib/{kind}.d/warrend.conf"));
    let expected = [
        format!("systemd-sysusers {users}"),
        format!("systemd-tmpfiles --create {folders}"),
        "systemctl daemon-reload".to_owned(),
    ];
    assert_eq!(next, expected, "{said}");
    for file in [users, folders] {
        assert!(Path::new(&file).exists(), "{file}");
    }
}
