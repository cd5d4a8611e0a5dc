//! Files that were made of guest memory.

use std::rc::Rc;

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The main one: the kernel's, or the program's.
    Main,
    Modules,
}

/// Those of one client.
#[derive(Default)]
pub(super) struct Made {
    pub main: Option<Rc<[u8]>>,
    pub modules: Option<Rc<[u8]>>,
}

/// Copies as much of `data` from `offset` on as fits, and returns how much that is.
pub(crate) fn copy_from(data: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = data.get(offset..).unwrap_or_default();
    let count = rest.len().min(buf.len());
    buf[..count].copy_from_slice(&rest[..count]);
    count
}
