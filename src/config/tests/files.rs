//! Which files are read, and how they come together.

use super::*;

#[test]
fn a_job_twice_in_a_file_names_both_places() {
    let report = Folder::new(&complete("[jobs.a]\nqueue = \"q\"\nhandler.discard = true\n[jobs.a]\n")).faulty();
    let (spot, label) = report.entries[0].also.as_ref().expect("the first place");
    assert_eq!((spot.line.as_ref().map(|line| (line.line, line.column)), *label), (Some((1, 7)), "first defined here"));
}

#[test]
fn files_that_cannot_be_read() {
    let folder = Folder::new("");
    folder.write("warrend.toml", b"[broker]\nurls = \"\xff\"\n");
    assert_eq!(outline(&folder.faulty()), ["2:9 this file is not UTF-8"]);
    // The byte is shown as a character of three: the caret takes all of it.
    let rendered = folder.faulty().to_string();
    assert!(rendered.contains("2 | urls = \"\u{fffd}\"\n  |         ^"), "{rendered}");
    let gone = load(&folder.0.path().join("gone.toml"), &environment).expect_err("no such file");
    assert!(outline(&gone)[0].starts_with("gone.toml:0:0 cannot read this file: No such file"), "{gone}");
    assert_eq!(gone.entries.len(), 1, "{gone}");
    let folder = Folder::new(&complete("")).with("jobs.d", "not a folder");
    assert!(outline(&folder.faulty())[0].starts_with("jobs.d:0:0 cannot read this folder"));
    let folder = Folder::new(&complete("[store]\npath = 5"));
    folder.write("jobs.d/bad.toml", b"\xff");
    assert_eq!(
        outline(&folder.faulty()),
        ["2:8 `path` must be a string, not an integer", "bad.toml:1:1 this file is not UTF-8"]
    );
}

#[test]
fn jobs_of_all_files_come_together() {
    let job = |name: &str| format!("[jobs.{name}]\nqueue = \"{name}\"\nhandler.discard = true\n");
    let folder = Folder::new(&format!("broker.urls = [\"amqp://localhost\"]\n{}", job("m")))
        .with("jobs.d/20-a.toml", &job("a"))
        .with("jobs.d/10-z.toml", &job("z"))
        .with("jobs.d/30-none.toml", "")
        .with("jobs.d/x.toml.example", "not even TOML")
        .with("jobs.d/.x.toml", "not even TOML");
    let loaded = folder.good();
    let names: Vec<&str> = loaded.config.jobs.iter().map(|job| &*job.name).collect();
    assert_eq!(names, ["a", "m", "z"]);
    let files: Vec<_> = loaded.files.iter().map(|file| file.file_name().expect("a name").to_owned()).collect();
    assert_eq!(files, ["warrend.toml", "10-z.toml", "20-a.toml", "30-none.toml"]);
}

#[test]
fn faults_between_files() {
    let job = "[jobs.a]\nqueue = \"a\"\nhandler.discard = true\n";
    let folder = Folder::new(&format!("broker.urls = [\"amqp://localhost\"]\n{job}"))
        .with("jobs.d/1.toml", &format!("\n{job}[store]\npath = 5\n"))
        .with("jobs.d/2.toml", "[jobs.b]\nqueue = \"a\"\nhandler.discard = true");
    let report = folder.faulty();
    let expect = [
        "1.toml:2:7 the job `a` is defined twice",
        "1.toml:5:2 unknown key `store`",
        "2.toml:2:9 another job consumes this queue too",
    ];
    assert_eq!(outline(&report), expect);
    assert!(report.to_string().contains("warrend.toml:2:7"), "both places are named\n{report}");
    assert!(report.to_string().contains("`store` belongs in the main file"), "{report}");
}

#[test]
fn a_job_may_stand_in_jobs_d_alone() {
    let folder = Folder::new("broker.urls = [\"amqp://localhost\"]")
        .with("jobs.d/a.toml", "[jobs.a]\nqueue = \"a\"\nhandler.discard = true\n");
    assert_eq!(folder.good().config.jobs.len(), 1);
}

#[test]
fn relative_paths_are_taken_from_the_folder_of_the_main_file() {
    let folder =
        Folder::new("broker.urls = [\"amqp://u@h\"]\nbroker.password_file = \"pw\"\nstore.path = \"s/w.db\"\n")
            .with(
                "jobs.d/a.toml",
                "[jobs.a]\nqueue = \"q\"\nhandler = { command = [\"bin/a\", \"./b\"], cwd = \"w\" }\n",
            )
            .with("jobs.d/b.toml", "[jobs.b]\nqueue = \"r\"\nhandler = { command = [\"b\"], cwd = \"/w\" }\n");
    let config = folder.good().config;
    let here = |path: &str| folder.0.path().join(path);
    assert_eq!(config.broker.password_file, Some(here("pw")));
    assert_eq!(config.store.path, here("s/w.db"));
    let commands: Vec<&Command> = config
        .jobs
        .iter()
        .map(|job| {
            let Handler::Command(command) = &job.handler else { panic!("not a command: {:?}", job.handler) };
            command
        })
        .collect();
    let first = here("bin/a").to_string_lossy().into_owned();
    assert_eq!(commands[0].argv, [first.as_str(), "./b"]);
    assert_eq!(commands[0].cwd, Some(here("w")));
    assert_eq!(commands[1].argv, ["b"]);
    assert_eq!(commands[1].cwd, Some(PathBuf::from("/w")));
}

#[test]
fn the_path_comes_from_the_option_then_the_environment() {
    let set = |_: &str| Some("/env.toml".to_owned());
    assert_eq!(path(Some(Path::new("/option.toml")), &set), Path::new("/option.toml"));
    assert_eq!(path(None, &set), Path::new("/env.toml"));
    assert_eq!(path(None, &|_| Some(String::new())), Path::new(DEFAULT_PATH));
    assert_eq!(path(None, &|_| None), Path::new("/etc/warrend/warrend.toml"));
}
