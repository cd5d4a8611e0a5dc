use gdb::target::{HwBreakpoint, VirtAddr};

use super::*;

fn slot(addr: u64, len: u8, kind: HwKind) -> Option<HwBreakpoint> {
    Some(HwBreakpoint {
        addr: VirtAddr(addr),
        len,
        kind,
    })
}

#[test]
fn dr7_has_enable_kind_and_length_of_each_slot() {
    // SDM volume 3, figure 18-1.
    assert_eq!(dr7(&[None; 4]), 0x400);
    let slots = [slot(0x1000, 1, HwKind::Execute), None, None, None];
    assert_eq!(dr7(&slots), 0x402);
    let slots = [
        None,
        slot(0x1000, 4, HwKind::Write),
        None,
        slot(0x2000, 8, HwKind::Access),
    ];
    assert_eq!(dr7(&slots), 0x400 | 0x8 | 0x80 | 0xd << 20 | 0xb << 28);
}

#[test]
fn nothing_armed_leaves_no_flag() {
    assert_eq!(guest_debug(&DebugControl::default(), u32::MAX).control, 0);
}

#[test]
fn a_step_blocks_interrupts_only_where_the_host_can() {
    let step = DebugControl {
        step: true,
        ..Default::default()
    };
    let control = |supported| guest_debug(&step, supported).control;
    assert_eq!(control(0), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    assert_ne!(control(KVM_GUESTDBG_BLOCKIRQ) & KVM_GUESTDBG_BLOCKIRQ, 0);
}
