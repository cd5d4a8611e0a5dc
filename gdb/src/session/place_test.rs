//! A kernel that finds its place while gdb is there, or is not.

use gdbstub::target::ext::breakpoints::HwBreakpoint;

use super::super::Stop;
use super::super::state::Action::Continue;
use super::*;
use crate::arch::Registers;
use crate::linux::testing::{isolated_at, isolation::*};
use crate::qemu::Query;
use crate::target::{Event, HwSlots, Resume, StopReason};
use crate::testing::{Hand, Scripted};

const MOVED: u64 = IMAGE + 0x1920_0000;
const VCPU: VcpuId = VcpuId(0);
/// Where a boot loader runs.
const LOADER: u64 = 0x10_0000;

/// A guest in its boot loader, with a kernel that will be at `base`.
struct Booting {
    hand: Hand,
    /// The vCPU's, once the kernel runs in its mapping.
    kernel: Registers,
}

impl Booting {
    /// The vCPU runs in the kernel's mapping.
    fn runs(&self) {
        self.hand.script().registers[0] = Registers {
            cr3: TABLES,
            ..self.kernel
        };
    }

    /// It sets GS_BASE there.
    fn begins(&self, base: u64) {
        self.runs();
        self.hand.stops(0, base + CODE, StopReason::GsBase);
    }

    /// Power-on again.
    fn resets(&self) {
        let mut script = self.hand.script();
        script.registers[0] = loader();
        script.events.push_back(Event::Reset);
    }
}

fn loader() -> Registers {
    Registers {
        rip: LOADER,
        ..Registers::default()
    }
}

