use std::collections::BTreeMap;

use super::*;
use crate::address::VirtAddr;
use crate::x86_64::{Segment, Table, cr0, cr4, efer, msr, rflags};

const RIP: u64 = 0x1000;
const STACK: u64 = 0x8000;
const IDT: u64 = 0x4000;
const GDT: u64 = 0x5000;
const KERNEL: u16 = 0x08;
const USER: u16 = 0x1b;

/// Memory from 0 and some MSRs.
struct Toy {
    ram: Vec<u8>,
    msrs: BTreeMap<u32, u64>,
}

impl Guest for Toy {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> bool {
        let start = addr.0 as usize;
        let bytes = start
            .checked_add(buf.len())
            .and_then(|end| self.ram.get(start..end));
        bytes.inspect(|bytes| buf.copy_from_slice(bytes)).is_some()
    }

    fn msr(&self, index: u32) -> Option<u64> {
        self.msrs.get(&index).copied()
    }
}

impl Toy {
    fn put(&mut self, addr: u64, value: u64) {
        self.ram[addr as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }

    /// A gate of an IDT in long mode.
    fn gate(&mut self, vector: u64, handler: u64, dpl: u64) {
        let low = handler & 0xffff
            | u64::from(KERNEL) << 16
            | (0x8e | dpl << 5) << 40
            | (handler >> 16 & 0xffff) << 48;
        self.put(IDT + vector * 16, low);
        self.put(IDT + vector * 16 + 8, handler >> 32);
    }
}

/// A vCPU in 64-bit code of ring 0 in front of `code`.
fn at(code: &[u8]) -> (Registers, Toy) {
    let mut toy = Toy {
        ram: vec![0; 0x1_0000],
        msrs: BTreeMap::new(),
    };
    toy.ram[RIP as usize..][..code.len()].copy_from_slice(code);
    toy.put(GDT + 8, 0x00af_9b00_0000_ffff);
    toy.put(GDT + 24, 0x00af_fb00_0000_ffff);
    let mut registers = Registers {
        rip: RIP,
        rflags: 2,
        cr0: cr0::PE,
        efer: efer::LMA | efer::SCE,
        cs: code_segment(KERNEL),
        gdt: Table {
            base: GDT,
            limit: 39,
        },
        idt: Table {
            base: IDT,
            limit: 0xfff,
        },
        ..Registers::default()
    };
    registers.gpr = std::array::from_fn(|n| 0x100 * (n as u64 + 1));
    registers.gpr[7] = STACK;
    (registers, toy)
}

fn code_segment(selector: u16) -> Segment {
    Segment {
        selector,
        long: true,
        ..Segment::default()
    }
}

/// Where `code` ends, relative to its start.
#[track_caller]
fn end(code: &[u8]) -> (i64, Option<u64>) {
    let (registers, toy) = at(code);
    match Plan::of(&registers, &toy) {
        Plan::Run(end) => (end.at.0.wrapping_sub(RIP) as i64, end.rsp),
        plan => panic!("{plan:?}"),
    }
}

#[test]
fn most_end_behind_themselves() {
    for code in [
        &[0x90][..],                                    // nop
        &[0x48, 0x89, 0x03],                            // mov %rax,(%rbx)
        &[0xf3, 0xa4],                                  // rep movsb
        &[0xee],                                        // out %al,(%dx)
        &[0xf3, 0x6e],                                  // rep outsb
        &[0x0f, 0x01, 0xc1],                            // vmcall
        &[0x0f, 0x30],                                  // wrmsr
        &[0xfb],                                        // sti
        &[0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0], // mov %gs:0x28,%rax
        &[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x03],          // vmovups (%rbx),%zmm0
    ] {
        assert_eq!(end(code), (code.len() as i64, Some(STACK)), "{code:02x?}");
    }
}

#[test]
fn what_the_stack_pointer_is_then_is_known_unless_it_is_loaded() {
    assert_eq!(end(&[0x9c]), (1, Some(STACK - 8)), "pushfq");
    assert_eq!(end(&[0x9d]), (1, Some(STACK + 8)), "popfq");
    assert_eq!(end(&[0x66, 0x50]), (2, Some(STACK - 2)), "push %ax");
    assert_eq!(end(&[0x48, 0x89, 0xc4]), (3, None), "mov %rax,%rsp");
    assert_eq!(end(&[0x48, 0x87, 0xe0]), (3, None), "xchg %rax,%rsp");
    assert_eq!(end(&[0x5c]), (1, None), "pop %rsp");
    assert_eq!(end(&[0xc9]), (1, None), "leave");
}

#[test]
fn branches_end_where_they_lead() {
    assert_eq!(end(&[0xeb, 0x10]), (0x12, Some(STACK)), "jmp");
    assert_eq!(end(&[0xe8, 0, 1, 0, 0]), (0x105, Some(STACK - 8)), "call");
    let (rax, next) = (0x100 - RIP as i64, 2);
    assert_eq!(end(&[0xff, 0xe0]), (rax, Some(STACK)), "jmp *%rax");
    assert_eq!(end(&[0xff, 0xd0]), (rax, Some(STACK - 8)), "call *%rax");
    // rcx is 0x300, zero it is not; and all flags are clear.
    assert_eq!(end(&[0xe3, 0x10]), (next, Some(STACK)), "jrcxz");
    assert_eq!(end(&[0x74, 0x10]), (next, Some(STACK)), "je");
    assert_eq!(end(&[0x75, 0x10]), (0x12, Some(STACK)), "jne");
}

#[test]
fn branches_through_memory_are_followed() {
    // jmp *8(%rbx,%rcx,2), call *(%rip+0x100), ret, ret $0x10
    let cases: [(&[u8], u64, u64); 4] = [
        (&[0xff, 0x64, 0x4b, 0x08], 0x200 + 2 * 0x300 + 8, STACK),
        (&[0xff, 0x15, 0, 1, 0, 0], RIP + 6 + 0x100, STACK - 8),
        (&[0xc3], STACK, STACK + 8),
        (&[0xc2, 0x10, 0], STACK, STACK + 0x18),
    ];
    for (code, place, rsp) in cases {
        let (registers, mut toy) = at(code);
        toy.put(place, 0xffff_8000_1234_5678);
        let expected = End {
            at: VirtAddr(0xffff_8000_1234_5678),
            cpl: 0,
            rsp: Some(rsp),
        };
        assert_eq!(
            Plan::of(&registers, &toy),
            Plan::Run(expected),
            "{code:02x?}"
        );
    }
}

#[test]
fn each_condition_goes_by_its_flags() {
    // The 16 conditions by number, and flags with which they hold.
    let flags = [
        rflags::OF,
        0,
        rflags::CF,
        0,
        rflags::ZF,
        0,
        rflags::ZF,
        0,
        rflags::SF,
        0,
        rflags::PF,
        0,
        rflags::SF,
        rflags::SF | rflags::OF,
        rflags::OF,
        0,
    ];
    for (number, flags) in flags.into_iter().enumerate() {
        for (condition, taken) in [(number, true), (number ^ 1, false)] {
            let (mut registers, toy) = at(&[0x70 | condition as u8, 0x10]);
            registers.rflags = flags;
            let Plan::Run(end) = Plan::of(&registers, &toy) else {
                panic!("{condition}");
            };
            let expected = if taken { RIP + 0x12 } else { RIP + 2 };
            assert_eq!(
                end.at.0, expected,
                "condition {condition}, flags {flags:#x}"
            );
        }
    }
}

#[test]
fn a_jump_to_itself_takes_the_trap_flag() {
    let trap = Plan::Trap { guest: false };
    for code in [
        &[0xeb, 0xfe][..],
        &[0xe2, 0xfe],
        &[0xe8, 0xfb, 0xff, 0xff, 0xff],
    ] {
        let (registers, toy) = at(code);
        assert_eq!(Plan::of(&registers, &toy), trap, "{code:02x?}");
    }
}

#[test]
fn system_calls_end_at_their_entry() {
    let (mut registers, mut toy) = at(&[0x0f, 0x05]);
    registers.cs = code_segment(USER);
    toy.msrs.insert(msr::IA32_LSTAR, 0x7000);
    toy.msrs.insert(msr::IA32_CSTAR, 0x7100);
    toy.msrs.insert(msr::IA32_SYSENTER_EIP, 0x7200);
    let entry = |at| {
        Plan::Run(End {
            at: VirtAddr(at),
            cpl: 0,
            rsp: None,
        })
    };
    assert_eq!(Plan::of(&registers, &toy), entry(0x7000));
    registers.cs.long = false;
    registers.cs.big = true;
    assert_eq!(Plan::of(&registers, &toy), entry(0x7100));
    toy.ram[RIP as usize + 1] = 0x34;
    assert_eq!(Plan::of(&registers, &toy), entry(0x7200), "sysenter");
}

#[test]
fn returns_from_system_calls_end_in_ring_3() {
    for (code, rip, rsp) in [
        (&[0x48, 0x0f, 0x07][..], 0x1_0000_0300, None),
        (&[0x0f, 0x07], 0x300, None),
        (&[0x48, 0x0f, 0x35], 0x400, Some(0x1_0000_0300)),
    ] {
        let (mut registers, toy) = at(code);
        registers.gpr[2] = 0x1_0000_0300;
        let expected = End {
            at: VirtAddr(rip),
            cpl: 3,
            rsp,
        };
        assert_eq!(
            Plan::of(&registers, &toy),
            Plan::Run(expected),
            "{code:02x?}"
        );
    }
}

#[test]
fn software_interrupts_end_at_their_handler() {
    let handler = 0xffff_ffff_8100_1230;
    for (code, vector) in [(&[0xcd, 0x80][..], 0x80), (&[0xcc], 3), (&[0x0f, 0x0b], 6)] {
        let (mut registers, mut toy) = at(code);
        toy.gate(vector, handler, 3);
        let expected = Plan::Run(End {
            at: VirtAddr(handler),
            cpl: 0,
            rsp: None,
        });
        for selector in [KERNEL, USER] {
            registers.cs = code_segment(selector);
            assert_eq!(Plan::of(&registers, &toy), expected, "{code:02x?}");
        }
    }
    // Not for ring 3: a general protection exception.
    let (mut registers, mut toy) = at(&[0xcd, 0x80]);
    toy.gate(0x80, handler, 0);
    toy.gate(13, 0x6000, 0);
    let end = |registers: &Registers, toy: &Toy| match Plan::of(registers, toy) {
        Plan::Run(end) => end.at.0,
        plan => panic!("{plan:?}"),
    };
    assert_eq!(end(&registers, &toy), handler);
    registers.cs = code_segment(USER);
    assert_eq!(end(&registers, &toy), 0x6000);
}

#[test]
fn under_fred_events_have_two_handlers() {
    let (mut registers, mut toy) = at(&[0xcd, 0x80]);
    registers.cr4 = cr4::FRED;
    toy.msrs.insert(msr::IA32_FRED_CONFIG, 0x7003);
    for (selector, at) in [(KERNEL, 0x7100), (USER, 0x7000)] {
        registers.cs = code_segment(selector);
        let Plan::Run(end) = Plan::of(&registers, &toy) else {
            panic!("no end");
        };
        assert_eq!(end.at.0, at);
    }
}

/// A return from an interrupt to ring 3 at 0x2000.
fn interrupt_return(flags: u64) -> Plan {
    let (registers, mut toy) = at(&[0x48, 0xcf]);
    for (n, word) in [0x2000, USER.into(), flags, 0x9000, 0x23]
        .into_iter()
        .enumerate()
    {
        toy.put(STACK + n as u64 * 8, word);
    }
    Plan::of(&registers, &toy)
}

#[test]
fn a_return_from_an_interrupt_ends_where_it_was() {
    let end = End {
        at: VirtAddr(0x2000),
        cpl: 3,
        rsp: Some(0x9000),
    };
    assert_eq!(interrupt_return(2), Plan::Run(end));
    assert_eq!(interrupt_return(2 | rflags::TF), Plan::Run(end));
    let resume = |guest| Plan::Resume { end, guest };
    assert_eq!(interrupt_return(2 | rflags::RF), resume(false));
    assert_eq!(interrupt_return(2 | rflags::RF | rflags::TF), resume(true));
}

#[test]
fn instructions_with_a_plan_of_their_own() {
    let plan = |code: &[u8]| {
        let (registers, toy) = at(code);
        Plan::of(&registers, &toy)
    };
    assert_eq!(plan(&[0xf4]), Plan::Halt { len: 1 });
    assert_eq!(plan(&[0xf1]), Plan::Int1 { len: 1 });
    assert_eq!(plan(&[0x66, 0xf1]), Plan::Int1 { len: 2 });
    assert_eq!(
        plan(&[0x8e, 0xd0]),
        Plan::Trap { guest: false },
        "mov %eax,%ss"
    );
    let (mut registers, toy) = at(&[0xf4]);
    registers.cs = code_segment(USER);
    assert!(
        matches!(Plan::of(&registers, &toy), Plan::Run(_)),
        "may not halt"
    );
}

#[test]
fn what_cannot_be_read_is_fetched_first() {
    let (mut registers, mut toy) = at(&[]);
    toy.gate(14, 0x6000, 0);
    toy.gate(6, 0x6100, 0);
    let handler = |at| End {
        at: VirtAddr(at),
        cpl: 0,
        rsp: None,
    };
    let fetch = Plan::Fetch {
        handler: handler(0x6000),
    };
    registers.rip = 0x1_0000;
    assert_eq!(Plan::of(&registers, &toy), fetch);
    // Half of it is there.
    registers.rip = 0xffff;
    toy.ram[0xffff] = 0x48;
    assert_eq!(Plan::of(&registers, &toy), fetch);
    // It is none.
    registers.rip = 0x2000;
    toy.ram[0x2000] = 0x06;
    assert_eq!(Plan::of(&registers, &toy), Plan::Run(handler(0x6100)));
    registers.rflags |= rflags::TF;
    registers.efer = 0;
    registers.rip = 0x1_0000;
    assert_eq!(Plan::of(&registers, &toy), Plan::Trap { guest: true });
    // The last byte of what can be read.
    let (mut registers, mut toy) = at(&[]);
    registers.rip = 0xffff;
    toy.ram[0xffff] = 0x90;
    assert!(matches!(Plan::of(&registers, &toy), Plan::Run(_)));
}

#[test]
fn code_of_16_bits_is_relative_to_its_segment() {
    // jmp, int $0x10, ljmp $0x1234:$0x10
    let cases: [(&[u8], u64); 3] = [
        (&[0xeb, 0x10], 0x1_0000 + RIP + 0x12),
        (&[0xcd, 0x10], 0xf_0123),
        (&[0xea, 0x10, 0, 0x34, 0x12], 0x1_2350),
    ];
    for (code, at_) in cases {
        let (mut registers, mut toy) = at(&[]);
        toy.ram.resize(0x2_0000, 0);
        toy.ram[0x1_0000 + RIP as usize..][..code.len()].copy_from_slice(code);
        toy.ram[0x40..0x44].copy_from_slice(&[0x23, 0x01, 0x00, 0xf0]);
        registers.cr0 = 0;
        registers.efer = 0;
        registers.idt = Table {
            base: 0,
            limit: 0x3ff,
        };
        registers.cs = Segment {
            selector: 0x1000,
            base: 0x1_0000,
            ..Segment::default()
        };
        let Plan::Run(end) = Plan::of(&registers, &toy) else {
            panic!("{code:02x?}");
        };
        assert_eq!((end.at.0, end.rsp), (at_, None), "{code:02x?}");
    }
}
