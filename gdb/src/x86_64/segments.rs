//! Loading a segment register for the user, as the processor does it (SDM volume
//! 3, 3.4.3, and volume 2, MOV and far JMP).

use super::registers::{Registers, Segment, Table, cr0, rflags};
use crate::address::VirtAddr;

/// Bits of a descriptor's access byte (SDM volume 3, 3.4.5).
mod access {
    pub const ACCESSED: u8 = 1 << 0;
    /// Of a code segment readable, of a data segment writable.
    pub const READ_WRITE: u8 = 1 << 1;
    pub const CONFORMING: u8 = 1 << 2;
    pub const CODE: u8 = 1 << 3;
    /// Code or data, and no gate or task.
    pub const NOT_SYSTEM: u8 = 1 << 4;
    pub const PRESENT: u8 = 1 << 7;
    /// Writable data of ring 3, as virtual-8086 mode has it.
    pub const DATA_OF_RING3: u8 = PRESENT | 3 << 5 | NOT_SYSTEM | READ_WRITE | ACCESSED;
}

/// Selector bit that names the LDT.
const LOCAL: u16 = 1 << 2;
const DESCRIPTOR_SIZE: u32 = 8;

/// Numbers of the segment registers, in gdb's order.
pub(super) const CS: u8 = 0;
const SS: u8 = 1;

/// A segment register cannot be loaded with a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    #[error("a selector has 16 bits")]
    Wide,
    #[error("neither cs nor, outside 64-bit code, ss can be null")]
    Null,
    #[error("it is beyond the end of the {0}")]
    Limit(&'static str),
    #[error("the {table} at {:#x} cannot be read", .addr.0)]
    Memory { table: &'static str, addr: VirtAddr },
    #[error("its descriptor {0:#018x} is not marked present")]
    NotPresent(u64),
    #[error("its descriptor {descriptor:#018x} is no {wanted}")]
    Kind {
        descriptor: u64,
        wanted: &'static str,
    },
    #[error("its privilege level {rpl} is not that of its descriptor {descriptor:#018x}")]
    Privilege { descriptor: u64, rpl: u8 },
}

impl Registers {
    /// Loads segment register `number` (cs, ss, ds, es, fs, gs) with its hidden
    /// part. `read` reads linear addresses.
    ///
    /// The processor's checks against the current privilege level are left out: a
    /// user who sets cs and ss one after the other passes through states that would
    /// fail them.
    ///
    /// # Errors
    /// No vCPU could have this selector there. Nothing changes.
    pub fn load_segment(
        &mut self,
        number: u8,
        selector: u16,
        read: impl FnOnce(VirtAddr, &mut [u8]) -> bool,
    ) -> Result<(), SegmentError> {
        let old = *self.segment(number);
        let new = if self.cr0 & cr0::PE == 0 {
            // Limit and rights stay ("unreal mode" lives on that).
            Segment {
                selector,
                base: u64::from(selector) << 4,
                ..old
            }
        } else if self.rflags & rflags::VM != 0 {
            Segment {
                selector,
                base: u64::from(selector) << 4,
                limit: 0xffff,
                access: access::DATA_OF_RING3,
                ..Segment::default()
            }
        } else if selector & !3 == 0 {
            if number == CS || number == SS && !self.is_64_bit() {
                return Err(SegmentError::Null);
            }
            Segment {
                selector,
                // The privilege level, which some processors keep here.
                access: old.access & 3 << 5,
                ..Segment::default()
            }
        } else {
            let descriptor = self.descriptor(selector, read)?;
            check(number, selector, descriptor)?;
            hidden(selector, descriptor)
        };
        *self.segment_mut(number) = new;
        Ok(())
    }

    fn descriptor(
        &self,
        selector: u16,
        read: impl FnOnce(VirtAddr, &mut [u8]) -> bool,
    ) -> Result<u64, SegmentError> {
        let (table, name) = match selector & LOCAL {
            0 => (self.gdt, "GDT"),
            _ => {
                let Segment { base, limit, .. } = self.ldt;
                (Table { base, limit }, "LDT")
            }
        };
        let offset = u32::from(selector & !7);
        if offset + DESCRIPTOR_SIZE - 1 > table.limit {
            return Err(SegmentError::Limit(name));
        }
        let addr = VirtAddr(table.base.wrapping_add(offset.into()));
        let mut bytes = [0; DESCRIPTOR_SIZE as usize];
        match read(addr, &mut bytes) {
            true => Ok(u64::from_le_bytes(bytes)),
            false => Err(SegmentError::Memory { table: name, addr }),
        }
    }
}

fn access_byte(descriptor: u64) -> u8 {
    (descriptor >> 40) as u8
}

fn check(number: u8, selector: u16, descriptor: u64) -> Result<(), SegmentError> {
    let bits = access_byte(descriptor);
    let is = |mask: u8| bits & mask == mask;
    let code = is(access::NOT_SYSTEM | access::CODE);
    let data = is(access::NOT_SYSTEM) && !is(access::CODE);
    let (fits, wanted) = match number {
        CS => (code, "code segment"),
        SS => (data && is(access::READ_WRITE), "writable data segment"),
        _ => (
            data || code && is(access::READ_WRITE),
            "data or readable code segment",
        ),
    };
    if !fits {
        return Err(SegmentError::Kind { descriptor, wanted });
    }
    if !is(access::PRESENT) {
        return Err(SegmentError::NotPresent(descriptor));
    }
    let (rpl, dpl) = ((selector & 3) as u8, bits >> 5 & 3);
    let conforming = code && is(access::CONFORMING);
    let allowed = match number {
        CS if conforming => dpl <= rpl,
        CS | SS => dpl == rpl,
        _ => conforming || dpl >= rpl,
    };
    match allowed {
        true => Ok(()),
        false => Err(SegmentError::Privilege { descriptor, rpl }),
    }
}

/// The segment of a descriptor (SDM volume 3, figure 3-8).
fn hidden(selector: u16, descriptor: u64) -> Segment {
    let flag = |bit: u32| descriptor >> bit & 1 != 0;
    let base = descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000;
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    Segment {
        selector,
        base,
        limit: if flag(55) { limit << 12 | 0xfff } else { limit },
        access: access_byte(descriptor) | access::ACCESSED,
        long: flag(53),
        big: flag(54),
    }
}

#[cfg(test)]
#[path = "segments_test.rs"]
mod tests;
