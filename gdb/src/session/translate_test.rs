//! A vCPU in user mode under page-table isolation.

use gdbstub::target::ext::breakpoints::{HwWatchpoint, SwBreakpoint, WatchKind};

use super::super::Session;
use super::*;
use crate::arch::BREAKPOINT;
use crate::linux::testing::{isolated, isolation::*};
use crate::target::{HwSlots, StopReason};
use crate::testing::{Hand, Scripted};

const VCPU: VcpuId = VcpuId(0);

fn with_isolated(test: impl FnOnce(&mut Session<'_>, &Hand)) {
    let (file, guest) = isolated();
    let (mut target, hand) = Scripted::new(&[USER]);
    hand.script().ram = guest.ram;
    hand.script().registers = vec![guest.registers];
    let mut session = Session::new(&mut target);
    session.guest.linux.reset(Some(file));
    session.attach();
    test(&mut session, &hand);
}

#[test]
fn the_kernel_is_read_and_written_whatever_the_vcpu_maps() {
    with_isolated(|session, hand| {
        let mut banner = vec![0; BANNER.len()];
        let read = session
            .guest
            .read_virtual(VCPU, VirtAddr(IMAGE), &mut banner);
        assert_eq!((read, &banner[..]), (BANNER.len(), BANNER));
        let written = session
            .guest
            .write_virtual(VCPU, VirtAddr(IMAGE + DATA), b"new");
        assert!(written.is_ok(), "{written:?}");
        let at = (IMAGE_PHYS + DATA) as usize;
        assert_eq!(hand.script().ram[at..][..3], *b"new");
        // Of the lower half the vCPU's own tables know all.
        let low = IMAGE & 0x7fff_ffff;
        assert_eq!(session.guest.read_virtual(VCPU, VirtAddr(low), &mut [0]), 0);
        // Where the kernel has nothing either.
        let nowhere = VirtAddr(IMAGE + 0x10_0000);
        assert_eq!(session.guest.read_virtual(VCPU, nowhere, &mut [0]), 0);
    });
}

#[test]
fn breakpoints_and_watchpoints_in_the_kernel_are_as_in_kernel_mode() {
    with_isolated(|session, hand| {
        let code = (IMAGE_PHYS + CODE) as usize;
        assert!(matches!(
            session.add_sw_breakpoint(IMAGE + CODE, 1),
            Ok(true)
        ));
        assert_eq!(hand.script().ram[code], BREAKPOINT);
        assert_eq!(
            session.guest.breakpoints.slots.to_arm(None),
            HwSlots::default()
        );
        let mut seen = [0];
        session
            .guest
            .read_virtual(VCPU, VirtAddr(IMAGE + CODE), &mut seen);
        assert_eq!(seen, [0x90], "hidden");
        let kind = WatchKind::Write;
        assert!(matches!(
            session.add_hw_watchpoint(IMAGE + DATA, 100, kind),
            Ok(true)
        ));
        let ranges = session.guest.breakpoints.watched.ranges();
        assert_eq!(ranges[0].start.0, IMAGE_PHYS + DATA);
        // The hit is gdb's, though the vCPU's tables are still those of user mode,
        // as in the first instructions of an entry to the kernel.
        session.start(vec![super::super::state::Action::Continue]);
        hand.script().registers[0].cs.selector = 0x10;
        hand.stops(0, IMAGE + CODE, StopReason::Int3);
        session.on_event();
        let reason = super::super::stop::Reason::Software;
        let stop = super::super::Stop::At(VCPU, reason);
        assert_eq!(session.take_stop(), Some(stop));
        assert!(matches!(
            session.remove_sw_breakpoint(IMAGE + CODE, 1),
            Ok(true)
        ));
        assert_eq!(hand.script().ram[code], 0x90);
    });
}
