//! Units as systemd.unit(5) lays them out: the first folder that has a file wins, drop-ins come on top. Read from the files,
//! since they say what holds after the next start, and since there may be no systemd to ask.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::DEFAULT_PATH;

/// Where units lie, the most important first.
const FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// A unit that runs warrend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Such as `warrend.service` or `warrend@billing.service`.
    pub name: String,
    /// The settings of `[Service]` in their order, drop-ins last.
    settings: Vec<(String, String)>,
}

impl Unit {
    /// The unit that runs warrend with this main file. `root`: `/`.
    pub fn find(root: &Path, config: &Path) -> Option<Self> {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in FOLDERS.iter().flat_map(|folder| entries(&root.join(folder), ".service")) {
            files.entry(name_of(&path)).or_insert(path);
        }
        files.into_iter().find_map(|(name, path)| Self::read(root, &name, &path)?.runs(&config))
    }

    fn read(root: &Path, name: &str, path: &Path) -> Option<Self> {
        let mut settings = service(&fs::read_to_string(path).ok()?);
        let mut dropins: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in FOLDERS.iter().flat_map(|folder| entries(&root.join(folder).join(format!("{name}.d")), ".conf")) {
            dropins.entry(name_of(&path)).or_insert(path);
        }
        settings
            .extend(dropins.values().filter_map(|path| fs::read_to_string(path).ok()).flat_map(|text| service(&text)));
        Some(Self { name: name.to_owned(), settings })
    }

    /// This unit, or its instance, if it runs warrend with that file.
    fn runs(mut self, config: &Path) -> Option<Self> {
        let line = self.value("ExecStart")?;
        let mut words = line.split_whitespace();
        let program = words.next()?.trim_start_matches(['@', '-', ':', '+', '!']);
        if Path::new(program).file_name()? != "warrend" {
            return None;
        }
        let words: Vec<&str> = words.collect();
        let given = words.iter().position(|word| matches!(*word, "-c" | "--config")).and_then(|at| words.get(at + 1));
        let given = given.copied().or_else(|| words.iter().find_map(|word| word.strip_prefix("--config=")));
        let given = given.unwrap_or(DEFAULT_PATH).to_owned();
        let config = config.to_str()?;
        if given == config {
            return Some(self);
        }
        let (before, after) = given.split_once("%i").or_else(|| given.split_once("%I"))?;
        let instance = config.strip_prefix(before)?.strip_suffix(after)?.to_owned();
        if instance.is_empty() || instance.contains('/') {
            return None;
        }
        for (_, value) in &mut self.settings {
            *value = value.replace("%i", &instance).replace("%I", &instance);
        }
        self.name = self.name.replacen("@.", &format!("@{instance}."), 1);
        Some(self)
    }

    /// The last value of a setting; an empty one takes back those before it.
    fn value(&self, key: &str) -> Option<&str> {
        let last = self.settings.iter().rev().find(|(known, _)| known == key)?;
        Some(last.1.as_str()).filter(|value| !value.is_empty())
    }

    /// The user that it runs as; `None`: root.
    pub fn user(&self) -> Option<&str> {
        self.value("User")
    }

    /// The group that it runs as; `None`: that of the user.
    pub fn group(&self) -> Option<&str> {
        self.value("Group")
    }

    /// The groups that it has beside: lists that add up; an empty one takes back those before it.
    pub fn supplementary_groups(&self) -> Vec<&str> {
        let lists = self.settings.iter().filter(|(key, _)| key == "SupplementaryGroups");
        lists.fold(Vec::new(), |mut groups, (_, list)| {
            if list.is_empty() {
                groups.clear();
            }
            groups.extend(list.split_whitespace());
            groups
        })
    }

    /// `TimeoutStopSec`; `Ok(None)`: for ever; the text where it is no time.
    pub fn stop_timeout(&self) -> Option<Result<Option<Duration>, String>> {
        let set = |key: &str| self.value(key);
        let text = set("TimeoutStopSec").or_else(|| set("TimeoutSec"))?;
        if text == "infinity" {
            return Some(Ok(None));
        }
        // Zero is no limit either.
        let time = time_span(text).map(|time| Some(time).filter(|time| !time.is_zero()));
        Some(time.ok_or_else(|| text.to_owned()))
    }

    /// Names and sources of `LoadCredential`.
    pub fn credentials(&self) -> Vec<(String, PathBuf)> {
        let values = self.settings.iter().filter(|(key, _)| key == "LoadCredential");
        let pairs = values.filter_map(|(_, value)| value.split_once(':'));
        pairs.map(|(name, source)| (name.to_owned(), PathBuf::from(source))).collect()
    }
}

