//! The systemd unit that runs this configuration, against the configuration.

mod files;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::{Area, Finding, Level};
use crate::config::{Config, show_duration};
use crate::{daemon, job};
pub use files::Unit;

/// Where systemd puts credentials: `UNIT/NAME` below it.
const CREDENTIALS: &str = "/run/credentials";
/// What systemd waits where a unit does not say: `DefaultTimeoutStopSec`.
const DEFAULT_STOP: Duration = Duration::from_secs(90);
/// Permissions of those who are not the owner.
const BY_OTHERS: u32 = 0o077;

/// How long an orderly end may take at most: the handlers, then the last records, then the last copies, then
/// whoever asks.
pub fn longest_end(config: &Config) -> Duration {
    config.shutdown.timeout + job::LAST_WORDS + 2 * daemon::JOIN_PATIENCE + daemon::ASKERS_PATIENCE
}

/// The file that a credential of this unit comes from, where `password_file` is one: that of systemd is there only while the
/// service runs.
pub fn credential_source(config: &Config, unit: &Unit) -> Option<PathBuf> {
    let (owner, name) = credential(config)?;
    if owner != unit.name {
        return None;
    }
    unit.credentials().into_iter().find(|(known, _)| *known == name).map(|(_, source)| source)
}

/// Unit and name of the credential that `password_file` is.
fn credential(config: &Config) -> Option<(String, String)> {
    let path = config.broker.password_file.as_ref()?;
    let mut parts = path.strip_prefix(CREDENTIALS).ok()?.iter().map(|part| part.to_string_lossy().into_owned());
    Some((parts.next()?, parts.next()?))
}

fn finding(level: Level, code: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(Area::Unit, level, code, text)
}

/// Judges the unit; `path`: the main file of the configuration.
pub fn judge(config: &Config, unit: Option<&Unit>, path: &Path) -> Vec<Finding> {
    let Some(unit) = unit else {
        let text = format!("no systemd unit of this machine runs {}", path.display());
        return vec![finding(Level::Ok, "unit", text)];
    };
    let mut findings = judge_credential(config, unit);
    findings.extend(judge_stop(config, unit));
    if findings.is_empty() {
        let text = format!("{} gives warrend the time that it needs to stop", unit.name);
        findings.push(finding(Level::Ok, "unit", text));
    }
    findings
}

fn judge_stop(config: &Config, unit: &Unit) -> Option<Finding> {
    let needed = longest_end(config);
    let has = match unit.stop_timeout() {
        Some(Ok(has)) => has,
        None => Some(DEFAULT_STOP),
        Some(Err(text)) => {
            let text = format!("{}: TimeoutStopSec={text} is no time", unit.name);
            return Some(finding(Level::Warning, "unit-stop", text).run(&["systemctl", "edit", &unit.name]));
        }
    };
    // For ever.
    let has = has?;
    if has >= needed {
        return None;
    }
    let timeout = config.shutdown.timeout;
    let level = if has <= timeout { Level::Error } else { Level::Warning };
    let text = format!(
        "{} kills warrend after {} (TimeoutStopSec), its handlers may take {} to end (shutdown.timeout)",
        unit.name,
        show_duration(has),
        show_duration(timeout)
    );
    let seconds = needed.as_secs() + 10;
    let folder = format!("/etc/systemd/system/{}.d", unit.name);
    let command = format!(
        "mkdir -p {folder} && printf '[Service]\\nTimeoutStopSec={seconds}\\n' >{folder}/stop.conf && systemctl daemon-reload"
    );
    Some(
        finding(level, "unit-stop", text)
            .why(format!(
                "With the last records and copies it needs {} at most. What is killed before runs again.",
                show_duration(needed)
            ))
            .paste(command)
            .or("in [shutdown]: a shorter timeout"),
    )
}

