//! Queue addresses and sizes (virtio 1.3, sections 2.6 and 2.7). Nothing here
//! walks a ring: that is the backend's work.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::GuestMemory;

/// The largest split queue (section 2.7).
pub const MAX_SIZE: u16 = 1 << 15;

/// A split queue that a device can start: its size is a power of two, and each
/// part is aligned and lies within one region of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Number of entries.
    pub size: u16,
    /// Where the descriptor table is.
    pub descriptors: GuestAddress,
    /// Where the available ring is, which the driver writes.
    pub available: GuestAddress,
    /// Where the used ring is, which the device writes.
    pub used: GuestAddress,
}

/// A part of a split queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Descriptors,
    Available,
    Used,
}

impl Part {
    /// Alignment in bytes (section 2.7).
    fn alignment(self) -> u64 {
        match self {
            Self::Descriptors => 16,
            Self::Available => 2,
            Self::Used => 4,
        }
    }

    /// Length in bytes in a queue of `size` entries (section 2.7). The event
    /// index behind each ring counts, negotiated or not.
    fn len(self, size: u16) -> u64 {
        let size = u64::from(size);
        match self {
            Self::Descriptors => 16 * size,
            Self::Available => 6 + 2 * size,
            Self::Used => 6 + 8 * size,
        }
    }
}

/// What the driver configured is no queue. The driver's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    #[error("a size of {size} entries is not a power of two from 1 to {max}")]
    Size { size: u32, max: u16 },
    #[error("{part:?} at {address:#x} is not aligned to {} bytes", .part.alignment())]
    Alignment { part: Part, address: u64 },
    #[error("{part:?} at {address:#x}+{len:#x} is not within one region of guest RAM")]
    OutsideMemory { part: Part, address: u64, len: u64 },
}

/// The registers of one queue, as far as the driver has written them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSetup {
    /// Entries; 0 until the driver has written a size.
    pub size: u32,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// Half of a 64-bit address register pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Low,
    High,
}

impl QueueSetup {
    /// The driver writes one half of the address of `part`.
    pub fn set_address(&mut self, part: Part, half: Half, value: u32) {
        let address = match part {
            Part::Descriptors => &mut self.descriptors,
            Part::Available => &mut self.available,
            Part::Used => &mut self.used,
        };
        let (low, high) = (*address as u32, (*address >> u32::BITS) as u32);
        let (low, high) = match half {
            Half::Low => (value, high),
            Half::High => (low, value),
        };
        *address = u64::from(high) << u32::BITS | u64::from(low);
    }

    /// The queue, when what the driver has written makes one of at most `max`
    /// entries in `memory`.
    pub fn check(&self, max: u16, memory: &GuestMemory) -> Result<QueueConfig, QueueError> {
        let wrong_size = QueueError::Size {
            size: self.size,
            max,
        };
        let size = u16::try_from(self.size).map_err(|_| wrong_size)?;
        if !size.is_power_of_two() || size > max {
            return Err(wrong_size);
        }
        let place = |part: Part, address: u64| -> Result<GuestAddress, QueueError> {
            if !address.is_multiple_of(part.alignment()) {
                return Err(QueueError::Alignment { part, address });
            }
            let len = part.len(size);
            if !within_one_region(memory, address, len) {
                return Err(QueueError::OutsideMemory { part, address, len });
            }
            Ok(GuestAddress(address))
        };
        Ok(QueueConfig {
            size,
            descriptors: place(Part::Descriptors, self.descriptors)?,
            available: place(Part::Available, self.available)?,
            used: place(Part::Used, self.used)?,
        })
    }
}

/// Backends map regions apart, so that a ring across two of them is contiguous
/// for the guest only.
fn within_one_region(memory: &GuestMemory, address: u64, len: u64) -> bool {
    let Some(last) = address.checked_add(len - 1) else {
        return false;
    };
    memory
        .find_region(GuestAddress(address))
        .is_some_and(|region| last <= region.last_addr().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Two adjacent regions and a hole behind them.
    fn memory() -> GuestMemory {
        let regions = [
            (GuestAddress(0), MIB as usize),
            (GuestAddress(MIB), MIB as usize),
        ];
        GuestMemory::from_ranges(&regions).unwrap()
    }

    fn setup() -> QueueSetup {
        QueueSetup {
            size: 256,
            descriptors: 0x1000,
            available: 0x2000,
            used: 0x3000,
        }
    }

    #[test]
    fn a_whole_queue_passes() {
        assert_eq!(
            setup().check(256, &memory()),
            Ok(QueueConfig {
                size: 256,
                descriptors: GuestAddress(0x1000),
                available: GuestAddress(0x2000),
                used: GuestAddress(0x3000),
            })
        );
    }

    #[test]
    fn sizes_are_powers_of_two_up_to_the_maximum() {
        for size in [0, 3, 255, 512, 1 << 16, 1 << 31, u32::MAX] {
            let queue = QueueSetup { size, ..setup() };
            assert_eq!(
                queue.check(256, &memory()),
                Err(QueueError::Size { size, max: 256 })
            );
        }
        for size in [1, 2, 128] {
            assert!(QueueSetup { size, ..setup() }.check(256, &memory()).is_ok());
        }
    }

    #[test]
    fn each_part_is_aligned() {
        for (part, queue) in [
            (
                Part::Descriptors,
                QueueSetup {
                    descriptors: 0x1008,
                    ..setup()
                },
            ),
            (
                Part::Available,
                QueueSetup {
                    available: 0x2001,
                    ..setup()
                },
            ),
            (
                Part::Used,
                QueueSetup {
                    used: 0x3002,
                    ..setup()
                },
            ),
        ] {
            let error = queue.check(256, &memory()).unwrap_err();
            assert!(
                matches!(error, QueueError::Alignment { part: found, .. } if found == part),
                "{error}"
            );
        }
    }

    #[test]
    fn each_part_is_inside_one_region_to_its_last_byte() {
        let used_len = 6 + 8 * 256;
        let last_fit = (2 * MIB - used_len) & !3;
        assert!(
            QueueSetup {
                used: last_fit,
                ..setup()
            }
            .check(256, &memory())
            .is_ok()
        );
        for used in [last_fit + 4, 2 * MIB, MIB - 4, !3] {
            let error = QueueSetup { used, ..setup() }.check(256, &memory());
            assert_eq!(
                error,
                Err(QueueError::OutsideMemory {
                    part: Part::Used,
                    address: used,
                    len: used_len
                })
            );
        }
    }

    #[test]
    fn address_halves_combine() {
        let mut queue = QueueSetup::default();
        queue.set_address(Part::Used, Half::High, 0x1);
        queue.set_address(Part::Used, Half::Low, 0xfff0_0000);
        queue.set_address(Part::Used, Half::High, 0x2);
        assert_eq!(queue.used, 0x2_fff0_0000);
        assert_eq!((queue.descriptors, queue.available), (0, 0));
    }
}
