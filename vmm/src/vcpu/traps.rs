//! Accesses to devices that stop the guest for gdb.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gdb::target::StopReason;

use super::exit::{Exit, MsrAccess};

/// IA32_GS_BASE (SDM volume 4).
pub const MSR_GS_BASE: u32 = 0xc000_0101;

/// The address space of a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Physical,
    Ports,
    /// Model-specific registers. One that is trapped exits.
    Msrs,
}

/// Accesses to one range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub space: Space,
    pub first: u64,
    pub last: u64,
    /// Only 4-byte writes of this value, and their meaning.
    pub write: Option<(u32, String)>,
}

/// The traps, the same on every vCPU. Changed while all are stopped.
#[derive(Debug, Default)]
pub struct Traps {
    /// Whether there are any: without traps, an exit costs only this check.
    any: AtomicBool,
    ranges: Mutex<Vec<Range>>,
    /// Whether writes of GS_BASE are.
    gs_base: AtomicBool,
}

impl Traps {
    pub fn set(&self, ranges: Vec<Range>) {
        self.any.store(!ranges.is_empty(), Ordering::Relaxed);
        *self.lock() = ranges;
    }

    pub fn set_gs_base(&self, wanted: bool) {
        self.gs_base.store(wanted, Ordering::Relaxed);
    }

    pub fn gs_base(&self) -> bool {
        self.gs_base.load(Ordering::Relaxed)
    }

    /// The stop that the exit is, once it is done.
    pub fn stop(&self, exit: &Exit<'_>) -> Option<StopReason> {
        let gs_base = |access: &MsrAccess| access.index == MSR_GS_BASE && access.written.is_some();
        match (self.matching(exit), exit) {
            (Some(access), _) => Some(StopReason::Trap(access)),
            (None, Exit::Msr(access)) if self.gs_base() && gs_base(access) => {
                Some(StopReason::GsBase)
            }
            (None, _) => None,
        }
    }

    /// The access of the exit, in words, if it is to stop the guest.
    pub fn matching(&self, exit: &Exit<'_>) -> Option<String> {
        if self.any.load(Ordering::Relaxed) {
            self.look(exit)
        } else {
            None
        }
    }

    fn look(&self, exit: &Exit<'_>) -> Option<String> {
        let (space, addr, len, written) = match exit {
            Exit::PioIn { port, data, .. } => (Space::Ports, (*port).into(), data.len(), None),
            Exit::PioOut { port, data, .. } => {
                (Space::Ports, (*port).into(), data.len(), Some(*data))
            }
            Exit::MmioRead { addr, data } => (Space::Physical, *addr, data.len(), None),
            Exit::MmioWrite { addr, data } => (Space::Physical, *addr, data.len(), Some(*data)),
            Exit::Msr(access) => return self.look_at_msr(access),
            _ => return None,
        };
        let last = addr.saturating_add(len.saturating_sub(1) as u64);
        let meets = |range: &&Range| {
            let value = range.write.as_ref().map(|(value, _)| value.to_le_bytes());
            range.space == space
                && range.first <= last
                && addr <= range.last
                && value.is_none_or(|value| written == Some(&value))
        };
        let ranges = self.lock();
        let range = ranges.iter().find(meets)?;
        let place = if space == Space::Ports { "port " } else { "" };
        let access = match written {
            None => format!("read of {len} bytes at {place}{addr:#x}"),
            Some(data) => format!("write of {} at {place}{addr:#x}", hexadecimal(data)),
        };
        Some(match &range.write {
            None => access,
            Some((_, meaning)) => format!("{meaning}: {access}"),
        })
    }

    fn look_at_msr(&self, access: &MsrAccess) -> Option<String> {
        let index = u64::from(access.index);
        let meets = |range: &Range| range.space == Space::Msrs && range.first == index;
        let is_met = self.lock().iter().any(meets);
        is_met.then(|| match access.written {
            None => format!("read of MSR {index:#x}"),
            Some(data) => format!("write of {data:#x} to MSR {index:#x}"),
        })
    }

