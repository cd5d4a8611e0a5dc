//! Expectations that the hosts at hand cannot meet, kept from where they arise to
//! the end of the whole run: the test harness prints nothing of a test that passes.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// Beside the tests that note and list.
fn path() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("no own path: {error}"));
    test.with_file_name("unmet-expectations.txt")
}

/// Notes that `what` could not be shown on this host.
///
/// # Panics
/// The note cannot be written: it would be lost.
pub fn note(what: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path());
    // In one piece: tests run side by side.
    let written = file.and_then(|mut file| file.write_all(format!("{what}\n").as_bytes()));
    written.unwrap_or_else(|error| panic!("cannot note {}: {error}", path().display()));
}

/// All that was noted since the last time, each once.
pub fn take() -> BTreeSet<String> {
    let noted = fs::read_to_string(path()).unwrap_or_default();
    let _ = fs::remove_file(path());
    noted.lines().map(str::to_owned).collect()
}