/// The files of a folder whose names end so; none where it is not there.
fn entries(folder: &Path, end: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    listed.filter(|path| name_of(path).ends_with(end)).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The settings of `[Service]`, lines that end with a backslash joined.
fn service(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let mut in_service = false;
    let mut settings = Vec::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if line.starts_with('[') {
            in_service = line == "[Service]";
        } else if let Some((key, value)) = line.split_once('=')
            && in_service
        {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// A time as systemd.time(7) writes it: `90`, `1min 30s`, `5m`. `None` where it is none.
fn time_span(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let part = match &rest[..letters] {
            "" | "s" | "sec" | "second" | "seconds" => Duration::from_secs(number),
            "us" | "usec" => Duration::from_micros(number),
            "ms" | "msec" => Duration::from_millis(number),
            "m" | "min" | "minute" | "minutes" => Duration::from_secs(number.checked_mul(60)?),
            "h" | "hr" | "hour" | "hours" => Duration::from_secs(number.checked_mul(3600)?),
            "d" | "day" | "days" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = rest[letters..].trim_start();
    }
    (!text.trim().is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = include_str!("../../../systemd/warrend.service");
    const TEMPLATE: &str = include_str!("../../../systemd/warrend@.service");

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&folder).expect("it can be made");
        fs::write(folder.join("warrend.service"), UNIT.replace("@BINDIR@", "/usr/bin")).expect("it can be written");
        fs::write(folder.join("warrend@.service"), TEMPLATE.replace("@BINDIR@", "/usr/bin"))
            .expect("it can be written");
        fs::write(folder.join("other.service"), "[Service]\nExecStart=/usr/bin/other run\n")
            .expect("it can be written");
        root
    }

    #[test]
    fn the_unit_of_a_file_is_found() {
        let root = root();
        let find = |path: &str| Unit::find(root.path(), Path::new(path));
        let unit = find("/etc/warrend/warrend.toml").expect("the unit of the package");
        assert_eq!((&*unit.name, unit.user()), ("warrend.service", Some("warrend")));
        assert_eq!(unit.stop_timeout(), Some(Ok(Some(Duration::from_secs(60)))));
        let source = PathBuf::from("/etc/warrend/amqp-password");
        assert_eq!(unit.credentials(), [("amqp-password".to_owned(), source)]);
        let instance = find("/etc/warrend/billing/warrend.toml").expect("an instance of the template");
        assert_eq!(instance.name, "warrend@billing.service");
        let source = PathBuf::from("/etc/warrend/billing/amqp-password");
        assert_eq!(instance.credentials(), [("amqp-password".to_owned(), source)]);
        assert_eq!(find("/srv/warrend.toml"), None);
        assert_eq!(find("/etc/warrend/a/b/warrend.toml"), None);
    }

    #[test]
    fn drop_ins_come_on_top_and_the_first_folder_wins() {
        let root = root();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        };
        write("usr/lib/systemd/system/warrend.service.d/10.conf", "[Service]\nTimeoutStopSec=1h\nUser=a\n");
        write("usr/lib/systemd/system/warrend.service.d/20.conf", "[Service]\nUser=b\n");
        write(
            "etc/systemd/system/warrend.service.d/10.conf",
            "[Unit]\nTimeoutStopSec=9\n[Service]\n# User=x\nUser=c\\\n\n",
        );
        let unit = Unit::find(root.path(), Path::new(DEFAULT_PATH)).expect("it is there");
        assert_eq!((unit.user(), unit.stop_timeout()), (Some("b"), Some(Ok(Some(Duration::from_secs(60))))));
        write("etc/systemd/system/warrend.service", "");
        assert_eq!(Unit::find(root.path(), Path::new(DEFAULT_PATH)), None, "it is masked");
    }

    #[test]
    fn times_are_read_as_systemd_reads_them() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(time_span(text), seconds.map(Duration::from_secs), "{text}");
        };
        check("90", Some(90));
        check("1min 30s", Some(90));
        check("1min30", Some(90));
        check("2 h", Some(7200));
        check("1d", Some(86_400));
        check("5000ms", Some(5));
        check("", None);
        check("soon", None);
        check("5 parsecs", None);
        let most = u64::MAX;
        check(&format!("{most}s"), Some(most));
        check(&format!("{most}s 1s"), None);
        check(&format!("{most}h"), None);
        check(&format!("{most}0s"), None);
    }
}
