//! `outboard record` between a guest and its backend, and `outboard replay` without a guest.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::backend::Backend;
use crate::{DEADLINE, program};

/// A recorder, which a device connects to in the place of its backend.
pub struct Recorder {
    pub proxy: Backend,
    file: PathBuf,
}

impl Recorder {
    /// Starts it in front of `backend`; its socket and its file are in `dir`.
    pub fn start(dir: &Path, device_type: &str, backend: &Backend) -> Self {
        let (socket, file) = (dir.join("recorded.sock"), dir.join("recording"));
        let mut command = Command::new(program::own("outboard"));
        command.arg("record").args(["--type", device_type]);
        command.arg("--listen").arg(&socket);
        command.arg("--connect").arg(&backend.socket);
        command.arg("--output").arg(&file);
        let proxy = Backend::start("record", &mut command, socket);
        Self { proxy, file }
    }

    /// Ends it, and returns the recording.
    pub fn finish(mut self) -> PathBuf {
        self.proxy.process.signal(libc::SIGINT);
        self.proxy.process.expect_exit(0, DEADLINE);
        self.file
    }
}

/// Runs `outboard replay` with these options to its end.
///
/// # Panics
/// It cannot be started.
pub fn replay(file: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(program::own("outboard"));
    command.arg("replay").arg(file).args(options);
    let output = command.output();
    output.unwrap_or_else(|error| panic!("cannot start outboard replay: {error}"))
}

/// Replays, and returns what was said.
///
/// # Panics
/// The status is another.
pub fn expect_replay(file: &Path, options: &[&str], status: i32) -> String {
    let output = replay(file, options);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

/// Replays, and expects the answers of the recording.
///
/// # Panics
/// There are others.
pub fn expect_equal(file: &Path, options: &[&str]) {
    let text = expect_replay(file, options, 0);
    assert!(text.contains("equal: "), "{text}");
    assert!(text.contains(" answered the same, 0 not"), "{text}");
}
