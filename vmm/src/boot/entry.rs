//! The boot vCPU's registers and the tables they point to.

use devices::virtio::GuestMemory;
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::error::Error;
use crate::kvm;
use crate::layout;
use crate::vcpu::Vcpu;

// SDM volume 3, 2.5 and 2.2.1.
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS_RESERVED: u64 = 1 << 1;

// Page table entries (SDM volume 3, 4.5).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const ENTRIES: u64 = 512;
/// Page directories: one for each of the first 4 GiB.
const DIRECTORIES: u64 = 4;

/// Selectors of Linux' boot protocols: __BOOT_CS and __BOOT_DS.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

/// Segment types (SDM volume 3, 3.4.5.1 and 3.5), accessed or busy.
const TYPE_CODE: u8 = 0xb;
const TYPE_DATA: u8 = 0x3;
const TYPE_TASK: u8 = 0xb;

/// How the boot vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode without paging, start info in RBX.
    Pvh { rip: u64 },
    /// 32-bit protected mode without paging, zero page in RSI.
    Linux32 { rip: u64 },
    /// 64-bit mode with identity paging, zero page in RSI.
    Linux64 { rip: u64 },
}

/// Writes descriptor and page tables.
pub fn write_tables(memory: &GuestMemory, entry: Entry) -> Result<(), Error> {
    let long = matches!(entry, Entry::Linux64 { .. });
    for (segment, selector) in [
        (code(long), CODE_SELECTOR),
        (data(), DATA_SELECTOR),
        (task(), TASK_SELECTOR),
    ] {
        let address = GuestAddress(layout::GDT.0 + u64::from(selector));
        memory.write_obj(descriptor(&segment), address)?;
    }
    if long {
        write_page_tables(memory)?;
    }
    Ok(())
}

/// Identity map of the first 4 GiB, as the 64-bit boot protocol requires for
/// everything that the loader hands over.
fn write_page_tables(memory: &GuestMemory) -> Result<(), Error> {
    let table = |n: u64| layout::PAGE_TABLES.0 + n * 0x1000;
    let slot = |table: u64, index: u64| GuestAddress(table + index * 8);
    memory.write_obj(table(1) | PRESENT | WRITABLE, slot(table(0), 0))?;
    for directory in 0..DIRECTORIES {
        let address = table(2 + directory);
        memory.write_obj(address | PRESENT | WRITABLE, slot(table(1), directory))?;
        let mut entries = Vec::with_capacity(4096);
        for index in 0..ENTRIES {
            let page = (directory * ENTRIES + index) << 21;
            entries.extend((page | PRESENT | WRITABLE | LARGE).to_le_bytes());
        }
        memory.write_slice(&entries, GuestAddress(address))?;
    }
    Ok(())
}

/// Sets general and system registers for `entry`.
pub fn set_registers(vcpu: &Vcpu, entry: Entry) -> Result<(), kvm::Error> {
    let mut sregs = vcpu.sregs()?;
    let regs = registers(entry);
    set_system_registers(&mut sregs, entry);
    vcpu.set_boot_state(&regs, &sregs)
}

/// Interrupts are off, and registers that no protocol defines are 0.
fn registers(entry: Entry) -> kvm_regs {
    let mut regs = kvm_regs {
        rflags: RFLAGS_RESERVED,
        rsp: layout::BOOT_STACK,
        ..Default::default()
    };
    match entry {
        Entry::Pvh { rip } => {
            regs.rip = rip;
            regs.rbx = layout::PVH_START_INFO.0;
        }
        Entry::Linux32 { rip } | Entry::Linux64 { rip } => {
            regs.rip = rip;
            regs.rsi = layout::ZERO_PAGE.0;
        }
    }
    regs
}

fn set_system_registers(sregs: &mut kvm_sregs, entry: Entry) {
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    let long = matches!(entry, Entry::Linux64 { .. });
    if long {
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = layout::PAGE_TABLES.0;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }
    set_segments(sregs, long);
}

