//! Compares the systemd units, sysusers and tmpfiles with the program: exit codes, times, folders. Tests only.
//!
//! What systemd itself thinks of the units is asked in `make check`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;

use crate::cli::{Cli, Command, Exit};
use crate::config::{self, Config};
use crate::{daemon, job};

const UNIT: &str = include_str!("../systemd/warrend.service");
const TEMPLATE: &str = include_str!("../systemd/warrend@.service");
const TMPFILES: &str = include_str!("../systemd/warrend.tmpfiles.conf");
const SYSUSERS: &str = include_str!("../systemd/warrend.sysusers.conf");
const PLACEHOLDER: &str = "@BINDIR@";

/// The settings of a unit in their order, each as `Section.Key` and its value.
fn settings(unit: &str) -> Vec<(String, String)> {
    let mut section = "";
    let mut settings = Vec::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').expect("a section ends with a bracket");
        } else {
            let (key, value) = line.split_once('=').expect("a setting has a value");
            settings.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    settings
}

/// The one value of a setting of `[Service]`.
fn service(unit: &str, key: &str) -> String {
    let key = format!("Service.{key}");
    let mut values = settings(unit).into_iter().filter(|(name, _)| *name == key).map(|(_, value)| value);
    let value = values.next().unwrap_or_else(|| panic!("{key} is there"));
    assert_eq!(values.next(), None, "{key} stands once");
    value
}

/// A time as these units write it: seconds, or with a unit.
fn seconds(value: &str) -> Duration {
    let minutes = value.strip_suffix("min").map(|number| 60 * number.parse::<u64>().unwrap());
    Duration::from_secs(minutes.unwrap_or_else(|| value.parse().unwrap()))
}

fn load(file: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
    config::load(&path, &|_| None).unwrap_or_else(|report| panic!("{report}")).config
}

/// The command line that a unit starts.
fn starts(unit: &str) -> Cli {
    let line = service(unit, "ExecStart");
    let line = line.strip_prefix(&format!("{PLACEHOLDER}/")).expect("the folder is put in when it is installed");
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    assert!(matches!(cli.command, Command::Run { until_empty: false }), "{cli:?}");
    cli
}

#[test]
fn a_reload_goes_to_the_daemon_of_the_unit() {
    for unit in [UNIT, TEMPLATE] {
        let line = service(unit, "ExecReload");
        let line = line.strip_prefix(&format!("{PLACEHOLDER}/")).expect("the folder is put in when it is installed");
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert!(matches!(cli.command, Command::Reload { check: false, json: false }), "{cli:?}");
        assert_eq!(cli.config, starts(unit).config);
    }
    // It takes at most shutdown.timeout, and systemd waits longer.
    assert!(seconds(&service(UNIT, "TimeoutStartSec")) > 2 * load("warrend.toml").shutdown.timeout);
}

/// Whether systemd does well to start the daemon again after such an end.
fn a_restart_may_mend(exit: Exit) -> bool {
    match exit {
        Exit::Failed | Exit::Internal | Exit::Store | Exit::Locked => true,
        Exit::Usage | Exit::Config => false,
        // The daemon ends with none of these but the first, and that is no failure.
        Exit::Done | Exit::NotRunning | Exit::NoBroker => true,
    }
}

#[test]
fn exit_codes_that_no_restart_mends_end_the_unit() {
    assert_eq!(service(UNIT, "Restart"), "on-failure");
    let ends: Vec<String> =
        Exit::ALL.into_iter().filter(|exit| !a_restart_may_mend(*exit)).map(|exit| (exit as u8).to_string()).collect();
    assert_eq!(service(UNIT, "RestartPreventExitStatus"), ends.join(" "));
    // A failing disk is waited for, however long.
    assert!(settings(UNIT).contains(&("Unit.StartLimitIntervalSec".to_owned(), "0".to_owned())));
}

#[test]
fn systemd_waits_longer_than_the_daemon() {
    let shutdown = load("warrend.toml").shutdown.timeout;
    let longest = shutdown + job::LAST_WORDS + 2 * daemon::JOIN_PATIENCE + daemon::ASKERS_PATIENCE;
    let stop = seconds(&service(UNIT, "TimeoutStopSec"));
    assert!(stop > longest, "{stop:?} is not more than {longest:?}");
    assert!(stop > shutdown);
    // The daemon tells when it is up and feeds the watchdog; systemd must listen to it, and to nobody else.
    assert_eq!((&*service(UNIT, "Type"), &*service(UNIT, "NotifyAccess")), ("notify", "main"));
    assert!(seconds(&service(UNIT, "WatchdogSec")) > Duration::ZERO);
    // Handlers get their time from the daemon, and are killed with it only after that.
    assert_eq!(service(UNIT, "KillMode"), "mixed");
}