fn with_booting(base: u64, test: impl FnOnce(&mut Session<'_>, &Booting)) {
    let (file, guest) = isolated_at(base);
    let (mut target, hand) = Scripted::new(&[LOADER]);
    hand.script().ram = guest.ram;
    hand.script().symbols = Some(file);
    let booting = Booting {
        hand,
        kernel: guest.registers,
    };
    let mut session = Session::new(&mut target);
    test(&mut session, &booting);
}

/// What gdb is told of offsets when it attaches.
fn offsets(session: &mut Session<'_>) -> Option<u64> {
    let answer = session.answer_query(Query::Offsets);
    let base = answer.strip_prefix("TextSeg=")?;
    Some(u64::from_str_radix(base, 16).unwrap())
}

fn next_stop(session: &mut Session<'_>) -> Option<Stop> {
    session.on_event();
    session.take_stop()
}

const ARRIVED: Option<Stop> = Some(Stop::At(VCPU, Reason::Trap));

#[test]
fn a_breakpoint_in_a_kernel_that_moves_makes_a_stop_that_tells() {
    with_booting(MOVED, |session, guest| {
        session.attach();
        assert_eq!(offsets(session), None, "nothing is known");
        assert!(matches!(
            session.add_hw_breakpoint(IMAGE + CODE, 1),
            Ok(true)
        ));
        session.start(vec![Continue]);
        assert!(guest.hand.script().gs_base);
        // Before the kernel is in its mapping.
        guest.hand.stops(0, LOADER + 2, StopReason::GsBase);
        assert_eq!(next_stop(session), None);
        guest.begins(MOVED);
        assert_eq!(next_stop(session), ARRIVED);
        assert!(!guest.hand.script().gs_base);
        let notices = session.take_notices();
        let expected = "Linux is at 0xffffffff9a200000, moved by 0x19200000, which gdb does not \
                        know: have it attach again (\"disconnect\", then \"target remote\"). \
                        The guest waits for it";
        assert_eq!(notices, [expected]);
        // It does: nothing is planted, and the guest has not run.
        let resumed = guest.hand.script().resumed.len();
        assert!(session.keep_for_gdb());
        session.attach();
        assert!(!session.is_kept_for_gdb());
        assert_eq!(offsets(session), Some(MOVED));
        assert_eq!(guest.hand.script().resumed.len(), resumed);
        assert!(matches!(
            session.add_hw_breakpoint(MOVED + CODE, 1),
            Ok(true)
        ));
        session.start(vec![Continue]);
        assert!(!guest.hand.script().gs_base, "it is known");
        assert_eq!(session.take_notices(), [] as [String; 0]);
        // Without a stop that told it to, its leave lets the guest run.
        assert!(!session.keep_for_gdb());
    });
}

#[test]
fn a_kernel_that_does_not_move_makes_no_stop() {
    with_booting(IMAGE, |session, guest| {
        session.attach();
        assert!(matches!(
            session.add_hw_breakpoint(IMAGE + CODE, 1),
            Ok(true)
        ));
        session.start(vec![Continue]);
        guest.begins(IMAGE);
        assert_eq!(next_stop(session), None);
        assert_eq!(guest.hand.resumed(), [Resume::Continue]);
        assert!(!guest.hand.script().gs_base);
        assert_eq!(session.take_notices(), [] as [String; 0]);
    });
}

#[test]
fn one_that_is_waited_for_makes_a_stop_in_any_case() {
    with_booting(IMAGE, |session, guest| {
        session.attach();
        assert!(session.await_kernel().unwrap());
        session.start(vec![Continue]);
        guest.begins(IMAGE);
        assert_eq!(next_stop(session), ARRIVED);
        let notice = "vCPU 0: Linux is at 0xffffffff81000000, where it was linked to";
        assert_eq!(session.take_notices(), [notice]);
        assert!(!session.keep_for_gdb(), "gdb has it there");
        assert!(!session.await_kernel().unwrap(), "it has its place");
    });
}

#[test]
fn after_a_reset_gdb_is_told_of_the_new_place() {
    with_booting(MOVED, |session, guest| {
        session.attach();
        session.start(vec![Continue]);
        assert!(!guest.hand.script().gs_base, "nobody waits for it");
        guest.runs();
        // At any stop it is said.
        session.interrupt();
        assert_eq!(session.take_notices().len(), 1);
        session.take_stop();
        assert!(session.keep_for_gdb());
        session.attach();
        assert_eq!(offsets(session), Some(MOVED));
        session.start(vec![Continue]);
        guest.resets();
        assert_eq!(next_stop(session), Some(Stop::At(VCPU, Reason::Reset)));
        // gdb has a breakpoint where the kernel was. It may be anywhere.
        session.take_notices();
        assert!(matches!(
            session.add_hw_breakpoint(MOVED + CODE, 1),
            Ok(true)
        ));
        session.start(vec![Continue]);
        assert!(guest.hand.script().gs_base);
        guest.begins(MOVED);
        assert_eq!(next_stop(session), None, "where it was before");
        // A gdb that attaches too early has the old place, and is told the linked one.
        guest.resets();
        next_stop(session);
        session.detach();
        session.attach();
        assert_eq!(offsets(session), Some(IMAGE));
        session.detach();
    });
}

#[test]
fn nobody_need_be_there_for_it() {
    with_booting(MOVED, |session, guest| {
        session.run_to_kernel();
        assert!(session.runs_to_kernel());
        guest.resets();
        session.on_unattended_event();
        assert!(session.runs_to_kernel(), "and again");
        guest.begins(MOVED);
        let resumed = guest.hand.script().resumed.len();
        session.on_unattended_event();
        assert!(!session.runs_to_kernel() && !session.is_running());
        assert_eq!(guest.hand.script().resumed.len(), resumed, "it stays");
        let left = Attachment::Left { crashed: false };
        let attachments = guest.hand.script().attachments.clone();
        assert_eq!(attachments, [Attachment::Tracing, left]);
        session.attach();
        assert_eq!(offsets(session), Some(MOVED));
        session.detach();
        assert_eq!(guest.hand.resumed(), [Resume::Continue]);
        assert_eq!(guest.hand.script().slots, HwSlots::default());
        assert!(!guest.hand.script().gs_base);
    });
}

#[test]
fn a_gdb_that_does_not_come_again_lets_the_guest_go() {
    with_booting(MOVED, |session, guest| {
        session.attach();
        assert!(session.await_kernel().unwrap());
        session.start(vec![Continue]);
        guest.begins(MOVED);
        assert_eq!(next_stop(session), ARRIVED);
        assert!(session.keep_for_gdb());
        let resumed = guest.hand.script().resumed.len();
        session.give_up_gdb();
        session.give_up_gdb();
        assert_eq!(guest.hand.script().resumed.len(), resumed + 1);
    });
}
