//! Guests: bare-metal programs and Linux.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The sources of the bare-metal guests.
const BARE_SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/bare");

/// The bare-metal guest `name`, built on first use.
///
/// # Panics
/// It does not build.
pub fn bare(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(build_bare);
    dir.join(format!("{name}.elf"))
}

fn build_bare() -> PathBuf {
    let out = crate::program::own("outboard").with_file_name("guests-bare");
    let output = Command::new("make")
        .args(["-s", "-C", BARE_SOURCES])
        .arg(format!("OUT={}", out.display()))
        .output()
        .unwrap_or_else(|error| panic!("cannot run make: {error}"));
    assert!(
        output.status.success(),
        "the bare-metal guests do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}
