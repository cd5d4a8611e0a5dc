use gdb::target::{HwBreakpoint, HwKind, VirtAddr};
use kvm_bindings::kvm_debugregs;

use super::*;

/// gdb's in slot 0, the step's in slot 1, the guest's DR0 in slot 2.
fn slots() -> DebugSlots {
    let breakpoint = HwBreakpoint {
        addr: VirtAddr(1),
        len: 1,
        kind: HwKind::Execute,
    };
    let mut slots = DebugSlots::of(&[Some(breakpoint), None, None, None]);
    slots.stop_at(VirtAddr(2), VirtAddr(0));
    let guest = kvm_debugregs {
        db: [3, 0, 0, 0],
        dr7: 0x401,
        ..Default::default()
    };
    assert!(slots.add_guest(&guest));
    slots
}

fn verdict(dr6: u64, is_trapping: bool, guest_flag: bool) -> Verdict {
    Exception {
        // The bits that are always set.
        dr6: dr6 | 0xffff_0ff0,
        slots: &slots(),
        is_trapping,
        guest_flag,
    }
    .verdict()
}

const NOTHING: Verdict = Verdict {
    gdb: 0,
    at_end: false,
    stepped: false,
    guest: None,
};

#[test]
fn slots_are_their_owners() {
    assert_eq!(verdict(1, false, false), Verdict { gdb: 1, ..NOTHING });
    let end = Verdict {
        at_end: true,
        ..NOTHING
    };
    assert_eq!(verdict(2, false, false), end);
    let guest = Verdict {
        guest: Some(1),
        ..NOTHING
    };
    assert_eq!(verdict(4, false, false), guest);
    let both = Verdict { gdb: 1, ..guest };
    assert_eq!(verdict(5, false, false), both);
}

#[test]
fn a_trap_is_whose_flag_is_set() {
    let ours = Verdict {
        stepped: true,
        ..NOTHING
    };
    assert_eq!(verdict(dr6::STEP, true, false), ours);
    let guests = Verdict {
        guest: Some(dr6::STEP),
        ..ours
    };
    assert_eq!(verdict(dr6::STEP, false, true), guests);
    assert_eq!(verdict(dr6::STEP, true, true), guests, "and ours");
    assert_eq!(verdict(dr6::STEP, false, false), NOTHING, "KVM's own");
}

#[test]
fn what_has_no_cause_is_an_int1() {
    let int1 = Verdict {
        guest: Some(0),
        ..NOTHING
    };
    assert_eq!(verdict(0, false, false), int1);
    // A slot that is not enabled.
    assert_eq!(verdict(8, false, false), NOTHING);
}

#[test]
fn an_access_to_debug_registers_that_the_guest_wants_to_know_of_is_its_own() {
    let detected = Verdict {
        guest: Some(dr6::DETECTED),
        ..NOTHING
    };
    assert_eq!(verdict(dr6::DETECTED, false, false), detected);
}
