use gdb::arch::Segment;

use super::*;
use crate::memory;

const STACK: u64 = 0xffff_c900_0010_0000;
const ROOT: u64 = 0x10_0000;

/// Maps pages at [`STACK`], each to the physical page given.
fn map(memory: &GuestMemory, pages: &[(u64, u64)]) {
    let put = |at: u64, entry: u64| memory.write_obj(entry, GuestAddress(at)).unwrap();
    for level in [4, 3, 2] {
        let table = ROOT + (4 - level) * 0x1000;
        let index = STACK >> (12 + 9 * (level - 1)) & 511;
        put(table + index * 8, (table + 0x1000) | 3);
    }
    for (n, phys) in pages {
        let index = (STACK >> 12 & 511) + n;
        put(ROOT + 0x3000 + index * 8, phys | 3);
    }
}

fn vcpu(rsp: u64) -> Registers {
    let mut vcpu = Registers {
        cr0: 1 << 31 | 1,
        cr3: ROOT,
        cr4: 1 << 5,
        efer: 1 << 10 | 1 << 8,
        cs: Segment {
            long: true,
            ..Segment::default()
        },
        ..Registers::default()
    };
    vcpu.gpr[7] = rsp;
    vcpu
}

#[test]
fn a_stack_is_what_is_mapped_from_its_pointer_up_and_leads_to_the_one_before() {
    let memory = memory::allocate(memory::MIN_SIZE).unwrap();
    // Two pages of an interrupt's stack, a guard page, and a task's stack.
    map(
        &memory,
        &[(0, 0x5000), (1, 0x9000), (3, 0x7000), (4, 0x6000)],
    );
    let task = STACK + 0x4f00;
    memory.write_obj(task, GuestAddress(0x9ff8)).unwrap();
    let page = |virt, phys| StackPage { virt, phys };
    let expected = [
        page(STACK, 0x5000),
        page(STACK + 0x1000, 0x9000),
        page(STACK + 0x4000, 0x6000),
    ];
    // Two vCPUs on one stack are nothing that is told twice.
    let vcpus = [vcpu(STACK + 0x10), vcpu(STACK + 0x1800)];
    assert_eq!(pages(&memory, &vcpus), expected);
}

#[test]
fn user_code_and_wild_pointers_have_none() {
    let memory = memory::allocate(memory::MIN_SIZE).unwrap();
    map(&memory, &[(0, 0x5000)]);
    let wild = [vcpu(0x7fff_0000), vcpu(STACK + 0x5000), vcpu(u64::MAX)];
    assert_eq!(pages(&memory, &wild), []);
    // A stack whose first word points into itself.
    memory.write_obj(STACK, GuestAddress(0x5ff8)).unwrap();
    assert_eq!(pages(&memory, &[vcpu(STACK)]).len(), 1);
}
