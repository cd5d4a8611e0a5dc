use super::*;
use crate::x86_64::{Table, efer};

const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const CODE_OF_RING3: u64 = 0x00cf_fb00_0000_ffff;
/// Base 0x12345678, limit 0x9abcd bytes, not yet accessed.
const ODD_DATA: u64 = 0x1249_9234_5678_abcd;
const TASK: u64 = 0x0000_8900_0000_0067;
const ABSENT_DATA: u64 = 0x00cf_1300_0000_ffff;

const GDT: [u64; 7] = [0, CODE_64, DATA, CODE_OF_RING3, ODD_DATA, TASK, ABSENT_DATA];
const GDT_AT: u64 = 0xffff_8000_0000_1000;

fn protected() -> Registers {
    let mut registers = Registers {
        cr0: cr0::PE,
        gdt: Table {
            base: GDT_AT,
            limit: 8 * GDT.len() as u32 - 1,
        },
        ldt: Segment {
            base: 0x9000,
            limit: 7,
            ..Segment::default()
        },
        ..Registers::default()
    };
    registers.cs.selector = 8;
    registers
}

fn read(addr: VirtAddr, buf: &mut [u8]) -> bool {
    let descriptor = match addr.0.checked_sub(GDT_AT) {
        Some(offset) => GDT[offset as usize / 8],
        None if addr.0 == 0x9000 => DATA,
        None => return false,
    };
    buf.copy_from_slice(&descriptor.to_le_bytes());
    true
}

#[test]
fn the_hidden_part_comes_from_the_descriptor() {
    let mut registers = protected();
    registers.load_segment(2, 0x20, read).unwrap();
    let expected = Segment {
        selector: 0x20,
        base: 0x1234_5678,
        limit: 0x9_abcd,
        access: 0x93,
        long: false,
        big: true,
    };
    assert_eq!(registers.ds, expected, "and is marked accessed");
    registers.load_segment(0, 8, read).unwrap();
    assert_eq!((registers.cs.limit, registers.cs.access), (u32::MAX, 0x9b));
    assert!(registers.cs.long && !registers.cs.big);
    registers.load_segment(1, 0x10, read).unwrap();
    registers.load_segment(0, 0x1b, read).unwrap();
    assert_eq!(registers.cpl(), 3);
    registers.load_segment(3, 4, read).unwrap();
    assert_eq!(
        (registers.es.selector, registers.es.access),
        (4, 0x93),
        "LDT"
    );
}

#[test]
fn what_no_vcpu_can_load_is_refused_and_changes_nothing() {
    use SegmentError::*;
    let before = protected();
    let code = "code segment";
    let refusals = [
        (0, 0, Null),
        (1, 3, Null),
        (2, 0x38, Limit("GDT")),
        (2, 0x0c, Limit("LDT")),
        (2, 0x28, kind(TASK, "data or readable code segment")),
        (2, 0x30, NotPresent(ABSENT_DATA)),
        (0, 0x10, kind(DATA, code)),
        (1, 8, kind(CODE_64, "writable data segment")),
        (0, 0x0b, privilege(CODE_64, 3)),
        (0, 0x18, privilege(CODE_OF_RING3, 0)),
        (1, 0x13, privilege(DATA, 3)),
        (2, 0x13, privilege(DATA, 3)),
    ];
    for (number, selector, error) in refusals {
        let mut registers = before;
        let refused = registers.load_segment(number, selector, read);
        assert_eq!(refused, Err(error), "{number} {selector:#x}");
        assert_eq!(registers, before);
    }
    let mut registers = before;
    registers.gdt.base = 0x5000;
    let refused = registers.load_segment(2, 0x10, read);
    let addr = VirtAddr(0x5010);
    assert_eq!(refused, Err(Memory { table: "GDT", addr }));
}

fn kind(descriptor: u64, wanted: &'static str) -> SegmentError {
    SegmentError::Kind { descriptor, wanted }
}

fn privilege(descriptor: u64, rpl: u8) -> SegmentError {
    SegmentError::Privilege { descriptor, rpl }
}

#[test]
fn real_mode_and_virtual_8086_mode_have_no_descriptors() {
    let nothing = |_: VirtAddr, _: &mut [u8]| false;
    let mut registers = protected();
    registers.cr0 = 0;
    registers.ds.limit = u32::MAX;
    registers.load_segment(2, 0xb800, nothing).unwrap();
    assert_eq!(
        (registers.ds.base, registers.ds.limit),
        (0xb_8000, u32::MAX)
    );
    registers.cr0 = cr0::PE;
    registers.rflags = rflags::VM;
    registers.load_segment(2, 0xf000, nothing).unwrap();
    let ds = registers.ds;
    assert_eq!((ds.base, ds.limit, ds.access), (0xf_0000, 0xffff, 0xf3));
}

#[test]
fn a_null_selector_makes_a_segment_unusable() {
    let mut registers = protected();
    registers.fs.base = 0x1234;
    registers.load_segment(4, 0, read).unwrap();
    assert_eq!(registers.fs, Segment::default());
    registers.efer = efer::LMA;
    registers.cs.long = true;
    registers.load_segment(1, 0, read).unwrap();
    assert_eq!(registers.ss.selector, 0, "64-bit code may");
}
