//! A program that is measured, in a directory of its own.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A backend that runs.
pub struct Backend {
    child: Child,
    dir: tempfile::TempDir,
}

impl Backend {
    pub fn start(program: impl AsRef<OsStr>, options: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(options)
            .current_dir(&dir)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Backend { child, dir }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.file("socket")
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Time on a processor since it was started.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may have spaces: utime is field 14 and stime 15, in ticks.
        let fields = stat.rsplit(')').next().unwrap();
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(10 * ticks)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
