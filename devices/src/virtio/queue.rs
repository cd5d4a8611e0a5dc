//! Queue addresses and sizes (virtio 1.3, sections 2.6 to 2.8). Nothing here
//! walks a ring: that is the backend's work.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::memory::GuestMemory;

/// The largest queue of either format (sections 2.7 and 2.8.10.1).
pub const MAX_SIZE: u16 = 1 << 15;

/// How driver and device use a queue's memory: packed with VIRTIO_F_RING_PACKED,
/// split without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Split,
    Packed,
}

/// A queue that a device can start: its size is one that its format allows, and
/// each part is aligned and lies within one region of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    pub format: Format,
    /// Number of entries.
    pub size: u16,
    /// Where the descriptor table or, packed, the descriptor ring is.
    pub descriptors: GuestAddress,
    /// Where the available ring or, packed, the driver's event suppression is:
    /// the driver writes it.
    pub available: GuestAddress,
    /// Where the used ring or, packed, the device's event suppression is: the
    /// device writes it.
    pub used: GuestAddress,
}

/// A part of a queue, by its name in a split one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Descriptors,
    Available,
    Used,
}

impl Part {
    /// Alignment in bytes (sections 2.7 and 2.8.10.1).
    fn alignment(self, format: Format) -> u64 {
        match (self, format) {
            (Self::Descriptors, _) => 16,
            (Self::Available, Format::Split) => 2,
            (Self::Available, Format::Packed) | (Self::Used, _) => 4,
        }
    }

    /// Length in bytes in a queue of `size` entries (sections 2.7 and 2.8). The
    /// event index behind each split ring counts, negotiated or not.
    fn len(self, format: Format, size: u16) -> u64 {
        let size = u64::from(size);
        match (self, format) {
            (Self::Descriptors, _) => 16 * size,
            (Self::Available, Format::Split) => 6 + 2 * size,
            (Self::Used, Format::Split) => 6 + 8 * size,
            (Self::Available | Self::Used, Format::Packed) => 4,
        }
    }
}

/// The driver's configuration makes no valid queue. The driver's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    #[error("a size of {size} entries is not a power of two from 1 to {max}")]
    Size { size: u32, max: u16 },
    #[error("a size of {size} entries is not from 1 to {max}")]
    PackedSize { size: u32, max: u16 },
    #[error("{part:?} at {address:#x} is not aligned to {alignment} bytes")]
    Alignment {
        part: Part,
        address: u64,
        alignment: u64,
    },
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

    /// The queue, when the driver's writes make a valid one of this format and
    /// of at most `max` entries in `memory`.
    pub fn check(
        &self,
        format: Format,
        max: u16,
        memory: &GuestMemory,
    ) -> Result<QueueConfig, QueueError> {
        let size = self.check_size(format, max)?;
        let place = |part: Part, address: u64| -> Result<GuestAddress, QueueError> {
            let alignment = part.alignment(format);
            if !address.is_multiple_of(alignment) {
                return Err(QueueError::Alignment {
                    part,
                    address,
                    alignment,
                });
            }
            let len = part.len(format, size);
            if !within_one_region(memory, address, len) {
                return Err(QueueError::OutsideMemory { part, address, len });
            }
            Ok(GuestAddress(address))
        };
        Ok(QueueConfig {
            format,
            size,
            descriptors: place(Part::Descriptors, self.descriptors)?,
            available: place(Part::Available, self.available)?,
            used: place(Part::Used, self.used)?,
        })
    }

    /// A packed queue's size need not be a power of two (section 2.8.10.1).
    fn check_size(&self, format: Format, max: u16) -> Result<u16, QueueError> {
        let size = self.size;
        let (is_allowed, wrong): (fn(u16) -> bool, _) = match format {
            Format::Split => (u16::is_power_of_two, QueueError::Size { size, max }),
            Format::Packed => (|size| size > 0, QueueError::PackedSize { size, max }),
        };
        let fitting = u16::try_from(size).ok().filter(|size| *size <= max);
        fitting.filter(|size| is_allowed(*size)).ok_or(wrong)
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
            setup().check(Format::Split, 256, &memory()),
            Ok(QueueConfig {
                format: Format::Split,
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
                queue.check(Format::Split, 256, &memory()),
                Err(QueueError::Size { size, max: 256 })
            );
        }
        for size in [1, 2, 128] {
            assert!(
                QueueSetup { size, ..setup() }
                    .check(Format::Split, 256, &memory())
                    .is_ok()
            );
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
            let error = queue.check(Format::Split, 256, &memory()).unwrap_err();
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
            .check(Format::Split, 256, &memory())
            .is_ok()
        );
        for used in [last_fit + 4, 2 * MIB, MIB - 4, !3] {
            let error = QueueSetup { used, ..setup() }.check(Format::Split, 256, &memory());
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
    fn a_packed_queue_has_any_size_and_two_words_beside_its_ring() {
        let check = |queue: QueueSetup| queue.check(Format::Packed, 256, &memory());
        for size in [1, 3, 255, 256] {
            let queue = check(QueueSetup { size, ..setup() }).unwrap();
            assert_eq!(
                (queue.format, u32::from(queue.size)),
                (Format::Packed, size)
            );
        }
        for size in [0, 257, 1 << 16 | 1] {
            assert_eq!(
                check(QueueSetup { size, ..setup() }),
                Err(QueueError::PackedSize { size, max: 256 })
            );
        }
        let last_word = QueueSetup {
            available: 2 * MIB - 4,
            ..setup()
        };
        assert!(check(last_word).is_ok());
        let unaligned = QueueSetup {
            available: 0x2002,
            ..setup()
        };
        assert!(matches!(
            check(unaligned),
            Err(QueueError::Alignment { alignment: 4, .. })
        ));
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
