//! A clock for the daemon that a test sets: see `clock.c`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::daemon::Daemon;
use super::script;

/// The time of day as one daemon sees it, over all its starts.
pub struct Clock {
    file: File,
    /// Seconds ahead of the system's clock.
    ahead: i64,
}

impl Clock {
    /// Builds what is preloaded with the C compiler that a build of warrend needs anyway, and has every later start of the
    /// daemon use it. Its handlers see the system's clock.
    pub fn of(daemon: &mut Daemon) -> Self {
        let library = daemon.folder().join("clock.so");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(script("clock.c")).output();
        let built = built.expect("there is a C compiler");
        assert!(built.status.success(), "clock.c: {}", String::from_utf8_lossy(&built.stderr));
        let path: PathBuf = daemon.folder().join("clock");
        let file = File::create(&path).expect("the folder is writable");
        let mut clock = Self { file, ahead: 0 };
        clock.set(0);
        daemon.env("LD_PRELOAD", &library.display().to_string());
        daemon.env("WARREND_TEST_CLOCK", &path.display().to_string());
        clock
    }

    /// Sets it to so many seconds ahead of the system's clock.
    pub fn set(&mut self, ahead: i64) {
        self.file.write_all_at(&ahead.to_ne_bytes(), 0).expect("the file is writable");
        self.ahead = ahead;
    }

    /// How far ahead it is.
    pub fn ahead(&self) -> i64 {
        self.ahead
    }
}
