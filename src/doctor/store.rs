//! The store's file and its place, looked at without opening it: a daemon may have it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfs, access, statvfs};

use super::access::{MAKE, Owned, Runner, USE};
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

/// The ends of the store's own name and of those that SQLite and we make beside it.
const BESIDE: [&str; 4] = ["", "-wal", "-shm", ".lock"];

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// `store.path`
    pub path: PathBuf,
    /// What its mount says.
    pub place: Place,
    /// The nearest folder above it that exists, and whether that is its own.
    pub folder: Folder,
    /// The store and the files beside it, those of them that are there.
    pub files: Vec<FileSeen>,
    /// Bytes that are free for us.
    pub free: Option<u64>,
    /// This process.
    pub here: Runner,
    /// Who the unit runs the daemon as, where that is known.
    pub daemon: Option<Runner>,
}

impl Seen {
    /// The store itself, where it is there.
    fn file(&self) -> Option<&FileSeen> {
        self.files.iter().find(|file| file.path == self.path)
    }

    /// Who runs the daemon.
    fn runner(&self) -> &Runner {
        self.daemon.as_ref().unwrap_or(&self.here)
    }

    /// What he may do. Of ourselves the kernel has told, which knows of ACLs and of what is mounted read-only.
    fn may(&self, rights: u32, owned: Owned, asked: bool) -> bool {
        match self.runner() {
            Runner { user: 0, .. } => true,
            runner if runner.user == self.here.user => asked,
            runner => runner.may(rights, owned),
        }
    }
}

