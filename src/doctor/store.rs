//! The store's file and its place, looked at without opening it: a daemon may have it.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfs, access, statvfs};

use super::finding::{Area, Finding, Level};
use crate::config;
use crate::store::{self, Place};

/// Below this a busy daemon has filled the disk before anybody looks.
const LITTLE: u64 = 1 << 30;
/// Below this the next commits may not find room.
const NOTHING: u64 = 64 << 20;
/// The first SQLite whose write-ahead log has no known way to damage the file.
const SOUND: (u32, u32, u32) = (3, 51, 3);
/// What may be done by those who are neither owner nor of the group.
const BY_OTHERS: u32 = 0o007;

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// `store.path`
    pub path: PathBuf,
    /// What its mount says.
    pub place: Place,
    /// The nearest folder above it that exists, and whether that is its own.
    pub folder: Folder,
    /// The file, where it is there.
    pub file: Option<Owned>,
    /// Whether we may write the file.
    pub writable: bool,
    /// Bytes that are free for us.
    pub free: Option<u64>,
    /// User id of this process.
    pub user: u32,
    /// User id that the unit runs the daemon as, where that is known.
    pub daemon: Option<u32>,
}

/// A folder above the store.
#[derive(Debug)]
pub struct Folder {
    /// Where.
    pub path: PathBuf,
    /// Whether the store lies in it; otherwise folders between are missing.
    pub is_own: bool,
    /// Whether we may make files in it.
    pub writable: bool,
    /// Its owner and mode.
    pub owned: Owned,
}

/// Owner and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// User id.
    pub user: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Owned {
    fn of(metadata: &Metadata) -> Self {
        Self { user: metadata.uid(), mode: metadata.permissions().mode() & 0o7777 }
    }
}

/// Looks. `daemon`: the user id of the unit's user.
pub fn look(config: &config::Store, daemon: Option<u32>) -> Seen {
    let path = config.path.clone();
    let own = path.parent().unwrap_or(Path::new("/"));
    let found = own.ancestors().find_map(|folder| fs::metadata(folder).ok().map(|metadata| (folder, metadata)));
    let (folder, owned) =
        found.map_or((Path::new("/"), Owned { user: 0, mode: 0 }), |(folder, it)| (folder, Owned::of(&it)));
    let writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    let free = statvfs(folder).ok().map(|of: StatVfs| of.f_bavail.saturating_mul(of.f_frsize));
    Seen {
        place: Place::of(&path),
        file: fs::metadata(&path).ok().map(|metadata| Owned::of(&metadata)),
        writable: writable(&path),
        free,
        user: rustix::process::geteuid().as_raw(),
        daemon,
        folder: Folder { path: folder.to_owned(), is_own: folder == own, writable: writable(folder), owned },
        path,
    }
}

fn finding(level: Level, code: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(Area::Store, level, code, text)
}

/// Judges what was seen.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![judge_place(seen)];
    findings.extend(judge_room(seen));
    findings.extend(judge_access(seen));
    findings.push(judge_sqlite(store::sqlite_version()));
    findings
}

fn judge_place(seen: &Seen) -> Finding {
    let path = seen.path.display();
    match (&seen.place, seen.place.objection()) {
        (_, None) | (Place::Local, Some(_)) => {
            finding(Level::Ok, "store-place", format!("{path} is on a file system of this machine"))
        }
        (Place::Doubtful(_), Some(why)) => finding(Level::Warning, "store-place", format!("{path} {why}"))
            .or("in [store]: path = \"/var/lib/warrend/warrend.db\""),
        (Place::Remote(_), Some(why)) => finding(Level::Error, "store-place", format!("{path} {why}"))
            .why("warrend does not start there.")
            .or("in [store]: path = \"/var/lib/warrend/warrend.db\""),
    }
}

fn judge_room(seen: &Seen) -> Option<Finding> {
    let bytes = seen.free?;
    let folder = seen.folder.path.display().to_string();
    let mib = bytes >> 20;
    Some(if bytes < NOTHING {
        finding(Level::Error, "store-room", format!("{mib} MiB are free below {folder}"))
            .why("When the disk is full every job pauses until there is room again.")
            .run(&["df", "-h", &folder])
            .or("make room, or let keys go sooner: store.retention")
    } else if bytes < LITTLE {
        finding(Level::Warning, "store-room", format!("{mib} MiB are free below {folder}"))
            .why("When the disk is full every job pauses until there is room again. A key takes some 50 bytes as long as retention lasts.")
            .run(&["df", "-h", &folder])
            .or("make room, or let keys go sooner: store.retention")
    } else {
        finding(
            Level::Ok,
            "store-room",
            format!("{:.1} GiB are free below {folder}", bytes as f64 / f64::from(1 << 30)),
        )
    })
}

