//! An address space of devices: port I/O and memory-mapped I/O use one each.
//!
//! The bus routes and does nothing else. A device answers with a typed
//! [`AccessError`]; what the guest then sees (all-ones on a read, nothing on a
//! write) is the caller's decision.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Why an access was not carried out. Always the guest's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error("no device claims this address")]
    Unclaimed,
    #[error("the device has no register at this offset")]
    NoRegister,
    #[error("the register does not take accesses of this width")]
    Width,
    #[error("the register is read-only")]
    ReadOnly,
    #[error("the register is write-only")]
    WriteOnly,
    #[error("the access runs past the end of the device")]
    CrossesEnd,
}

/// A device on a bus. Offsets are relative to the start of its range, and an
/// access never reaches past its end.
pub trait BusDevice: Send {
    /// Fills all of `data`, or errs and leaves `data` unspecified.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError>;
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError>;
}

/// A range was asked for that another device holds, or that is empty.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} at {base:#x}+{len:#x} overlaps {other}")]
pub struct Overlap {
    pub name: String,
    pub base: u64,
    pub len: u64,
    pub other: String,
}

struct Range {
    len: u64,
    name: String,
    device: Arc<Mutex<dyn BusDevice>>,
}

/// Devices by address. Built once, then only read.
#[derive(Default)]
pub struct Bus {
    ranges: BTreeMap<u64, Range>,
}

impl Bus {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device at `base..base + len`.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        base: u64,
        len: u64,
        device: Arc<Mutex<dyn BusDevice>>,
    ) -> Result<(), Overlap> {
        let name = name.into();
        let last = base.saturating_add(len.saturating_sub(1));
        let below = self.ranges.range(..=last).next_back();
        if let Some((&start, range)) = below
            && (len == 0 || start + range.len > base)
        {
            let other = range.name.clone();
            return Err(Overlap {
                name,
                base,
                len,
                other,
            });
        }
        self.ranges.insert(base, Range { len, name, device });
        Ok(())
    }

    /// Reads from the device at `addr`.
    pub fn read(&self, addr: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let (offset, range) = self.find(addr, data.len())?;
        lock(&range.device).read(offset, data)
    }

    /// Writes to the device at `addr`.
    pub fn write(&self, addr: u64, data: &[u8]) -> Result<(), AccessError> {
        let (offset, range) = self.find(addr, data.len())?;
        lock(&range.device).write(offset, data)
    }

    /// Base, length and name of each device, by base.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        let ranges = self.ranges.iter();
        ranges.map(|(base, range)| (*base, range.len, range.name.as_str()))
    }

    fn find(&self, addr: u64, len: usize) -> Result<(u64, &Range), AccessError> {
        let (&base, range) = self
            .ranges
            .range(..=addr)
            .next_back()
            .ok_or(AccessError::Unclaimed)?;
        let offset = addr - base;
        if offset >= range.len {
            return Err(AccessError::Unclaimed);
        }
        if len as u64 > range.len - offset {
            return Err(AccessError::CrossesEnd);
        }
        Ok((offset, range))
    }
}

/// A device that panicked half-way is still the guest's device: keep using it.
fn lock<'a>(
    device: &'a Arc<Mutex<dyn BusDevice>>,
) -> std::sync::MutexGuard<'a, dyn BusDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.ranges
                    .iter()
                    .map(|(base, range)| (format!("{base:#x}+{:#x}", range.len), &range.name)),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Vec<(u64, Vec<u8>)>);

    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
            data.fill(offset as u8);
            Ok(())
        }
        fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
            self.0.push((offset, data.to_vec()));
            Ok(())
        }
    }

    fn echo() -> Arc<Mutex<Echo>> {
        Arc::new(Mutex::new(Echo(Vec::new())))
    }

    #[test]
    fn routes_by_offset() {
        let mut bus = Bus::new();
        let device = echo();
        bus.insert("echo", 0x100, 0x10, device.clone()).unwrap();
        let mut data = [0; 2];
        bus.read(0x10e, &mut data).unwrap();
        assert_eq!(data, [0xe, 0xe]);
        bus.write(0x100, &[7]).unwrap();
        assert_eq!(lock_echo(&device), [(0, vec![7])]);
    }

    fn lock_echo(device: &Arc<Mutex<Echo>>) -> Vec<(u64, Vec<u8>)> {
        device.lock().unwrap().0.clone()
    }

    #[test]
    fn unclaimed_and_crossing_accesses_are_told_apart() {
        let mut bus = Bus::new();
        bus.insert("echo", 0x100, 0x10, echo()).unwrap();
        assert_eq!(bus.read(0xff, &mut [0]), Err(AccessError::Unclaimed));
        assert_eq!(bus.read(0x110, &mut [0]), Err(AccessError::Unclaimed));
        assert_eq!(bus.write(0x10e, &[0; 4]), Err(AccessError::CrossesEnd));
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let mut bus = Bus::new();
        bus.insert("a", 0x100, 0x10, echo()).unwrap();
        for (base, len) in [(0x10f, 1), (0xf8, 0x10), (0x100, 0x10), (0x0, 0x1000)] {
            assert!(
                bus.insert("b", base, len, echo()).is_err(),
                "{base:#x}+{len:#x}"
            );
        }
        bus.insert("b", 0x110, 1, echo()).unwrap();
        bus.insert("c", 0xff, 1, echo()).unwrap();
    }
}