    /// The registers that are trapped.
    pub fn msrs(&self) -> Vec<u32> {
        let ranges = self.lock();
        let msrs = ranges.iter().filter(|range| range.space == Space::Msrs);
        msrs.filter_map(|range| range.first.try_into().ok())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Range>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As one number up to 8 bytes, and no more than these of a longer one.
fn hexadecimal(data: &[u8]) -> String {
    let digits: String = data
        .iter()
        .take(8)
        .rev()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let more = if data.len() > 8 {
        ", the first of"
    } else {
        " in"
    };
    format!("0x{digits}{more} {} bytes", data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(space: Space, first: u64, last: u64) -> Range {
        Range {
            space,
            first,
            last,
            write: None,
        }
    }

    fn write(traps: &Traps, addr: u64, data: &[u8]) -> Option<String> {
        traps.matching(&Exit::MmioWrite { addr, data })
    }

    #[test]
    fn accesses_that_touch_a_range_are_met() {
        let traps = Traps::default();
        assert_eq!(write(&traps, 0x1000, &[1]), None);
        traps.set(vec![
            range(Space::Physical, 0x1004, 0x1007),
            range(Space::Ports, 0x10, 0x10),
        ]);
        for (addr, met) in [
            (0x1000, false),
            (0x1001, true),
            (0x1007, true),
            (0x1008, false),
        ] {
            assert_eq!(
                write(&traps, addr, &[1, 2, 3, 4]).is_some(),
                met,
                "{addr:#x}"
            );
        }
        assert_eq!(
            write(&traps, 0x1004, &[1, 2, 3, 4]).unwrap(),
            "write of 0x04030201 in 4 bytes at 0x1004"
        );
        let mut data = [0; 2];
        let exit = Exit::PioIn {
            port: 0x10,
            width: 2,
            data: &mut data,
        };
        assert_eq!(
            traps.matching(&exit).unwrap(),
            "read of 2 bytes at port 0x10"
        );
        assert_eq!(write(&traps, 0x10, &[1]), None, "not a port");
        assert_eq!(traps.matching(&Exit::Hlt), None);
        traps.set(Vec::new());
        assert_eq!(write(&traps, 0x1004, &[1]), None);
    }

    #[test]
    fn a_register_is_no_address() {
        let traps = Traps::default();
        traps.set(vec![range(Space::Msrs, 0x10, 0x10)]);
        let met = |written| {
            traps.matching(&Exit::Msr(MsrAccess {
                index: 0x10,
                written,
            }))
        };
        assert_eq!(met(None).unwrap(), "read of MSR 0x10");
        assert_eq!(met(Some(0xfe)).unwrap(), "write of 0xfe to MSR 0x10");
        assert_eq!(write(&traps, 0x10, &[1]), None);
        assert_eq!(traps.msrs(), [0x10]);
    }

    #[test]
    fn writes_of_gs_base_are_stops_of_their_own() {
        let traps = Traps::default();
        let stop = |index, written| traps.stop(&Exit::Msr(MsrAccess { index, written }));
        assert_eq!(stop(MSR_GS_BASE, Some(1)), None);
        traps.set_gs_base(true);
        assert_eq!(stop(MSR_GS_BASE, Some(1)), Some(StopReason::GsBase));
        assert_eq!(stop(MSR_GS_BASE, None), None, "a read");
        assert_eq!(stop(MSR_GS_BASE + 1, Some(1)), None);
        // What the user asked for is said.
        let index = MSR_GS_BASE.into();
        traps.set(vec![range(Space::Msrs, index, index)]);
        let said = "write of 0x1 to MSR 0xc0000101".to_owned();
        assert_eq!(stop(MSR_GS_BASE, Some(1)), Some(StopReason::Trap(said)));
    }

    #[test]
    fn a_value_can_be_asked_for() {
        let traps = Traps::default();
        traps.set(vec![Range {
            write: Some((2, "kick of d queue 2".into())),
            ..range(Space::Physical, 0x50, 0x53)
        }]);
        assert_eq!(write(&traps, 0x50, &[1, 0, 0, 0]), None);
        assert_eq!(write(&traps, 0x50, &[2, 0]), None);
        assert_eq!(
            write(&traps, 0x50, &[2, 0, 0, 0]).unwrap(),
            "kick of d queue 2: write of 0x00000002 in 4 bytes at 0x50"
        );
    }
}