fn judge_access(seen: &Seen) -> Vec<Finding> {
    let (path, folder) = (seen.path.display().to_string(), seen.folder.path.display().to_string());
    let mut findings = Vec::new();
    let runs_as = seen.daemon.unwrap_or(seen.user);
    let Some(file) = seen.file else {
        let own = seen.folder.is_own;
        let usable = if runs_as == seen.user { seen.folder.writable } else { seen.folder.owned.user == runs_as };
        if !usable && runs_as != 0 {
            let text = format!("the user of warrend cannot make {path}: {folder} is not its own");
            let told = finding(Level::Error, "store-access", text).why("warrend does not start without its store.");
            let parent = seen.path.parent().unwrap_or(Path::new("/")).display().to_string();
            let user = runs_as.to_string();
            findings.push(
                told.run(&["install", "-d", "-m", "0750", "-o", &user, &parent])
                    .or("StateDirectory= of the unit does that too"),
            );
        } else {
            let what = if own { "it is made" } else { "its folder and it are made" };
            findings.push(finding(
                Level::Ok,
                "store-access",
                format!("there is no store yet: {what} when warrend starts"),
            ));
        }
        return findings;
    };
    let unusable = if runs_as == seen.user { !(seen.writable && seen.folder.writable) } else { file.user != runs_as };
    if unusable && runs_as != 0 {
        let text = format!("{path} belongs to user {}, and warrend runs as user {runs_as}", file.user);
        let told = finding(Level::Error, "store-access", text)
            .why("It cannot be written then. A `warrend run` by hand, as another user, leaves it so.");
        findings.push(told.run(&["chown", "-R", &format!("{runs_as}:"), &folder]));
    }
    for (what, owned, code) in [(&path, file, "store-mode"), (&folder, seen.folder.owned, "store-folder-mode")] {
        let writable = owned.mode & 0o002 != 0 && owned.mode & 0o1000 == 0;
        // Others reach the file only by way of its folder.
        let readable = code == "store-mode" && owned.mode & BY_OTHERS != 0 && seen.folder.owned.mode & 0o001 != 0;
        if writable || readable {
            let may = if writable { "change" } else { "read" };
            let told = finding(
                Level::Warning,
                code,
                format!("every user of this machine can {may} {what} (mode {:04o})", owned.mode),
            );
            let told = told.why("It holds message keys, error texts and who paused what; a changed one lets messages run twice or not at all.");
            findings.push(told.run(&["chmod", "o=", what]));
        }
    }
    if findings.is_empty() {
        findings.push(finding(Level::Ok, "store-access", format!("{path} is warrend's own (mode {:04o})", file.mode)));
    }
    findings
}

fn judge_sqlite(version: &str) -> Finding {
    let mut parts = version.split('.').filter_map(|part| part.parse::<u32>().ok());
    let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if number < SOUND {
        finding(Level::Error, "sqlite", format!("this warrend was built with SQLite {version}"))
            .why("Before 3.51.3 its write-ahead log can damage the file.")
            .or("build it with the SQLite that it brings: `cargo build --locked`")
    } else {
        finding(Level::Ok, "sqlite", format!("SQLite {version}, built in"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of the user 7, who runs everything.
    fn well() -> Seen {
        Seen {
            path: "/s/w.db".into(),
            place: Place::Local,
            folder: Folder { path: "/s".into(), is_own: true, writable: true, owned: Owned { user: 7, mode: 0o750 } },
            file: Some(Owned { user: 7, mode: 0o640 }),
            writable: true,
            free: Some(10 << 30),
            user: 7,
            daemon: None,
        }
    }

    fn troubles(seen: &Seen) -> Vec<(&'static str, Level)> {
        judge(seen).iter().filter(|it| it.level > Level::Ok).map(|it| (it.code, it.level)).collect()
    }

    #[test]
    fn a_store_that_is_well_has_only_good_lines() {
        assert_eq!(troubles(&well()), []);
        assert_eq!(judge(&well()).len(), 4);
        let root = Seen { user: 0, daemon: Some(7), ..well() };
        assert_eq!(troubles(&root), []);
        let none = Seen { file: None, writable: false, ..well() };
        assert_eq!(troubles(&none), []);
    }

    #[test]
    fn each_trouble_is_told_once() {
        let check = |seen: Seen, expect: (&'static str, Level)| assert_eq!(troubles(&seen), [expect]);
        check(Seen { free: Some(LITTLE - 1), ..well() }, ("store-room", Level::Warning));
        check(Seen { free: Some(NOTHING - 1), ..well() }, ("store-room", Level::Error));
        check(Seen { place: Place::Remote("nfs".to_owned()), ..well() }, ("store-place", Level::Error));
        check(Seen { place: Place::Doubtful("9p".to_owned()), ..well() }, ("store-place", Level::Warning));
        check(Seen { writable: false, ..well() }, ("store-access", Level::Error));
        // Somebody ran it by hand as root.
        check(
            Seen { file: Some(Owned { user: 0, mode: 0o640 }), user: 0, daemon: Some(7), ..well() },
            ("store-access", Level::Error),
        );
        let open = |mode| Folder { owned: Owned { user: 7, mode }, ..well().folder };
        check(Seen { folder: open(0o777), ..well() }, ("store-folder-mode", Level::Warning));
        let file = Some(Owned { user: 7, mode: 0o644 });
        check(Seen { folder: open(0o755), file, ..well() }, ("store-mode", Level::Warning));
        // The folder keeps them out.
        assert_eq!(troubles(&Seen { file, ..well() }), []);
        let closed = Folder { writable: false, ..well().folder };
        check(Seen { file: None, folder: closed, ..well() }, ("store-access", Level::Error));
    }

    #[test]
    fn the_library_that_is_built_in_is_sound() {
        assert_eq!(judge_sqlite(store::sqlite_version()).level, Level::Ok);
        assert_eq!(judge_sqlite("3.40.1").level, Level::Error);
    }
}