/// A file of the store.
#[derive(Debug)]
pub struct FileSeen {
    /// Where.
    pub path: PathBuf,
    /// Its owner and mode.
    pub owned: Owned,
    /// Whether we may read and write it.
    pub usable: bool,
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

/// Looks. `daemon`: the unit's user.
pub fn look(config: &config::Store, daemon: Option<Runner>) -> Seen {
    let path = config.path.clone();
    let own = path.parent().unwrap_or(Path::new("/"));
    let found = own.ancestors().find_map(|folder| fs::metadata(folder).ok().map(|metadata| (folder, metadata)));
    let nothing = Owned { user: 0, group: 0, mode: 0 };
    let (folder, owned) = found.map_or((Path::new("/"), nothing), |(folder, metadata)| (folder, Owned::of(&metadata)));
    let may = |path: &Path, rights: Access| access(path, rights).is_ok();
    let free = statvfs(folder).ok().map(|of: StatVfs| of.f_bavail.saturating_mul(of.f_frsize));
    let files = BESIDE.iter().filter_map(|end| {
        let mut name = path.clone().into_os_string();
        name.push(end);
        let path = PathBuf::from(name);
        let metadata = fs::metadata(&path).ok()?;
        Some(FileSeen { usable: may(&path, Access::READ_OK | Access::WRITE_OK), owned: Owned::of(&metadata), path })
    });
    Seen {
        place: Place::of(&path),
        files: files.collect(),
        free,
        here: Runner::here(),
        daemon,
        folder: Folder {
            path: folder.to_owned(),
            is_own: folder == own,
            writable: may(folder, Access::WRITE_OK | Access::EXEC_OK),
            owned,
        },
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
    let user = seen.runner().user;
    let mut findings: Vec<Finding> = judge_files(seen).into_iter().collect();
    if !seen.may(MAKE, seen.folder.owned, seen.folder.writable) {
        let text = format!("user {user}, who runs warrend, may not make files in {folder}");
        let told = finding(Level::Error, "store-access", text)
            .why("The store and what SQLite has beside it are made there. warrend does not start without it.");
        findings.push(if seen.folder.is_own {
            // Of a folder that is there nobody knows here who else needs it.
            told.or(own_folder(&seen.path))
        } else {
            let parent = seen.path.parent().unwrap_or(Path::new("/")).display().to_string();
            told.run(&["install", "-d", "-m", "0750", "-o", &user.to_string(), &parent])
                .or("StateDirectory= of the unit does that too")
        });
    }
    let Some(FileSeen { owned: file, .. }) = seen.file() else {
        if findings.is_empty() {
            let what = if seen.folder.is_own { "it is made" } else { "its folder and it are made" };
            let text = format!("there is no store yet: {what} when warrend starts");
            findings.push(finding(Level::Ok, "store-access", text));
        }
        return findings;
    };
    for (what, owned, code) in [(&path, *file, "store-mode"), (&folder, seen.folder.owned, "store-folder-mode")] {
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
            findings.push(match code {
                "store-mode" => told.run(&["chmod", "o=", what]),
                // Others may have to read what else lies there.
                _ => told.run(&["chmod", "o-w", what]).or(own_folder(&seen.path)),
            });
        }
    }
    if findings.is_empty() {
        findings.push(finding(Level::Ok, "store-access", format!("{path} is warrend's own (mode {:04o})", file.mode)));
    }
    findings
}

/// The files that are there, and that the daemon cannot use.
fn judge_files(seen: &Seen) -> Option<Finding> {
    let runner = seen.runner();
    let closed: Vec<_> = seen.files.iter().filter(|file| !seen.may(USE, file.owned, file.usable)).collect();
    let FileSeen { path, owned: Owned { user, mode, .. }, .. } = closed.first()?;
    let text = format!(
        "user {}, who runs warrend, may not write {}: it is user {user}'s, mode {mode:04o}",
        runner.user,
        path.display()
    );
    let told = finding(Level::Error, "store-access", text)
        .why("warrend does not start then. A `warrend run` by hand, as another user, leaves it so.");
    let names: Vec<String> = closed.iter().map(|file| file.path.display().to_string()).collect();
    let names = || names.iter().map(String::as_str);
    let owner = format!("{}:", runner.user);
    Some(if closed.iter().any(|file| file.owned.user != runner.user) {
        told.run(&["chown", &owner].into_iter().chain(names()).collect::<Vec<_>>())
    } else if closed.iter().all(|file| runner.may(USE, file.owned)) {
        told.or("its file system may be mounted read-only: findmnt -T tells")
    } else {
        told.run(&["chmod", "u+rw"].into_iter().chain(names()).collect::<Vec<_>>())
    })
}

/// A place that belongs to nobody else. Only names that are ours: systemd gives all that lies in such a folder to the user.
fn own_folder(store: &Path) -> String {
    let folder = store.parent().unwrap_or(Path::new("/"));
    match folder.strip_prefix("/var/lib") {
        Ok(name) if name.starts_with("warrend") => {
            format!("StateDirectory={} in the unit gives {} to its user", name.display(), folder.display())
        }
        Ok(_) | Err(_) => "use a folder of its own: in [store]: path = \"/var/lib/warrend/warrend.db\", which \
                           StateDirectory=warrend in the unit makes; move a store that is there, and what lies beside it \
                           (-wal, -shm, .lock), while warrend is stopped"
            .to_owned(),
    }
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
    use crate::doctor::finding::Mend;

    fn user(user: u32, groups: &[u32]) -> Runner {
        Runner { user, groups: groups.to_vec() }
    }

    fn owned(user: u32, mode: u32) -> Owned {
        Owned { user, group: 70, mode }
    }

    fn file(owned: Owned) -> Vec<FileSeen> {
        vec![FileSeen { path: "/s/w.db".into(), owned, usable: true }]
    }

    /// A store of the user 7, who runs everything.
    fn well() -> Seen {
        Seen {
            path: "/s/w.db".into(),
            place: Place::Local,
            folder: Folder { path: "/s".into(), is_own: true, writable: true, owned: owned(7, 0o750) },
            files: file(owned(7, 0o640)),
            free: Some(10 << 30),
            here: user(7, &[70]),
            daemon: None,
        }
    }

    fn troubles(seen: &Seen) -> Vec<(&'static str, Level)> {
        judge(seen).iter().filter(|it| it.level > Level::Ok).map(|it| (it.code, it.level)).collect()
    }

    /// Commands and words of all findings.
    fn mends(seen: &Seen) -> Vec<String> {
        let mends = judge(seen).into_iter().flat_map(|it| it.mends);
        let text = mends.map(|mend| match mend {
            Mend::Command(text) | Mend::Words(text) => text,
        });
        text.collect()
    }

    #[test]
    fn a_store_that_is_well_has_only_good_lines() {
        assert_eq!(troubles(&well()), []);
        assert_eq!(judge(&well()).len(), 4);
        let root = Seen { here: user(0, &[0]), daemon: Some(user(7, &[])), ..well() };
        assert_eq!(troubles(&root), []);
        let none = Seen { files: Vec::new(), ..well() };
        assert_eq!(troubles(&none), []);
    }

    #[test]
    fn each_trouble_is_told_once() {
        let check = |seen: Seen, expect: (&'static str, Level)| assert_eq!(troubles(&seen), [expect]);
        check(Seen { free: Some(LITTLE - 1), ..well() }, ("store-room", Level::Warning));
        check(Seen { free: Some(NOTHING - 1), ..well() }, ("store-room", Level::Error));
        check(Seen { place: Place::Remote("nfs".to_owned()), ..well() }, ("store-place", Level::Error));
        check(Seen { place: Place::Doubtful("9p".to_owned()), ..well() }, ("store-place", Level::Warning));
        let open = |mode| Folder { owned: owned(7, mode), ..well().folder };
        check(Seen { folder: open(0o777), ..well() }, ("store-folder-mode", Level::Warning));
        let files = || file(owned(7, 0o644));
        check(Seen { folder: open(0o755), files: files(), ..well() }, ("store-mode", Level::Warning));
        // The folder keeps them out.
        assert_eq!(troubles(&Seen { files: files(), ..well() }), []);
        let closed = Folder { writable: false, ..well().folder };
        check(Seen { files: Vec::new(), folder: closed, ..well() }, ("store-access", Level::Error));
        let mut closed = well();
        closed.files[0].usable = false;
        check(closed, ("store-access", Level::Error));
    }

    /// A look by root at what another user is to run.
    fn by_root(daemon: Runner, seen: Seen) -> Seen {
        Seen { here: user(0, &[0]), daemon: Some(daemon), ..seen }
    }

    #[test]
    fn only_the_files_of_the_store_change_their_owner() {
        let beside = |end: &str, owned| FileSeen { path: format!("/s/w.db{end}").into(), owned, usable: true };
        let files =
            vec![beside("", owned(0, 0o640)), beside("-wal", owned(0, 0o640)), beside(".lock", owned(7, 0o640))];
        let seen = by_root(user(7, &[]), Seen { files, ..well() });
        assert_eq!(troubles(&seen), [("store-access", Level::Error)]);
        assert_eq!(mends(&seen), ["chown 7: /s/w.db /s/w.db-wal"]);
        // His own, and he may not even read it.
        let seen = by_root(user(7, &[]), Seen { files: file(owned(7, 0o440)), ..well() });
        assert_eq!(mends(&seen), ["chmod u+rw /s/w.db"]);
    }

    #[test]
    fn a_folder_of_others_is_left_to_them() {
        let folder = |path: &str, is_own| Folder { path: path.into(), is_own, writable: true, owned: owned(0, 0o755) };
        let seen = |path: &str, folder: Folder, files| {
            by_root(user(997, &[]), Seen { path: path.into(), folder, files, ..well() })
        };
        let store = || vec![FileSeen { path: "/var/lib/warrend.db".into(), owned: owned(997, 0o640), usable: true }];
        for files in [Vec::new(), store()] {
            let seen = seen("/var/lib/warrend.db", folder("/var/lib", true), files);
            assert_eq!(troubles(&seen), [("store-access", Level::Error)]);
            let [only] = &mends(&seen)[..] else { panic!("{:?}", mends(&seen)) };
            assert!(only.starts_with("use a folder of its own"), "{only}");
        }
        let named = seen("/var/lib/warrend/billing/w.db", folder("/var/lib/warrend/billing", true), Vec::new());
        assert_eq!(
            mends(&named),
            ["StateDirectory=warrend/billing in the unit gives /var/lib/warrend/billing to its user"]
        );
        let other = seen("/var/lib/postgresql/w.db", folder("/var/lib/postgresql", true), Vec::new());
        assert!(mends(&other)[0].starts_with("use a folder of its own"));
        // One that is not there is nobody else's.
        let missing = seen("/var/lib/warrend/w.db", folder("/var/lib", false), Vec::new());
        assert_eq!(mends(&missing)[0], "install -d -m 0750 -o 997 /var/lib/warrend");
    }

    #[test]
    fn a_group_may_be_enough() {
        let shared = |folder: u32, files: u32| Seen {
            folder: Folder { owned: owned(0, folder), ..well().folder },
            files: file(owned(0, files)),
            ..well()
        };
        assert_eq!(troubles(&by_root(user(7, &[5, 70]), shared(0o2770, 0o660))), []);
        let error = [("store-access", Level::Error)];
        assert_eq!(troubles(&by_root(user(7, &[5]), shared(0o2770, 0o660))), [error[0], error[0]]);
        assert_eq!(troubles(&by_root(user(7, &[70]), shared(0o2770, 0o640))), error);
        assert_eq!(troubles(&by_root(user(7, &[70]), shared(0o2750, 0o660))), error);
        let none = Seen { files: Vec::new(), ..shared(0o2770, 0) };
        assert_eq!(troubles(&by_root(user(7, &[70]), none)), []);
    }

    #[test]
    fn the_library_that_is_built_in_is_sound() {
        assert_eq!(judge_sqlite(store::sqlite_version()).level, Level::Ok);
        assert_eq!(judge_sqlite("3.40.1").level, Level::Error);
    }
}
