//! The log of written pages (vhost-user document, "Migration").
//!
//! A bitmap that the frontend shares and the backend sets bits in: one for each
//! page that it has written. Here it shows a user the backend's writes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use host_io::files::sealed_memfd;
use vhost::vhost_user::message::VhostUserLog;
use vhost_user_wire::frontend::SetLogBase;
use vm_memory::{FileOffset, GuestMemoryBackend, MmapRegion, VolatileMemory};

use crate::virtio::GuestMemory;

/// Bytes that a bit stands for.
const PAGE: u64 = 4096;
/// The bits are looked at this many at a time.
const WORD: usize = size_of::<u64>();
const PAGES_PER_WORD: u64 = u64::BITS as u64;

/// A log of all of guest memory.
#[derive(Debug)]
pub struct PageLog {
    file: File,
    bits: MmapRegion,
}

impl PageLog {
    /// One in which no page is written yet.
    pub fn new(memory: &GuestMemory) -> io::Result<Self> {
        let words = memory.last_addr().0 / PAGE / PAGES_PER_WORD + 1;
        // Whole pages of the host, which a backend maps.
        let bytes = (words * WORD as u64).next_multiple_of(PAGE);
        // A backend that cut it short would take this process with it.
        let file = sealed_memfd("vhost-user-log", bytes)?;
        let mapped = FileOffset::new(file.try_clone()?, 0);
        let bits = MmapRegion::from_file(mapped, bytes as usize).map_err(io::Error::other)?;
        Ok(Self { file, bits })
    }

    /// The message that hands it over.
    pub fn message(&self) -> SetLogBase<'_> {
        SetLogBase {
            payload: VhostUserLog::new(self.bits.len() as u64, 0),
            file: self.file.as_fd(),
        }
    }

    /// The pages written since the last call, as runs of guest-physical addresses.
    pub fn take(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (word, first) in (0..self.bits.len() / WORD).zip((0..).step_by(64)) {
            for bit in ones(self.take_word(word)) {
                let start = (first + u64::from(bit)) * PAGE;
                match runs.last_mut() {
                    Some(run) if run.end == start => run.end += PAGE,
                    _ => runs.push(start..start + PAGE),
                }
            }
        }
        runs
    }

    fn take_word(&self, word: usize) -> u64 {
        let Ok(bits) = self.bits.get_atomic_ref::<AtomicU64>(word * WORD) else {
            return 0;
        };
        // Bit n of the log is bit n % 8 of byte n / 8.
        match bits.load(Ordering::Relaxed) {
            0 => 0,
            _ => u64::from_le(bits.swap(0, Ordering::AcqRel)),
        }
    }
}

/// The bits that are set, from the lowest on.
fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lowest = bits.trailing_zeros();
        bits &= bits.checked_sub(1)?;
        Some(lowest)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::GuestAddress;

    use super::*;

    fn log() -> PageLog {
        let ranges = [
            (GuestAddress(0), 0x10_0000),
            (GuestAddress(1 << 32), 0x9000),
        ];
        PageLog::new(&GuestMemory::from_ranges(&ranges).unwrap()).unwrap()
    }

    fn set(log: &PageLog, bytes: &[u8], at: u64) {
        log.file.write_all_at(bytes, at).unwrap();
    }

    #[test]
    fn there_is_a_bit_for_the_last_page() {
        let log = log();
        let last: u64 = ((1 << 32) + 0x8000) / PAGE;
        assert!(log.message().payload.mmap_size > last / 8);
        set(&log, &[1 << (last % 8)], last / 8);
        let runs = log.take();
        assert_eq!((runs.len(), runs[0].start), (1, last * PAGE));
    }

    #[test]
    fn pages_are_told_once_and_in_runs() {
        let log = log();
        assert_eq!(log.take(), []);
        // Pages 0, 2, 3, and 60 to 67, across two words.
        set(&log, &[0b1101, 0, 0, 0, 0, 0, 0, 0xf0, 0x0f], 0);
        let expected = [0..0x1000, 0x2000..0x4000, 0x3c000..0x44000];
        assert_eq!(log.take(), expected);
        assert_eq!(log.take(), []);
    }

    #[test]
    fn a_backend_cannot_cut_it_short() {
        assert!(log().file.set_len(0).is_err());
    }
}