fn judge_credential(config: &Config, unit: &Unit) -> Vec<Finding> {
    let Some((owner, name)) = credential(config) else { return Vec::new() };
    let mut findings = Vec::new();
    if owner != unit.name {
        let text = format!("broker.password_file is a credential of {owner}, this is {}", unit.name);
        let told = finding(Level::Error, "credential", text).why("Each unit sees its own credentials only.");
        findings.push(told.or(format!("in [broker]: password_file = \"{CREDENTIALS}/{}/{name}\"", unit.name)));
        return findings;
    }
    let Some(source) = credential_source(config, unit) else {
        let text = format!("{} loads no credential {name:?}, which is broker.password_file", unit.name);
        let folder = format!("/etc/systemd/system/{}.d", unit.name);
        let told = finding(Level::Error, "credential", text).why("warrend cannot log in without its password.");
        findings.push(told.paste(format!(
            "mkdir -p {folder} && printf '[Service]\\nLoadCredential={name}:/etc/warrend/{name}\\n' >{folder}/password.conf && systemctl daemon-reload"
        )));
        return findings;
    };
    let shown = source.display().to_string();
    match fs::metadata(&source) {
        Ok(metadata) if metadata.permissions().mode() & BY_OTHERS != 0 => {
            let text = format!("{shown} can be read by others than its owner");
            let told = finding(Level::Warning, "credential", text)
                .why("It holds the broker's password; systemd reads it as root.");
            findings.push(told.run(&["chmod", "0600", &shown]));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = format!("{shown}, where {} has the broker's password from, does not exist", unit.name);
            let told = finding(Level::Error, "credential", text).why("warrend cannot log in without its password.");
            findings.push(told.run(&["install", "-m", "0600", "/dev/stdin", &shown]));
        }
        // A folder that we may not look into.
        Err(_) => {}
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with a unit of these settings, and a configuration with this shutdown timeout and password file.
    fn judged(service: &str, dropin: &str, config: &str) -> Vec<(Level, &'static str)> {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        };
        write("lib/systemd/system/warrend.service", &format!("[Service]\nExecStart=/usr/bin/warrend run\n{service}"));
        if !dropin.is_empty() {
            write("etc/systemd/system/warrend.service.d/stop.conf", &format!("[Service]\n{dropin}"));
        }
        let rest = "[jobs.a]\nqueue = \"a\"\nhandler.discard = true\n";
        write("w.toml", &format!("broker.urls = [\"amqp://u:p@127.0.0.1\"]\n{config}\n{rest}"));
        let config = crate::config::load(&root.path().join("w.toml"), &|_| None);
        let config = config.unwrap_or_else(|report| panic!("{report}")).config;
        let path = Path::new("/etc/warrend/warrend.toml");
        let unit = Unit::find(root.path(), path).expect("the unit runs that file");
        judge(&config, Some(&unit), path).iter().map(|found| (found.level, found.code)).collect()
    }

    #[test]
    fn the_unit_must_wait_longer_than_the_daemon() {
        let check = |service: &str, dropin: &str, config: &str, expect: Level| {
            let found = judged(service, dropin, config);
            assert_eq!(
                found.iter().map(|(level, _)| *level).max(),
                Some(expect),
                "{service} {dropin} {config}: {found:?}"
            );
        };
        check("TimeoutStopSec=60", "", "", Level::Ok);
        check("TimeoutStopSec=49", "", "", Level::Warning);
        check("TimeoutStopSec=25", "", "", Level::Error);
        check("", "", "", Level::Ok);
        check("", "", "shutdown.timeout = \"2m\"", Level::Error);
        check("TimeoutStopSec=60", "TimeoutStopSec=5min", "shutdown.timeout = \"2m\"", Level::Ok);
        check("TimeoutStopSec=60", "TimeoutStopSec=infinity", "shutdown.timeout = \"2h\"", Level::Ok);
        check("TimeoutStopSec=soon", "", "", Level::Warning);
    }

    #[test]
    fn a_credential_must_be_loaded() {
        let file = |unit: &str| format!("broker.password_file = \"/run/credentials/{unit}/amqp\"");
        let load = |source: &str| format!("LoadCredential=amqp:{source}");
        assert_eq!(judged("", "", &file("warrend.service")), [(Level::Error, "credential")]);
        assert_eq!(judged(&load("/nowhere/at/all"), "", &file("warrend.service")), [(Level::Error, "credential")]);
        assert_eq!(judged(&load("/nowhere"), "", &file("other.service")), [(Level::Error, "credential")]);
        let secret = tempfile::NamedTempFile::new().expect("a temporary file");
        let of_it = load(&secret.path().display().to_string());
        assert_eq!(judged(&of_it, "", &file("warrend.service")), [(Level::Ok, "unit")]);
        fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o644)).expect("it is ours");
        assert_eq!(judged(&of_it, "", &file("warrend.service")), [(Level::Warning, "credential")]);
    }
}
