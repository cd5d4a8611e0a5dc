//! Guests: bare-metal programs and Linux.

use std::path::PathBuf;

/// The bare-metal guest `name` of `tests/guests/bare`.
///
/// # Panics
/// It has not been built.
pub fn bare(name: &str) -> PathBuf {
    built(
        crate::cache()
            .join("guest/bare")
            .join(format!("{name}.elf")),
    )
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
