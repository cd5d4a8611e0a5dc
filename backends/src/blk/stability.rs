//! Whether a FLUSH can be believed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether written data can still reach stable storage.
///
/// The kernel reports a failed write-back once, and drops the data. A flush after that would
/// succeed though the data is gone, so none does in this process.
#[derive(Debug, Default)]
pub struct Stability {
    is_lost: AtomicBool,
}

impl Stability {
    /// The result of `bring`, which brings writes to stable storage; an error if an earlier one has
    /// failed.
    pub fn bring(&self, bring: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.is_lost.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "an earlier write did not reach stable storage, and its data may be lost; check \
                 the image and its storage, then start outboard-blk again",
            ));
        }
        bring().inspect_err(|error| {
            if !self.is_lost.swap(true, Ordering::AcqRel) {
                tracing::error!(%error, "a flush failed; all flushes fail from here on");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_flush_none_succeeds() {
        let stability = Stability::default();
        stability.bring(|| Ok(())).unwrap();
        let failed = stability.bring(|| Err(io::Error::from_raw_os_error(libc::EIO)));
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EIO));
        let next = stability.bring(|| Ok(())).unwrap_err();
        assert!(next.to_string().contains("may be lost"), "{next}");
    }
}
