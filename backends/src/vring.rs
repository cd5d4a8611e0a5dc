//! A ring before it runs: the frontend's setup so far.
//!
//! The messages about a ring come in any order. They fill a [`RingSetup`]; only
//! [`RingSetup::ready`] makes a [`ReadyRing`] of it, and only a `ReadyRing` can be started.
//!
//! virtio 1.3, section 2.7 (split virtqueues) gives sizes and alignments.

use std::fs::File;

use thiserror::Error;
use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringAddrFlags};
use vhost_user_backend::VringRwLock;
use vm_memory::GuestAddress;
use vm_memory::mmap::NewBitmap;

use crate::memory::{MemoryError, MemoryTable, SharedMemory, UserAddress};
use crate::packed;
use crate::page_log::{PageLog, RingLog};

/// A ring of a device of the kit's, as the rust-vmm crate keeps it.
pub type Vring = VringRwLock<SharedMemory<PageLog>>;

/// A ring that is set up wrongly. The frontend is at fault.
#[derive(Debug, Error)]
pub enum RingError {
    /// Zero, or beyond what the device offers.
    #[error("ring size {size} asked for; it must be from 1 to {max}")]
    Size {
        /// The size asked for.
        size: u32,
        /// The device's largest.
        max: u16,
    },
    /// virtio 1.3, section 2.7: a split ring's size is a power of two. Section 2.8.10.1 frees
    /// packed rings of that.
    #[error("ring size {0} asked for; a split ring's must be a power of two")]
    SplitSize(u16),
    /// A split ring's position is a 16-bit counter.
    #[error("ring base {0} asked for; a split ring's base is at most 65535")]
    Base(u32),
    /// virtio 1.3, section 2.7: descriptors 16, available ring 2, used ring 4.
    #[error("{part} at {address:#x} is not aligned to {alignment} bytes")]
    Alignment {
        /// Part of the ring.
        part: &'static str,
        /// User address.
        address: u64,
        /// Required alignment in bytes.
        alignment: u64,
    },
    /// A part of the ring is not in shared memory.
    #[error("{part} is not in shared memory")]
    Memory {
        /// Part of the ring.
        part: &'static str,
        /// Which address.
        #[source]
        source: MemoryError,
    },
}

/// A part of the setup that a ring still lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// SET_VRING_NUM.
    Size,
    /// SET_VRING_ADDR.
    Addresses,
    /// SET_VRING_KICK.
    Kick,
    /// SET_VRING_ENABLE.
    Enable,
    /// SET_MEM_TABLE.
    Memory,
}

/// Where the parts of a split ring are, in the frontend's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table, 16 bytes an entry.
    pub descriptors: UserAddress,
    /// Available (driver) ring.
    pub available: UserAddress,
    /// Used (device) ring.
    pub used: UserAddress,
    /// Where writes to the used ring are logged, if not only where it is in guest memory
    /// (VHOST_VRING_F_LOG).
    pub log: Option<u64>,
}

impl RingAddresses {
    /// Checks the alignments of SET_VRING_ADDR's payload.
    pub fn from_message(message: &VhostUserVringAddr) -> Result<Self, RingError> {
        let parts = [
            ("descriptor table", message.descriptor, 16),
            ("available ring", message.available, 2),
            ("used ring", message.used, 4),
        ];
        for (part, address, alignment) in parts {
            if address % alignment != 0 {
                return Err(RingError::Alignment {
                    part,
                    address,
                    alignment,
                });
            }
        }
        let is_logged = message.flags & VhostUserVringAddrFlags::VHOST_VRING_F_LOG.bits() != 0;
        Ok(RingAddresses {
            descriptors: UserAddress(message.descriptor),
            available: UserAddress(message.available),
            used: UserAddress(message.used),
            log: is_logged.then_some(message.log),
        })
    }
}

/// The treatment of a started ring's chains (vhost-user document, "Ring states").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flow {
    /// They stay where they are: the ring is disabled.
    #[default]
    Held,
    /// They are processed: the ring is enabled.
    Passed,
    /// They go back to the driver without effect: the ring was disabled while it ran, and its
    /// driver should not wait meanwhile.
    Discarded,
}

/// A half-configured ring.
#[derive(Debug, Default)]
pub struct RingSetup {
    size: Option<u16>,
    addresses: Option<RingAddresses>,
    /// Where to resume: the available index or, of a packed ring, both positions.
    pub base: u32,
    /// Kick descriptor, readable when the driver has added buffers.
    pub kick: Option<File>,
    /// Whether the frontend lets data pass.
    pub flow: Flow,
    /// The base that the frontend was told when it stopped the ring.
    stopped_at: Option<u32>,
}

impl RingSetup {
    /// GET_VRING_BASE of a ring that ran.
    pub fn stop(&mut self) {
        self.stopped_at = Some(self.base);
    }

    /// The ring runs.
    pub fn start(&mut self) {
        self.stopped_at = None;
    }

