//! `warrend store backup`: a copy of the store as of one moment, also while it is in use.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::place::belong_to_its_owner;
use super::{StoreError, look};

/// Writes a copy of `store` to `target`, and returns its size in bytes. It is whole and on the disk before it gets its name;
/// what has that name already is replaced only with `force`.
pub fn backup(store: &Path, target: &Path, force: bool) -> Result<u64, StoreError> {
    if is_same(store, target) {
        let why = "is the store itself: name another file for the copy".to_owned();
        return Err(StoreError::Unfit { path: target.to_owned(), why });
    }
    if !force && target.symlink_metadata().is_ok() {
        return Err(exists(target));
    }
    let connection = look::open(store)?;
    let partial = partial(target);
    // Left behind by a process that had the same number and was killed.
    let _ = fs::remove_file(&partial);
    make(&partial)?;
    let copied = copy(&connection, store, &partial).and_then(|bytes| {
        publish(&partial, target, force)?;
        Ok(bytes)
    });
    if copied.is_err() {
        // The error is told; the rest of a copy is of no use to anybody.
        let _ = fs::remove_file(&partial);
    }
    let doing = || format!("be copied to {}", target.display());
    copied.map_err(|error| error.where_full_is_final(doing, "there is no room for a copy"))
}

fn exists(target: &Path) -> StoreError {
    StoreError::failed(format!("be copied to {}", target.display()), "that file exists; --force replaces it")
}

/// By device and inode, so that links count. The files beside the store have its name and more.
fn is_same(store: &Path, target: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let beside = |suffix: &str| {
        let mut path = store.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    let own = ["", "-wal", "-shm", ".lock"].map(beside);
    own.iter().any(|own| own == target || id(own).is_some_and(|id_of| Some(id_of) == id(target)))
}

/// The copy while it is made: beside its place, so that it can be renamed.
fn partial(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}.partial", std::process::id()))
}

/// Makes the file that SQLite then fills. Nobody else may read it meanwhile: it holds the same keys and error texts.
fn make(partial: &Path) -> Result<(), StoreError> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(partial);
    made.map(drop).map_err(|error| StoreError::system(format!("be copied to {}", partial.display()), &error))
}

fn copy(connection: &rusqlite::Connection, store: &Path, partial: &Path) -> Result<u64, StoreError> {
    let doing = || format!("be copied to {}", partial.display());
    // One read transaction over all of it: the daemon goes on writing, and nothing of that is in the copy.
    let into = partial.to_str().ok_or_else(|| StoreError::failed(doing(), "the name of the file is not UTF-8"))?;
    connection.execute("VACUUM INTO ?1", [into]).map_err(|error| StoreError::sqlite(&doing(), &error))?;
    let finish = || {
        let file = File::open(partial)?;
        belong_to_its_owner(&file, store);
        file.set_permissions(fs::metadata(store)?.permissions())?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    finish().map_err(|error: io::Error| StoreError::system(doing(), &error))
}

/// Gives the copy its name, durably.
fn publish(partial: &Path, target: &Path, force: bool) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::system(format!("be copied to {}", target.display()), &error);
    let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    match renameat_with(CWD, partial, CWD, target, flags) {
        Err(Errno::EXIST) => return Err(exists(target)),
        // Not every file system knows the flag; it was looked for the file a moment ago.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(partial, target).map_err(failed)?,
        renamed => renamed.map_err(|error| failed(error.into()))?,
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
