use super::*;

fn slot(addr: u64, len: u8, kind: HwKind) -> Option<HwBreakpoint> {
    Some(HwBreakpoint {
        addr: VirtAddr(addr),
        len,
        kind,
    })
}

fn execute(addr: u64) -> Option<HwBreakpoint> {
    slot(addr, 1, HwKind::Execute)
}

#[test]
fn dr7_has_enable_kind_and_length_of_each_slot() {
    // SDM volume 3, figure 19-1.
    assert_eq!(DebugSlots::NONE.dr7(), 0x400);
    let slots = DebugSlots::of(&[execute(0x1000), None, None, None]);
    assert_eq!(slots.dr7(), 0x402);
    let slots = DebugSlots::of(&[
        None,
        slot(0x1000, 4, HwKind::Write),
        None,
        slot(0x2000, 8, HwKind::Access),
    ]);
    assert_eq!(slots.dr7(), 0x400 | 0x8 | 0x80 | 0xd << 20 | 0xb << 28);
    assert_eq!(slots.addresses(), [0, 0x1000, 0, 0x2000]);
}

#[test]
fn a_step_takes_a_free_slot() {
    let mut slots = DebugSlots::of(&[execute(1), None, None, None]);
    assert_eq!(slots.stop_at(VirtAddr(5), VirtAddr(4)), None);
    assert_eq!(slots.addresses(), [1, 5, 0, 0]);
    let hits = Hits {
        step: true,
        ..Hits::default()
    };
    assert_eq!(slots.hits(0b0010), hits);
}

#[test]
fn a_breakpoint_where_the_step_ends_has_not_fired() {
    let mut slots = DebugSlots::of(&[execute(1), execute(5), None, None]);
    assert_eq!(slots.stop_at(VirtAddr(5), VirtAddr(4)), None);
    assert_eq!(slots.addresses(), [1, 5, 0, 0]);
    assert_eq!(slots.hits(0b0010).gdb, 0);
    assert!(slots.hits(0b0010).step);
}

#[test]
fn a_breakpoint_elsewhere_gives_way_before_a_watchpoint() {
    let watch = slot(0x1000, 4, HwKind::Write);
    // The first is where the vCPU is, and fires before the step.
    let mut slots = DebugSlots::of(&[execute(4), watch, execute(9), watch]);
    assert_eq!(slots.stop_at(VirtAddr(5), VirtAddr(4)), None);
    assert_eq!(slots.addresses(), [4, 0x1000, 5, 0x1000]);
    let mut slots = DebugSlots::of(&[execute(4), watch, watch, watch]);
    assert_eq!(slots.stop_at(VirtAddr(5), VirtAddr(4)), Some(3));
}

#[test]
fn the_guests_own_are_added_and_told_apart() {
    let mut slots = DebugSlots::of(&[None, execute(1), None, None]);
    // DR1: execute, locally enabled; DR3: write of 4 bytes, globally enabled.
    let guest = kvm_debugregs {
        db: [0xa, 0xb, 0xc, 0xd],
        dr7: 0x400 | 1 << 2 | 2 << 6 | 0b1101 << 28,
        ..Default::default()
    };
    assert!(slots.add_guest(&guest));
    assert_eq!(slots.addresses(), [0xb, 1, 0xd, 0]);
    assert_eq!(slots.dr7(), 0x400 | 0b10_1010 | 0b1101 << 24);
    let hits = Hits {
        gdb: 0b10,
        step: false,
        guest: 0b1010,
    };
    assert_eq!(slots.hits(0b0111), hits);
    let mut full = DebugSlots::of(&[execute(1), execute(2), execute(3), None]);
    assert!(!full.add_guest(&guest));
}
