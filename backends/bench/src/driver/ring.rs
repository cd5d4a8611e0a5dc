//! What split and packed rings have in common.

use super::chain::Chain;
use super::error::DriverError;
use super::memory::Memory;

/// A descriptor flag: the chain continues.
pub const VIRTQ_NEXT: u16 = 1;
/// A descriptor flag: the device may write, and not read.
pub const VIRTQ_WRITE: u16 = 2;
/// A descriptor flag: the buffer is a table of descriptors.
pub const VIRTQ_INDIRECT: u16 = 4;

/// Bytes of a descriptor, of either format.
pub(super) const DESCRIPTOR: u64 = 16;

/// How a virtqueue is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Virtio 1.4, section 2.7.
    #[default]
    Split,
    /// Section 2.8.
    Packed,
}

/// A buffer that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The number under which the driver made it available.
    pub id: u16,
    /// Bytes that the device says it has written. `None` where a device that uses buffers in
    /// order has left it out for all but the last of a batch.
    pub len: Option<u32>,
}

/// Guest-physical addresses of a virtqueue's three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Descriptor table, or descriptor ring.
    pub descriptors: u64,
    /// Available ring, or driver event suppression.
    pub driver: u64,
    /// Used ring, or device event suppression.
    pub device: u64,
}

/// A descriptor with any content. The last two fields are `flags`, `next` in a split ring, and
/// `id`, `flags` in a packed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub last: [u16; 2],
}

impl Descriptor {
    pub fn split(addr: u64, len: u32, flags: u16, next: u16) -> Self {
        let last = [flags, next];
        Self { addr, len, last }
    }

    pub fn packed(addr: u64, len: u32, id: u16, flags: u16) -> Self {
        let last = [id, flags];
        Self { addr, len, last }
    }

    pub fn to_bytes(self) -> [u8; DESCRIPTOR as usize] {
        let mut bytes = [0; DESCRIPTOR as usize];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.last[0].to_le_bytes());
        bytes[14..].copy_from_slice(&self.last[1].to_le_bytes());
        bytes
    }

    /// Writes it into slot `index` of the table at `table`.
    pub fn put(self, memory: &Memory, table: u64, index: u16) -> Result<(), DriverError> {
        memory.write(table + DESCRIPTOR * u64::from(index), &self.to_bytes())
    }
}

/// A virtqueue as its driver sees it.
pub trait Ring: std::fmt::Debug {
    /// In descriptors.
    fn size(&self) -> u16;

    fn places(&self) -> Places;

    /// Descriptors that are free.
    fn free(&self) -> usize;

    /// Writes a chain without making it available. Returns the number under which it comes back.
    fn stage(&mut self, memory: &Memory, chain: &Chain) -> Result<u16, String>;

    /// Makes available what is staged.
    fn publish(&mut self, memory: &Memory) -> Result<(), DriverError>;

    /// The next buffer that came back.
    ///
    /// # Errors
    /// The device used what it was not given.
    fn poll(&mut self, memory: &Memory) -> Result<Option<Used>, String>;

    /// Whether the device wants to hear of what was published last.
    fn wants_kick(&self, memory: &Memory) -> Result<bool, DriverError>;

    /// Has the device notify of every used buffer, or of none as far as possible.
    fn set_notify(&mut self, memory: &Memory, on: bool) -> Result<(), DriverError>;

    /// Has the device notify once `count` more buffers are used (EVENT_IDX).
    fn notify_after(&mut self, memory: &Memory, count: u16) -> Result<(), DriverError>;

    /// Where the device is to begin, or has to have come when it has taken everything and used it
    /// (vhost-user document, SET_VRING_BASE).
    fn base(&self) -> u32;

    /// Where a device resumes that does not know what another one took: what is used is done
    /// (QEMU, after a back-end is lost).
    fn used_base(&self) -> u32;

    /// Begins at another place, before anything is made available.
    fn rebase(&mut self, memory: &Memory, base: u32) -> Result<(), DriverError>;
}
