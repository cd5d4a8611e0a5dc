//! Reasons why no kernel was found.

use std::fmt;
use std::path::PathBuf;

/// The first two numbers of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(super) u32, pub(super) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Why nothing is known of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFound {
    #[error("the guest's kernel is still being looked for; ask again in a moment")]
    Looking,
    #[error(
        "no Linux kernel is mapped yet: the guest is still in its boot loader, or is not Linux"
    )]
    TooEarly,
    #[error(
        "the guest's page tables are those of a 32-bit kernel, or of its boot loader; \
         of Linux only x86-64 kernels are known here"
    )]
    Bits32,
    #[error(
        "what is mapped where Linux has its kernel carries no symbol table (CONFIG_KALLSYMS) \
         that makes sense; give its vmlinux with --symbols"
    )]
    NoSymbols,
    #[error(
        "{} is not the kernel that runs: it says {expected:?}, which is not in the guest's memory",
        path.display()
    )]
    Mismatch { path: PathBuf, expected: String },
}

impl NotFound {
    /// Whether the guest may be further at its next stop.
    pub fn may_change(&self) -> bool {
        matches!(self, NotFound::TooEarly | NotFound::Bits32)
    }
}