    /// SET_VRING_NUM.
    pub fn set_size(&mut self, size: u32, max: u16, packed: bool) -> Result<(), RingError> {
        let entries = u16::try_from(size).ok().filter(|n| (1..=max).contains(n));
        let entries = entries.ok_or(RingError::Size { size, max })?;
        check_format(entries, packed)?;
        self.size = Some(entries);
        Ok(())
    }

    /// SET_VRING_ADDR.
    pub fn set_addresses(&mut self, addresses: RingAddresses) {
        self.addresses = Some(addresses);
    }

    /// SET_VRING_BASE.
    pub fn set_base(&mut self, base: u32, packed: bool) -> Result<(), RingError> {
        if !packed && base > u16::MAX.into() {
            return Err(RingError::Base(base));
        }
        self.base = base;
        Ok(())
    }

    /// The part that the ring still lacks, if any.
    pub fn missing<B: NewBitmap + 'static>(&self, memory: &MemoryTable<B>) -> Option<Missing> {
        let lacks = [
            (self.size.is_none(), Missing::Size),
            (self.addresses.is_none(), Missing::Addresses),
            (self.kick.is_none(), Missing::Kick),
            (self.flow == Flow::Held, Missing::Enable),
            (memory.is_empty(), Missing::Memory),
        ];
        lacks
            .into_iter()
            .find_map(|(lacking, what)| lacking.then_some(what))
    }

    /// The ring in a form that can be started: `Ok(None)` while something is still missing, an
    /// error if the setup so far cannot work.
    pub fn ready<B: NewBitmap + 'static>(
        &self,
        memory: &MemoryTable<B>,
        packed: bool,
    ) -> Result<Option<ReadyRing<'_>>, RingError> {
        if self.missing(memory).is_some() {
            return Ok(None);
        }
        let (Some(size), Some(addresses), Some(kick)) = (self.size, self.addresses, &self.kick)
        else {
            return Ok(None);
        };
        // Again: the format may have been agreed on after the size.
        check_format(size, packed)?;
        let find = |part, address, len| {
            memory
                .translate(address, len)
                .map_err(|source| RingError::Memory { part, source })
        };
        let entries = u64::from(size);
        let (available, used) = (available_len(size, packed), used_len(size, packed));
        Ok(Some(ReadyRing {
            packed,
            size,
            descriptors: find("descriptor table", addresses.descriptors, 16 * entries)?,
            available: find("available ring", addresses.available, available)?,
            used: find("used ring", addresses.used, used)?,
            base: self.base,
            begins_again: self.stopped_at.is_some_and(|base| base != self.base),
            enabled: self.flow == Flow::Passed,
            kick,
        }))
    }

    /// Where writes to the used ring are logged, if that is another place than its own.
    pub fn used_log<B: NewBitmap + 'static>(
        &self,
        memory: &MemoryTable<B>,
        packed: bool,
    ) -> Option<RingLog> {
        let RingAddresses { used, log, .. } = self.addresses?;
        let len = used_len(self.size?, packed);
        let ring = memory.translate(used, len).ok()?;
        let log = log.filter(|log| *log != ring.0)?;
        Some(RingLog { ring, len, log })
    }
}

/// Bytes of an available ring with the two that EVENT_IDX adds (virtio 1.4, section 2.7), or of
/// the driver's event suppression structure (section 2.8.14).
fn available_len(entries: u16, packed: bool) -> u64 {
    if packed {
        packed::EVENTS
    } else {
        6 + 2 * u64::from(entries)
    }
}

/// The same of a used ring.
fn used_len(entries: u16, packed: bool) -> u64 {
    if packed {
        packed::EVENTS
    } else {
        6 + 8 * u64::from(entries)
    }
}

/// Whether a ring of this format can have so many entries.
fn check_format(entries: u16, packed: bool) -> Result<(), RingError> {
    if packed || entries.is_power_of_two() {
        Ok(())
    } else {
        Err(RingError::SplitSize(entries))
    }
}

/// A ring that has everything it needs to run.
#[derive(Debug)]
pub struct ReadyRing<'a> {
    /// Whether the parts are those of a packed ring.
    pub packed: bool,
    /// Entries; of a split ring, a power of two.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: GuestAddress,
    /// Available ring, or the driver's event suppression structure.
    pub available: GuestAddress,
    /// Used ring, or the device's event suppression structure.
    pub used: GuestAddress,
    /// Where to resume: the available index or, of a packed ring, both positions.
    pub base: u32,
    /// Whether it was stopped in order and does not resume where it stood: the driver has reset
    /// the queue (virtio 1.4, section 2.6.1.1), and what was known of its requests is past.
    pub begins_again: bool,
    /// Whether its chains are processed. Else they are discarded.
    pub enabled: bool,
    /// Kick descriptor.
    pub kick: &'a File,
}

#[cfg(test)]
#[path = "vring_test.rs"]
mod tests;
