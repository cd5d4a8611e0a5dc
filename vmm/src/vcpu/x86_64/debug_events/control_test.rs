use gdb::target::{HwBreakpoint, HwKind, VirtAddr};

use super::*;

#[test]
fn nothing_armed_leaves_no_flag() {
    let nothing = Facilities::default();
    assert_eq!(nothing.guest_debug(u32::MAX).control, 0);
}

#[test]
fn each_facility_has_its_flag() {
    let breakpoint = HwBreakpoint {
        addr: VirtAddr(0x1234),
        len: 1,
        kind: HwKind::Execute,
    };
    let all = Facilities {
        slots: DebugSlots::of(&[None, Some(breakpoint), None, None]),
        int3: true,
        trap: true,
        block_interrupts: false,
    };
    let debug = all.guest_debug(u32::MAX);
    let flags = KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_SINGLESTEP;
    assert_eq!(debug.control, KVM_GUESTDBG_ENABLE | flags);
    assert_eq!(debug.arch.debugreg, [0, 0x1234, 0, 0, 0, 0, 0, 0x408]);
}

#[test]
fn a_step_blocks_interrupts_only_where_the_host_can() {
    let step = Facilities {
        trap: true,
        block_interrupts: true,
        ..Facilities::default()
    };
    let control = |supported| step.guest_debug(supported).control;
    assert_eq!(control(0), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    assert_ne!(control(KVM_GUESTDBG_BLOCKIRQ) & KVM_GUESTDBG_BLOCKIRQ, 0);
}
