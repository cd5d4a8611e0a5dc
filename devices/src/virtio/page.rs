//! The published register page.
//!
//! Reads of a virtio-mmio device never leave the kernel: its 4 KiB register
//! window is one page of VMM memory, mapped read-only into the guest. Every
//! value that the guest reads is published here, and reads that do exit (on a
//! host without read-only memory slots) are answered from here too.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use host_io::mapping::Mapping;

use super::spec::{CONFIG_OFFSET, Register};

/// Size of a device's register window in bytes.
pub const PAGE_SIZE: usize = 4096;

/// The largest device configuration space in bytes.
pub const CONFIG_MAX: usize = PAGE_SIZE - CONFIG_OFFSET;

const WORD: usize = size_of::<u32>();

/// One page of shared memory that holds all values that the guest reads.
///
/// It is written in aligned 32-bit words, each at once and in program order, so
/// that a guest never reads half a register. Values are little-endian there, as
/// virtio has them (virtio 1.3, section 1.4).
#[derive(Debug)]
pub struct RegisterPage {
    mapping: Mapping,
}

impl RegisterPage {
    /// A zeroed page.
    pub fn new() -> io::Result<Self> {
        let mapping = Mapping::anonymous(PAGE_SIZE)?;
        Ok(Self { mapping })
    }

    /// Where the page is in the VMM, for the hypervisor's memory slot.
    pub fn host_address(&self) -> *mut u8 {
        self.mapping.base().as_ptr()
    }

    /// Sets the value that the guest reads from `register` from now on.
    pub fn publish(&self, register: Register, value: u32) {
        self.words()[register.offset() / WORD].store(value.to_le(), Ordering::Release);
    }

    /// The value that the guest now reads from `register`.
    pub fn published(&self, register: Register) -> u32 {
        u32::from_le(self.words()[register.offset() / WORD].load(Ordering::Acquire))
    }

    /// Sets the device configuration space that the guest reads from now on:
    /// the first [`CONFIG_MAX`] bytes of `config`, then zeros.
    pub fn publish_config(&self, config: &[u8]) {
        let mut chunks = config.chunks(WORD);
        for word in &self.words()[CONFIG_OFFSET / WORD..] {
            let chunk = chunks.next().unwrap_or_default();
            let mut bytes = [0; WORD];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u32::from_ne_bytes(bytes), Ordering::Release);
        }
    }

    /// Reads as the guest does. `None` when the access leaves the page.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Option<()> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(data.len())?;
        if end > PAGE_SIZE {
            return None;
        }
        for (position, byte) in (start..end).zip(data) {
            let word = self.words()[position / WORD].load(Ordering::Acquire);
            *byte = word.to_ne_bytes()[position % WORD];
        }
        Some(())
    }

    fn words(&self) -> &[AtomicU32; PAGE_SIZE / WORD] {
        // SAFETY: a mapping is page-aligned, this one of PAGE_SIZE bytes is valid and
        // writable as long as `self` lives, and this module accesses it through these
        // atomics only. The guest's own view of the page is read-only.
        unsafe { self.mapping.base().cast().as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_little_endian_words_at_their_offsets() {
        let page = RegisterPage::new().unwrap();
        page.publish(Register::MagicValue, super::super::spec::MAGIC);
        page.publish(Register::Status, 0x0102_0304);
        let mut bytes = [0; 4];
        page.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"virt");
        page.read(0x70, &mut bytes).unwrap();
        assert_eq!(bytes, [4, 3, 2, 1]);
        assert_eq!(page.published(Register::Status), 0x0102_0304);
    }

    #[test]
    fn config_is_readable_at_any_width_and_ends_in_zeros() {
        let page = RegisterPage::new().unwrap();
        page.publish_config(&[0xff; 16]);
        page.publish_config(&[1, 2, 3, 4, 5]);
        let mut bytes = [0xaa; 8];
        page.read(0x101, &mut bytes).unwrap();
        assert_eq!(bytes, [2, 3, 4, 5, 0, 0, 0, 0]);
    }

    #[test]
    fn config_beyond_the_page_is_cut_off() {
        let page = RegisterPage::new().unwrap();
        page.publish_config(&[7; PAGE_SIZE]);
        let mut last = [0];
        page.read(PAGE_SIZE as u64 - 1, &mut last).unwrap();
        assert_eq!(last, [7]);
    }

    #[test]
    fn reads_past_the_end_are_refused() {
        let page = RegisterPage::new().unwrap();
        assert!(page.read(PAGE_SIZE as u64 - 1, &mut [0; 2]).is_none());
        assert!(page.read(u64::MAX, &mut [0; 1]).is_none());
    }
}