fn set_segments(sregs: &mut kvm_sregs, long: bool) {
    sregs.cs = code(long);
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data();
    }
    sregs.tr = task();
    sregs.gdt.base = layout::GDT.0;
    sregs.gdt.limit = TASK_SELECTOR + 7;
    sregs.idt.limit = 0;
}

fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

fn code(long: bool) -> kvm_segment {
    kvm_segment {
        l: long.into(),
        db: (!long).into(),
        ..flat(CODE_SELECTOR, TYPE_CODE)
    }
}

fn data() -> kvm_segment {
    kvm_segment {
        db: 1,
        ..flat(DATA_SELECTOR, TYPE_DATA)
    }
}

fn task() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        s: 0,
        g: 0,
        ..flat(TASK_SELECTOR, TYPE_TASK)
    }
}

/// The 8-byte descriptor of a segment (SDM volume 3, figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g != 0 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let bit = |value: u8, shift: u32| u64::from(value) << shift;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | bit(segment.type_, 40)
        | bit(segment.s, 44)
        | bit(segment.dpl, 45)
        | bit(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
        | (segment.base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_well_known_flat_ones() {
        assert_eq!(descriptor(&code(true)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&code(false)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task()), 0x0000_8b00_0000_0067);
    }

    /// Linux: Documentation/arch/x86/boot.rst, "32-bit Boot Protocol".
    #[test]
    fn a_32_bit_linux_is_entered_as_its_protocol_says() {
        let entry = Entry::Linux32 { rip: 0x10_0000 };
        let regs = registers(entry);
        assert_eq!(regs.rip, 0x10_0000);
        assert_eq!(regs.rsi, layout::ZERO_PAGE.0);
        assert_eq!((regs.rbp, regs.rdi, regs.rbx), (0, 0, 0));
        assert_eq!(regs.rflags, 2, "interrupts are off");
        let mut sregs = kvm_sregs {
            efer: EFER_LME | EFER_LMA,
            cr4: CR4_PAE,
            ..Default::default()
        };
        set_system_registers(&mut sregs, entry);
        assert_eq!(sregs.cr0 & (CR0_PE | CR0_PG), CR0_PE, "no paging");
        assert_eq!((sregs.cr4, sregs.efer), (0, 0));
        let flat = |segment: &kvm_segment| (segment.base, segment.limit, segment.g, segment.db);
        assert_eq!((sregs.cs.selector, sregs.cs.l), (0x10, 0));
        assert_eq!(sregs.cs.type_ & 0xa, 0xa, "execute and read");
        assert_eq!(flat(&sregs.cs), (0, 0xffff_ffff, 1, 1));
        for segment in [&sregs.ds, &sregs.es, &sregs.ss] {
            assert_eq!(segment.selector, 0x18);
            assert_eq!(segment.type_ & 0xa, 2, "read and write");
            assert_eq!(flat(segment), (0, 0xffff_ffff, 1, 1));
        }
        assert_eq!(sregs.gdt.base, layout::GDT.0);
    }

    #[test]
    fn the_selectors_of_the_protocol_are_in_the_table() {
        let memory = crate::memory::allocate(crate::memory::MIN_SIZE).unwrap();
        for (entry, code) in [
            (Entry::Linux32 { rip: 0 }, 0x00cf_9b00_0000_ffff_u64),
            (Entry::Linux64 { rip: 0 }, 0x00af_9b00_0000_ffff),
        ] {
            write_tables(&memory, entry).unwrap();
            let at = |selector| GuestAddress(layout::GDT.0 + selector);
            assert_eq!(memory.read_obj::<u64>(at(0x10)).unwrap(), code);
            let data = memory.read_obj::<u64>(at(0x18)).unwrap();
            assert_eq!(data, 0x00cf_9300_0000_ffff);
        }
    }
}
