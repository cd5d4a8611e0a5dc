//! The kernel's linked lists (include/linux/list.h).

use super::memory::{Memory, Unreadable};

/// Calls `each` with every element of the list at `head`, which is a `struct
/// list_head` that elements hold at `offset`, until `each` says false.
///
/// # Errors
/// An element cannot be read, or the list does not end within `max` elements: the
/// vCPUs were stopped anywhere, and the guest may have written anything.
pub(crate) fn walk(
    memory: &Memory<'_>,
    head: u64,
    offset: u64,
    max: usize,
    mut each: impl FnMut(u64) -> Result<(), Unreadable>,
) -> Result<(), ListError> {
    let mut at = memory.u64(head)?;
    for _ in 0..max {
        if at == head {
            return Ok(());
        }
        each(at.wrapping_sub(offset))?;
        at = memory.u64(at)?;
    }
    Err(ListError::Endless { head, max })
}

/// Not all of a list was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the list at {head:#x} does not end within {max} elements")]
    Endless { head: u64, max: usize },
}