/// The folders that a unit makes, and the paths that its configuration takes when it says nothing else.
fn check_folders(unit: &str, instance: &str, main: &Path, config: &Config) {
    let folder = |key: &str, root: &str| {
        let name = service(unit, key).replace("%i", instance);
        assert!(!name.contains('%') && !name.contains(' '), "{name} is one folder");
        Path::new(root).join(name)
    };
    assert_eq!(Some(&*folder("ConfigurationDirectory", "/etc")), main.parent());
    assert_eq!(Some(&*folder("StateDirectory", "/var/lib")), config.store.path.parent());
    assert_eq!(Some(&*folder("RuntimeDirectory", "/run")), config.control.socket.parent());
    let (name, source) =
        service(unit, "LoadCredential").split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(Path::new(&source.replace("%i", instance)), main.with_file_name(&name));
    // Without the file the unit starts all the same, with an empty password.
    assert!(service(unit, "SetCredential").starts_with(&format!("{name}:")));
}

#[test]
fn folders_are_those_of_the_configuration() {
    let config = load("warrend.toml");
    assert_eq!(starts(UNIT).config, None, "it reads the default file");
    let main = config::path(None, &|_| None);
    check_folders(UNIT, "", &main, &config);
    let credential = "/run/credentials/warrend.service/amqp-password";
    for text in [UNIT, include_str!("../config/warrend.toml")] {
        assert!(text.contains(&format!("password_file = \"{credential}\"")));
    }
}

#[test]
fn an_instance_has_all_of_its_own() {
    let config = load("instance.toml");
    let main = starts(TEMPLATE).config.expect("it names its file").display().to_string().replace("%i", "billing");
    check_folders(TEMPLATE, "billing", &PathBuf::from(main), &config);
    let main = load("warrend.toml");
    assert_ne!(config.store.path, main.store.path);
    assert_ne!(config.control.socket, main.control.socket);
    // The folder of sockets is removed as the unit stops: it cannot lie in that of another unit.
    assert!(!service(TEMPLATE, "RuntimeDirectory").starts_with("warrend/"));
    assert!(include_str!("../config/instance.toml").contains("/run/credentials/warrend@billing.service/amqp-password"));
}

/// Of the settings that name something of its own, only the name may differ.
#[test]
fn the_template_is_the_unit_under_a_name() {
    let own = [
        ("Unit.Description", "warrend %i, a task worker for RabbitMQ"),
        ("Service.ExecStart", "@BINDIR@/warrend run --config /etc/warrend/%i/warrend.toml"),
        ("Service.ConfigurationDirectory", "warrend/%i"),
        ("Service.StateDirectory", "warrend/%i"),
        ("Service.ExecReload", "@BINDIR@/warrend reload --config /etc/warrend/%i/warrend.toml"),
        ("Service.RuntimeDirectory", "warrend-%i"),
        ("Service.LoadCredential", "amqp-password:/etc/warrend/%i/amqp-password"),
    ];
    let expect: Vec<(String, String)> = settings(UNIT)
        .into_iter()
        .map(|(key, value)| match own.iter().find(|(name, _)| *name == key) {
            Some((_, value)) => (key, (*value).to_owned()),
            None => (key, value),
        })
        .collect();
    assert_eq!(settings(TEMPLATE), expect);
}

#[test]
fn users_and_folders_outside_of_the_unit_are_the_same() {
    let user = service(UNIT, "User");
    assert_eq!(user, service(UNIT, "Group"));
    let config = load("warrend.toml");
    let (state, run) = (config.store.path.parent().unwrap(), config.control.socket.parent().unwrap());
    let line = SYSUSERS.lines().find(|line| line.starts_with("u ")).expect("a user");
    assert!(line.starts_with(&format!("u {user} ")) && line.ends_with(&state.display().to_string()), "{line}");
    let etc = config::path(None, &|_| None);
    let etc = etc.parent().unwrap().display();
    let expect = [
        format!("d {etc} 0755 root root -"),
        format!("d {etc}/jobs.d 0755 root root -"),
        format!("d {} {} {user} {user} -", run.display(), service(UNIT, "RuntimeDirectoryMode")),
        format!("d {} {} {user} {user} -", state.display(), service(UNIT, "StateDirectoryMode")),
    ];
    let lines: Vec<&str> = TMPFILES.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, expect);
}
