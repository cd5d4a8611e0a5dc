//! Hits of breakpoints with conditions and commands, event by event.

use gdbstub::target::ext::breakpoints::{HwBreakpoint, SwBreakpoint};

use super::*;
use crate::session::state::Action::{Continue, Hold};
use crate::session::stop::Reason;
use crate::session::tests::{X, Y, at, events, with_session};
use crate::target::Resume;
use crate::target::StopReason::{Int3, Step};

/// RAX (register 0) is 5.
const RAX_IS_5: &str = "X7,260000220513 27";
/// A byte that cannot be read, by physical addresses, as here.
const FAULTS: &str = "X7,2400ffffff17 27";
/// `printf ("rax %d\n", $rax)`.
const PRINTS: &str = "X15,260000220022003401000972617820 25645c6e0027";

/// Plants what the packet asks for, which may have blanks.
fn plant(session: &mut Session<'_>, packet: &str) {
    let packet = packet.replace(' ', "");
    let (place, program) = Program::parse(packet.as_bytes()).unwrap().unwrap();
    session.set_program(place, program).unwrap();
    let inserted = match place.kind {
        Kind::Software => session.add_sw_breakpoint(place.addr.0, 1),
        Kind::Hardware => session.add_hw_breakpoint(place.addr.0, 1),
    };
    assert!(matches!(inserted, Ok(true)));
}

/// A vCPU that has started at X, with `rax`.
fn with_rax(rax: u64, packet: &str, test: impl FnOnce(&mut Session<'_>, &crate::testing::Hand)) {
    with_session(&[X, X], |session, hand| {
        hand.script().registers[0].gpr[0] = rax;
        plant(session, packet);
        session.start(vec![Continue, Hold]);
        hand.stops(0, Y, Int3);
        test(session, hand);
    });
}

/// The vCPU has stepped past the breakpoint at Y, and all continue.
fn expect_past(session: &mut Session<'_>, hand: &crate::testing::Hand) {
    assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
    hand.stops(0, Y + 1, Step);
    assert_eq!(events(session), None);
    assert_eq!(hand.resumed(), [Resume::Continue, Resume::Hold]);
}

#[test]
fn gdb_hears_of_hits_whose_condition_holds() {
    let packet = format!("Z0,{Y:x},1;{RAX_IS_5}");
    with_rax(5, &packet, |session, _| {
        assert_eq!(events(session), at(0, Reason::Software));
    });
    with_rax(4, &packet, |session, hand| {
        assert_eq!(events(session), None);
        expect_past(session, hand);
    });
}

#[test]
fn one_condition_of_several_is_enough() {
    let packet = format!("Z0,{Y:x},1;X3,220027 {RAX_IS_5}");
    with_rax(5, &packet, |session, _| {
        assert_eq!(events(session), at(0, Reason::Software));
    });
}

#[test]
fn a_condition_that_cannot_be_evaluated_stops_for_gdb_to_decide() {
    for fails in [FAULTS, "X1,ff", "X3,210000", "X1,02"] {
        with_rax(0, &format!("Z0,{Y:x},1;{fails}"), |session, _| {
            assert_eq!(events(session), at(0, Reason::Software), "{fails}");
        });
    }
}

#[test]
fn a_breakpoint_without_a_condition_beside_one_with_stops() {
    let packet = format!("Z0,{Y:x},1;{RAX_IS_5}");
    with_session(&[X], |session, hand| {
        plant(session, &packet);
        plant(session, &format!("Z1,{Y:x},1"));
        session.start(vec![Continue]);
        hand.stops(0, Y, Int3);
        assert_eq!(events(session), at(0, Reason::Software));
    });
}

#[test]
fn commands_run_in_place_of_a_stop() {
    let packet = format!("Z0,{Y:x},1;cmds:0,{PRINTS}");
    with_rax(7, &packet, |session, hand| {
        assert_eq!(events(session), None);
        expect_past(session, hand);
        assert_eq!(session.take_printed(), "rax 7\n");
        assert_eq!(session.take_printed(), "");
        hand.stops(0, Y, Int3);
        assert_eq!(events(session), None);
        assert_eq!(session.take_printed(), "rax 7\n", "the same text again");
    });
}

#[test]
fn commands_run_if_the_condition_holds() {
    let packet = format!("Z0,{Y:x},1;{RAX_IS_5};cmds:0,{PRINTS}");
    for (rax, printed) in [(4, ""), (5, "rax 5\n")] {
        with_rax(rax, &packet, |session, hand| {
            assert_eq!(events(session), None);
            expect_past(session, hand);
            assert_eq!(session.take_printed(), printed);
        });
    }
}

#[test]
fn commands_that_fail_say_why_and_do_not_stop() {
    with_rax(
        0,
        &format!("Z0,{Y:x},1;cmds:0,{FAULTS}"),
        |session, hand| {
            assert_eq!(events(session), None);
            expect_past(session, hand);
            let notice = format!(
                "the commands of the breakpoint at {Y:#x}: memory at 0xffffff cannot be read"
            );
            assert_eq!(session.take_notices(), [notice]);
        },
    );
}

#[test]
fn a_guest_that_prints_without_end_is_not_hoarded_for() {
    let packet = format!("Z0,{Y:x},1;cmds:0,{PRINTS}");
    with_rax(7, &packet, |session, hand| {
        assert_eq!(events(session), None);
        for _ in 0..60_000 {
            hand.stops(0, Y + 1, Step);
            assert_eq!(events(session), None);
            hand.stops(0, Y, Int3);
            assert_eq!(events(session), None);
        }
        let printed = session.take_printed();
        assert!(printed.len() < 300_000, "{}", printed.len());
        let last = printed.lines().last().unwrap();
        assert!(
            last.ends_with("texts are lost: gdb reads them too slowly"),
            "{last}"
        );
    });
}

#[test]
fn a_program_goes_with_its_breakpoint() {
    let packet = format!("Z0,{Y:x},1;{RAX_IS_5}");
    with_rax(4, &packet, |session, hand| {
        assert_eq!(events(session), None);
        session.interrupt();
        session.take_stop();
        assert!(matches!(session.remove_sw_breakpoint(Y, 1), Ok(true)));
        assert!(matches!(session.add_sw_breakpoint(Y, 1), Ok(true)));
        session.start(vec![Continue, Hold]);
        hand.stops(0, Y + 1, Step);
        events(session);
        hand.stops(0, Y, Int3);
        assert_eq!(events(session), at(0, Reason::Software));
    });
}
