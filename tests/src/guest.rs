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

/// A Linux kernel with an initramfs that goes with it.
#[derive(Clone, Debug)]
pub struct Linux {
    /// ELF image with DWARF; stock kernels come without.
    pub vmlinux: Option<PathBuf>,
    pub bzimage: PathBuf,
    pub initramfs: PathBuf,
}

/// The small kernel that `tests/guests/linux` builds, with its sources' DWARF.
///
/// # Panics
/// It has not been built.
pub fn linux() -> Linux {
    let kernel = crate::cache().join("guest/kernel");
    Linux {
        vmlinux: Some(built(kernel.join("vmlinux"))),
        bzimage: built(kernel.join("bzImage")),
        initramfs: built(crate::cache().join("guest/initramfs.gz")),
    }
}

/// Debian's own kernel, whose virtio drivers are modules.
///
/// # Panics
/// It has not been prepared.
pub fn stock_linux() -> Linux {
    Linux {
        vmlinux: None,
        bzimage: built(crate::cache().join("guest/stock/vmlinuz")),
        initramfs: built(crate::cache().join("guest/stock/initramfs.gz")),
    }
}

fn built(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is not built; run `make setup` first",
        path.display()
    );
    path
}
