//! Where the store lies: on what kind of file system, and whether its files are still those that were opened.

use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Gives a file that root made to whom the store belongs: the daemon, which has a user of its own, could not use it
/// otherwise. A file system that knows no owners says so in vain.
pub(super) fn belong_to_its_owner(file: &File, store: &Path) {
    if rustix::process::geteuid().is_root()
        && let Ok(of_store) = fs::metadata(store)
    {
        let _ = fchown(file, Some(of_store.uid()), Some(of_store.gid()));
    }
}

/// What is known of the file system below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Of this machine, as far as its name tells.
    Local,
    /// It may be shared with other machines; its type.
    Doubtful(String),
    /// It is shared with other machines; its type.
    Remote(String),
}

/// File systems that several machines see. The write-ahead log needs memory that all its users share, which they cannot.
const REMOTE: [&str; 17] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "afs",
    "coda",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "panfs",
    "pvfs2",
    "glusterfs",
    "acfs",
    "davfs",
];
/// The same below FUSE, where the type names the program.
const REMOTE_FUSE: [&str; 12] = [
    "sshfs",
    "glusterfs",
    "ceph",
    "ceph-fuse",
    "s3fs",
    "rclone",
    "gcsfuse",
    "juicefs",
    "mfs",
    "moosefs",
    "davfs",
    "curlftpfs",
];
/// A folder of the host, in a guest or a container; or a program of which nobody knows where it keeps the bytes.
const DOUBTFUL: [&str; 3] = ["9p", "virtiofs", "fuse"];

impl Place {
    /// Of a store, which need not exist yet. Without /proc nothing is known.
    pub fn of(store: &Path) -> Self {
        let Ok(mounts) = fs::read("/proc/self/mountinfo") else {
            return Self::Local;
        };
        // The nearest part that is there, without symbolic links: mounts are named so.
        let found = store.ancestors().find_map(|folder| {
            fs::canonicalize(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).ok()
        });
        found.map_or(Self::Local, |folder| Self::among(&mounts, &folder))
    }

    /// The place of a folder, by the lines of `/proc/self/mountinfo` (proc(5)).
    fn among(mounts: &[u8], folder: &Path) -> Self {
        let mounts = mounts.split(|byte| *byte == b'\n').filter_map(mount);
        let below = mounts.filter(|(point, _)| folder.starts_with(point));
        // Of several at one point the last one covers the others.
        let kind = below.max_by_key(|(point, _)| point.as_os_str().len()).map(|(_, kind)| kind);
        kind.map_or(Self::Local, |kind| Self::judge(&kind))
    }

    fn judge(kind: &str) -> Self {
        let program = kind.strip_prefix("fuse.");
        if REMOTE.contains(&kind) || program.is_some_and(|program| REMOTE_FUSE.contains(&program)) {
            return Self::Remote(kind.to_owned());
        }
        if DOUBTFUL.contains(&kind) { Self::Doubtful(kind.to_owned()) } else { Self::Local }
    }

    /// What is wrong with such a place, to go after the path of the store.
    pub fn objection(&self) -> Option<String> {
        match self {
            Self::Local => None,
            Self::Doubtful(kind) => Some(format!(
                "lies on a file system that may be shared with other machines ({kind}): \
                 if it is, put store.path on a local disk"
            )),
            Self::Remote(kind) => Some(format!(
                "lies on a network file system ({kind}), where a power cut or a second host can destroy it: \
                 put store.path on a local disk"
            )),
        }
    }
}

/// Mount point and type of one line.
fn mount(line: &[u8]) -> Option<(PathBuf, String)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = unescape(fields.nth(4)?);
    // Optional fields end with a dash; the type follows.
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    Some((PathBuf::from(std::ffi::OsString::from_vec(point)), kind))
}

/// Blanks and backslashes stand there as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// The files of an open store. What is written to one that was deleted or replaced is lost to everybody else.
#[derive(Debug)]
pub struct Files(Vec<(PathBuf, Id)>);

/// Device and inode.
type Id = (u64, u64);

impl Files {
    /// The store, its log and its lock as they are now. Files that are missing are not looked after.
    pub fn of(store: &Path, lock: &Path) -> Self {
        let mut log = store.as_os_str().to_owned();
        log.push("-wal");
        let paths = [store.to_owned(), PathBuf::from(log), lock.to_owned()];
        Self(paths.into_iter().filter_map(|path| id(&path).map(|id| (path, id))).collect())
    }

    /// Whether all of them are in their places. Three system calls.
    pub fn check(&self) -> Result<(), StoreError> {
        for (path, opened) in &self.0 {
            let why = match id(path) {
                Some(found) if found == *opened => continue,
                Some(_) => "was replaced while warrend used it",
                None => "was deleted or moved while warrend used it",
            };
            let why = format!("{why}: nothing is acknowledged any more; put the file back, then start again");
            return Err(StoreError::Unfit { path: path.clone(), why });
        }
        Ok(())
    }
}

fn id(path: &Path) -> Option<Id> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:5 / /proc rw,nosuid shared:2 - proc proc rw
30 22 0:40 / /srv rw shared:9 master:2 - nfs4 filer:/srv rw,vers=4.2
31 30 254:9 / /srv/local\\040disk rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/a rw - fuse.sshfs me@there: rw
33 22 0:42 / /mnt/b rw - fuse.mergerfs pool rw
34 22 0:43 / /mnt/c rw - 9p host rw
35 22 0:44 / /over rw - ext4 /dev/sdc1 rw
36 22 0:45 / /over rw - cifs //filer/share rw
";

    #[track_caller]
    fn check(folder: &str, expect: &Place) {
        assert_eq!(&Place::among(MOUNTS.as_bytes(), Path::new(folder)), expect, "{folder}");
    }

    #[test]
    fn the_longest_mount_point_decides_and_of_equals_the_last() {
        let remote = |kind: &str| Place::Remote(kind.to_owned());
        check("/", &Place::Local);
        check("/var/lib/warrend", &Place::Local);
        check("/srv/warrend", &remote("nfs4"));
        check("/srvs/warrend", &Place::Local);
        check("/srv/local disk/x", &Place::Local);
        check("/mnt/a", &remote("fuse.sshfs"));
        check("/mnt/b/x", &Place::Local);
        check("/mnt/c/x", &Place::Doubtful("9p".to_owned()));
        check("/over", &remote("cifs"));
    }

    #[test]
    fn what_is_no_list_of_mounts_objects_to_nothing() {
        for text in ["", "\n\n", "a b c", "1 2 3 4 /\\0x9 - nfs", "22 1 254:1 / / rw - "] {
            let place = Place::among(text.as_bytes(), Path::new("/a"));
            assert_eq!(place, Place::Local, "{text}");
        }
        assert_eq!(Place::of(Path::new("/proc/none/of/this")), Place::Local);
    }

    #[test]
    fn files_that_change_their_places_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let [store, log, lock] = ["s", "s-wal", "s.lock"].map(|name| folder.path().join(name));
        for path in [&store, &log, &lock] {
            fs::write(path, "").unwrap();
        }
        let files = Files::of(&store, &lock);
        files.check().unwrap();
        for path in [&store, &log, &lock] {
            let aside = folder.path().join("aside");
            fs::rename(path, &aside).unwrap();
            let gone = files.check().unwrap_err().to_string();
            assert!(gone.contains("was deleted or moved") && gone.contains(path.to_str().unwrap()), "{gone}");
            fs::write(path, "").unwrap();
            assert!(files.check().unwrap_err().to_string().contains("was replaced"));
            fs::rename(&aside, path).unwrap();
            files.check().unwrap();
        }
    }
}
