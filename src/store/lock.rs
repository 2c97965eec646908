//! The lock beside the store: one instance at a time, and a mark that says whether the last one stopped in good order.
//!
//! A file of its own, because SQLite's locks on the store do not last. It holds the process id of the instance that has the
//! store; a stop in good order empties it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::place::belong_to_its_owner;
use super::{PRIVATE, StoreError};

/// How long the lock of a daemon that is dead may outlive it.
const LINGER: Duration = Duration::from_secs(2);

/// Held for the life of the process; the kernel releases it, also after `kill -9`.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// The last instance emptied it.
    was_clean: bool,
}

impl Lock {
    /// Takes the lock of a store.
    pub fn take(store: &Path) -> Result<Self, StoreError> {
        let path = beside(store);
        let failed = |error: io::Error| StoreError::system(format!("lock {}", path.display()), &error);
        let existed = path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)
            .map_err(failed)?;
        if !existed {
            belong_to_its_owner(&file, store);
        }
        wait_for(&mut file, &path)?;
        let was_clean = existed && content(&mut file).map_err(failed)?.is_empty();
        let mark = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        // Durable before anything is written to the store: a mark that a power cut undoes would look like a good end.
        mark.and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Self { file, path, was_clean })
    }

    /// Whether the last instance stopped in good order. False also of a copy that comes without a lock file.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// The file, for those who look whether it is still in its place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A stop in good order. The lock itself ends with the process, or with this value.
    pub fn mark_clean(&self) -> Result<(), StoreError> {
        let failed = |error| StoreError::system(format!("mark {} as stopped", self.path.display()), &error);
        self.file.set_len(0).map_err(failed)
    }
}

impl Drop for Lock {
    /// Closing is not enough: a process that another thread is just starting has a copy of the descriptor until it runs
    /// its program, and the lock lasts as long as any copy.
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            log::warn!("cannot unlock {}: {error}", self.path.display());
        }
    }
}

/// The lock file of a store.
fn beside(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

fn wait_for(file: &mut File, path: &Path) -> Result<(), StoreError> {
    let until = Instant::now() + LINGER;
    while let Err(error) = flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK {
            return Err(StoreError::system(format!("lock {}", path.display()), &error.into()));
        }
        let holder = holder(file);
        // A process that a crashed daemon was just starting has its descriptors, and with them the lock, a moment longer.
        if holder.is_none_or(|pid| test_kill_process(pid) != Err(Errno::SRCH)) || Instant::now() >= until {
            let pid = holder.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            return Err(StoreError::Locked { path: path.to_owned(), pid });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Who holds the lock, by what stands in its file. The other instance may not have written it yet.
fn holder(file: &mut File) -> Option<Pid> {
    content(file).ok()?.trim().parse().ok().and_then(Pid::from_raw)
}

fn content(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, chown};

    use super::*;

    #[test]
    fn a_second_instance_is_refused_and_told_the_pid() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("warrend.db");
        let first = Lock::take(&store).unwrap();
        let refused = Lock::take(&store).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(&store).unwrap();
    }

    #[test]
    fn a_lock_ends_with_its_value_whoever_has_a_copy_of_the_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("warrend.db");
        let first = Lock::take(&store).unwrap();
        let _of_a_process_that_is_being_started = first.file.try_clone().unwrap();
        drop(first);
        Lock::take(&store).unwrap();
    }

    #[test]
    fn a_lock_that_outlives_its_daemon_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("warrend.db");
        // No process of Linux has so large an id.
        fs::write(beside(&store), i32::MAX.to_string()).unwrap();
        let lingering = File::open(beside(&store)).unwrap();
        flock(&lingering, FlockOperation::NonBlockingLockExclusive).unwrap();
        let last_process = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(lingering);
        });
        Lock::take(&store).unwrap();
        last_process.join().unwrap();
    }

    #[test]
    fn what_root_locks_the_owner_of_the_store_can_lock_after_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("warrend.db");
        fs::write(&store, "").unwrap();
        chown(&store, Some(65_534), Some(65_534)).unwrap();
        drop(Lock::take(&store).unwrap());
        let lock = fs::metadata(beside(&store)).unwrap();
        assert_eq!((lock.uid(), lock.gid()), (65_534, 65_534));
    }

    #[test]
    fn only_an_end_in_good_order_is_clean() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("warrend.db");
        assert!(!Lock::take(&store).unwrap().was_clean(), "nobody knows where the file comes from");
        let second = Lock::take(&store).unwrap();
        assert!(!second.was_clean(), "the first just ended");
        second.mark_clean().unwrap();
        drop(second);
        assert!(Lock::take(&store).unwrap().was_clean());
        assert!(!Lock::take(&store).unwrap().was_clean(), "it holds for one start");
    }
}
