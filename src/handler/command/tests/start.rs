//! Programs that do not start, and where programs are looked for.

use super::*;

/// Writes a file from another process: a file that this process has open for writing could still be so in a child that
/// another test is forking, and then the kernel refuses to execute it.
fn install(path: &Path, content: &str, mode: &str) {
    let script = r#"printf %s "$1" > "$2" && chmod "$3" "$2""#;
    let arguments = [script, "sh", content, path.to_str().unwrap(), mode];
    assert!(Command::new("/bin/sh").arg("-c").args(arguments).status().unwrap().success());
}

#[test]
fn a_program_that_does_not_start_is_broken_and_says_why() {
    let setup = Setup::script("");
    let cases = [
        ("missing", None, "no such file"),
        ("not-executable", Some(("#!/bin/sh\n", "644")), "permission denied"),
        ("no-interpreter", Some(("#!/no/such/thing\n", "755")), "it exists, but what should run it does not"),
        ("empty", Some(("", "755")), "not a program for this machine"),
        ("no-first-line", Some(("exit 0\n", "755")), "not a program for this machine"),
        ("foreign", Some(("\u{7f}ELF\u{2}\u{1}\u{1}", "755")), "not a program for this machine"),
        (".", None, "permission denied"),
        ("missing/below", None, "no such file"),
        ("empty/below", None, "no such file"),
    ];
    for (name, file, expected) in cases {
        let path = setup.path(name);
        if let Some((content, mode)) = file {
            install(&path, content, mode);
        }
        let path = path.to_str().unwrap();
        let error = broken(Setup::argv([path]).run(&task(b"")));
        assert!(error.starts_with(&format!("cannot start `{path}`: ")) && error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_name_is_looked_for_in_path() {
    assert_eq!(Setup::argv(["true"]).run(&task(b"")), Outcome::Done);
    let mut setup = Setup::argv(["warrend-no-such-program"]);
    let error = broken(setup.run(&task(b"")));
    assert_eq!(
        error,
        "cannot start `warrend-no-such-program`: it is in no folder of PATH; install it, or give its whole path"
    );
    install(&setup.path("warrend-no-such-program"), "#!/bin/sh\nexit 75", "755");
    // The PATH of `env` counts; a folder that is missing or no folder is passed over.
    let path = format!("/no/such/folder:/etc/passwd:{}:/bin", setup.folder.path().display());
    setup.config.env.insert("PATH".into(), path);
    assert_eq!(setup.run(&task(b"")), retry(ErrorClass::Failed, "exit status 75"));
    // A relative path counts from `cwd`.
    let mut setup = Setup { config: Setup::argv(["./warrend-no-such-program"]).config, ..setup };
    setup.config.cwd = Some(setup.folder.path().to_owned());
    assert_eq!(setup.run(&task(b"")), retry(ErrorClass::Failed, "exit status 75"));
}

#[test]
fn a_working_directory_is_entered_or_named() {
    let mut setup = Setup::script(r#"pwd > "$1/pwd""#);
    setup.config.cwd = Some("/usr".into());
    assert_eq!(setup.run(&task(b"")), Outcome::Done);
    assert_eq!(setup.read("pwd"), "/usr\n");
    for (cwd, expected) in [("/no/such/folder", "no such file or directory"), ("/etc/passwd", "not a directory")] {
        setup.config.cwd = Some(cwd.into());
        let error = broken(setup.run(&task(b"")));
        let start = format!("cannot start `/bin/sh` in `{cwd}`: {expected}");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn what_no_program_can_be_given_is_broken() {
    let error = broken(Setup::argv(["/bin/true", "a\0b"]).run(&task(b"")));
    assert!(error.contains("NUL"), "{error}");
    for (name, value, expected) in
        [("A=B", "c", "the name \"A=B\""), ("", "c", "the name \"\""), ("A", "b\0c", "a NUL byte at \"A\"")]
    {
        let mut setup = Setup::argv(["/bin/true"]);
        setup.config.env.insert(name.into(), value.into());
        let error = broken(setup.run(&task(b"")));
        assert!(error.contains(expected), "{error}");
    }
    let mut setup = Setup::argv(["/bin/true"]);
    setup.config.env.insert("LARGE".into(), "x".repeat(200_000));
    let error = broken(setup.run(&task(b"")));
    assert!(error.contains("too long"), "{error}");
}
