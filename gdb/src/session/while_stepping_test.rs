//! Steps behind tracepoints, event by event.

use gdbstub::target::ext::breakpoints::{HwBreakpoint, HwWatchpoint, WatchKind as Gdb};

use super::super::state::Action::{Continue, Hold};
use super::super::stop::Reason;
use super::super::tests::{
    HANDLER, X, Y, at, define, events, frames, look, returns, takes_exception, with_session,
};
use crate::address::VirtAddr;
use crate::breakpoints::WatchKind;
use crate::target::Resume;
use crate::target::StopReason::{Hardware, Int3, Step as Stepped};
use crate::testing::ALL_TRAPS;

/// Where the last frame is of.
fn last(session: &super::Session<'_>) -> u64 {
    let frames = &session.trace.frames;
    frames.get(frames.len() - 1).unwrap().addr.0
}

#[test]
fn a_vcpu_steps_beside_those_that_run() {
    with_session(&[Y, Y], |session, hand| {
        define(session, &["1:1000:E:3:0"]);
        session.start(vec![Continue, Continue]);
        hand.stops(1, X, Int3);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step], "leaves it");
        hand.stops(1, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(frames(session), 2);
        assert_eq!(hand.resumed(), [Resume::Continue, Resume::Step]);
        // The other one's hit is no step of this one.
        hand.stops(0, X, Int3);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(frames(session), 4);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::FinishStep]);
        hand.stops(1, Y, Stepped);
        assert_eq!(events(session), None);
        assert_eq!((frames(session), last(session)), (5, Y));
        hand.stops(1, Y + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::FinishStep, Resume::Continue]);
        assert_eq!(frames(session), 6);
    });
}

#[test]
fn a_stop_for_gdb_only_interrupts_the_steps() {
    with_session(&[Y, Y], |session, hand| {
        define(session, &["1:1000:E:2:0"]);
        let watched = session.add_hw_watchpoint(0x3000, 1, Gdb::Write);
        assert!(matches!(watched, Ok(true)));
        session.start(vec![Continue, Continue]);
        hand.stops(0, X, Int3);
        assert_eq!(events(session), None);
        // The instruction is executed, whatever else it has done.
        hand.stops(0, X + 1, Hardware { hit: 1 });
        let (addr, kind) = (VirtAddr(0x3000), WatchKind::Write);
        assert_eq!(events(session), at(0, Reason::Watch { addr, kind }));
        assert_eq!((frames(session), last(session)), (2, X + 1));
        session.start(vec![Hold, Continue]);
        assert_eq!(hand.resumed(), [Resume::Hold, Resume::Continue]);
        session.interrupt();
        assert!(session.take_stop().is_some());
        session.start(vec![Continue, Continue]);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Continue]);
        // Met, but not executed.
        hand.stops(0, X + 1, Int3);
        assert_eq!(events(session), None);
        assert_eq!(frames(session), 2);
        hand.stops(0, X + 2, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(frames(session), 3);
        assert_eq!(hand.resumed(), [Resume::Continue; 2]);
    });
}

#[test]
fn the_handler_of_an_exception_is_no_step() {
    for back in [Int3, Hardware { hit: 1 }] {
        with_session(&[X], |session, hand| {
            if back == (Hardware { hit: 1 }) {
                assert!(matches!(session.add_hw_breakpoint(X, 1), Ok(true)));
            }
            define(session, &["1:1000:E:1:0"]);
            session.start(vec![Continue]);
            takes_exception(hand);
            look(session);
            assert_eq!(hand.resumed(), [Resume::FinishStep], "to collect");
            returns(hand, X);
            hand.stops(0, X, back.clone());
            assert_eq!(events(session), None);
            assert_eq!(frames(session), 1, "the same execution");
            hand.stops(0, X + 1, Stepped);
            assert_eq!(events(session), None);
            assert_eq!((frames(session), last(session)), (2, X + 1));
            assert_eq!(hand.resumed(), [Resume::Continue]);
        });
    }
}

/// vCPU 0 is to step behind X, and is in a handler as vCPU 1 hits a tracepoint.
fn handles_while_another_hits(definitions: &[&str], resumed: Resume) {
    with_session(&[X, Y], |session, hand| {
        define(session, definitions);
        session.start(vec![Continue, Continue]);
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Continue]);
        takes_exception(hand);
        hand.stops(1, 0x3f00, Int3);
        assert_eq!(events(session), None);
        if hand.resumed() == [Resume::Hold, Resume::Step] {
            hand.stops(1, 0x3f01, Stepped);
            assert_eq!(events(session), None);
        }
        assert_eq!(hand.resumed()[0], resumed);
        assert_eq!(hand.script().registers[0].rip, HANDLER);
    });
}

#[test]
fn a_pause_for_another_vcpu_does_not_make_the_handler_one() {
    let definitions = ["1:1000:E:5:0", "2:3f00:E:0:0"];
    handles_while_another_hits(&definitions, Resume::FinishStep);
}

#[test]
fn the_end_of_the_trace_ends_the_steps() {
    let definitions = ["1:1000:E:5:0", "2:3f00:E:0:1"];
    handles_while_another_hits(&definitions, Resume::Continue);
}

#[test]
fn code_that_the_host_does_not_step_ends_the_steps() {
    let mut traps = ALL_TRAPS;
    traps.ring3.step = false;
    with_session(&[Y, Y], |session, hand| {
        hand.script().traps = Some(traps);
        define(session, &["1:1000:E:5:0"]);
        session.start(vec![Continue, Continue]);
        hand.stops(0, X, Int3);
        assert_eq!(events(session), None);
        hand.script().registers[0].cs.selector = 3;
        hand.script().registers[0].cr0 = 1;
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Continue; 2]);
        let notices = session.take_notices().join("");
        assert!(
            notices.contains("cannot single-step code at CPL 3"),
            "{notices}"
        );
    });
}
