//! Errors when something cannot be told of a kernel.

use super::not_found::{NotFound, Version};
use super::{btf, lists, memory};

/// Something that was asked for cannot be found in the kernel's memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("the kernel has no symbol {0}; CONFIG_KALLSYMS_ALL or --symbols gives it")]
    NoSymbol(&'static str),
    #[error(
        "the kernel has no type information that makes sense; build it with CONFIG_DEBUG_INFO_BTF"
    )]
    NoTypes,
    #[error(
        "this needs the kernel's type information, which Linux has from 5.2 on; \
         {0} has its symbols only"
    )]
    TooOldForTypes(Version),
    #[error("the kernel's log is of the form from before Linux 5.10, which is not known here")]
    OldLog,
    #[error(transparent)]
    Missing(#[from] btf::Missing),
    #[error(transparent)]
    Unreadable(#[from] memory::Unreadable),
    #[error(transparent)]
    List(#[from] lists::ListError),
    #[error("{0} makes no sense")]
    Nonsense(&'static str),
    #[error("no per-CPU area is the vCPU's")]
    NoCpu,
}
