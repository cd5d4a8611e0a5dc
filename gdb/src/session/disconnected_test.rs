//! Traces whose gdb has left, event by event.

use gdbstub::target::ext::breakpoints::{HwBreakpoint, HwWatchpoint, SwBreakpoint, WatchKind};

use super::super::state::Action::Continue;
use super::super::tests::{X, Y, define, frames};
use super::Session;
use crate::arch::BREAKPOINT;
use crate::target::StopReason::{Crashed, Int3, Step as Stepped};
use crate::target::{Attachment, Event, HwSlots, Resume};
use crate::testing::{Hand, Scripted};
use crate::trace::{Request, Status};

/// Runs `test` with a session whose gdb has defined this and left.
fn left(definitions: &[&str], test: impl FnOnce(&mut Session<'_>, &Hand)) {
    let (mut target, hand) = Scripted::new(&[Y, Y]);
    let mut session = Session::new(&mut target);
    session.attach();
    session.answer_trace_request(Request::Disconnected(true));
    define(&mut session, definitions);
    assert!(matches!(session.add_sw_breakpoint(0x1800, 1), Ok(true)));
    assert!(matches!(session.add_hw_breakpoint(0x1801, 1), Ok(true)));
    let watched = session.add_hw_watchpoint(0x3000, 8, WatchKind::Write);
    assert!(matches!(watched, Ok(true)));
    session.detach();
    test(&mut session, &hand);
}

/// The guest runs, with the tracepoint at X planted and nothing else.
#[track_caller]
fn assert_traced(hand: &Hand) {
    let script = hand.script();
    let planted = script.ram.iter().enumerate();
    let planted = planted.filter(|(_, byte)| **byte == BREAKPOINT);
    let planted: Vec<_> = planted.map(|(at, _)| at as u64).collect();
    assert_eq!(planted, [X]);
    assert_eq!((script.slots, script.int3), (HwSlots::default(), true));
    assert_eq!(script.watched, []);
    assert_eq!(script.attachments.last(), Some(&Attachment::Tracing));
    assert_eq!(script.resumed.last().unwrap(), &[Resume::Continue; 2]);
}

/// The guest runs as if there had never been a debugger.
#[track_caller]
fn assert_undisturbed(hand: &Hand) {
    let script = hand.script();
    assert!(!script.ram.contains(&BREAKPOINT));
    assert_eq!((script.slots, script.int3), (HwSlots::default(), false));
    let left = Attachment::Left { crashed: false };
    assert_eq!(script.attachments.last(), Some(&left));
    assert_eq!(script.resumed.last().unwrap(), &[Resume::Continue; 2]);
}

/// vCPU 1 hits the tracepoint and resumes.
fn hit(session: &mut Session<'_>, hand: &Hand) {
    hand.stops(1, X, Int3);
    session.on_unattended_event();
    assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step]);
    hand.stops(1, X + 1, Stepped);
    session.on_unattended_event();
}

#[test]
fn a_trace_goes_on_until_the_next_gdb_ends_it() {
    left(&["1:1000:E:0:0"], |session, hand| {
        assert_traced(hand);
        for _ in 0..3 {
            hit(session, hand);
            assert_traced(hand);
        }
        session.attach();
        assert_eq!(session.take_stop(), None);
        assert!(!session.is_running());
        assert_eq!(frames(session), 3);
        assert_eq!(session.trace.status, Status::Running);
        // It may look and leave it on again.
        session.detach();
        hit(session, hand);
        assert_traced(hand);
        session.attach();
        session.end_trace(Status::Stopped);
        session.detach();
        assert_undisturbed(hand);
        session.attach();
        assert_eq!(frames(session), 4, "they are kept");
        session.answer_trace_request(Request::Disconnected(false));
        session.detach();
        session.attach();
        assert_eq!(frames(session), 0);
        assert_eq!(session.trace.status, Status::NotRun);
        session.detach();
    });
}

#[test]
fn an_end_that_nobody_sees_lets_the_guest_go() {
    left(&["1:1000:E:0:2"], |session, hand| {
        hit(session, hand);
        assert_traced(hand);
        hand.stops(1, X, Int3);
        session.on_unattended_event();
        assert_undisturbed(hand);
        assert!(!session.is_running());
        session.attach();
        assert_eq!(session.trace.status, Status::PassCount(1));
        assert_eq!(frames(session), 2);
    });
}

#[test]
fn who_leaves_a_tracepoint_as_gdb_comes_or_goes_collects_once() {
    let (mut target, hand) = Scripted::new(&[Y, Y]);
    let mut session = Session::new(&mut target);
    session.attach();
    session.answer_trace_request(Request::Disconnected(true));
    define(&mut session, &["1:1000:E:1:0"]);
    session.start(vec![Continue, Continue]);
    hand.stops(1, X, Int3);
    session.on_event();
    assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step]);
    // Its connection is cut in the middle of the step.
    session.detach();
    assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step], "once more");
    session.attach();
    assert_eq!(frames(&mut session), 1);
    session.detach();
    hand.stops(1, X + 1, Stepped);
    session.on_unattended_event();
    assert_traced(&hand);
    session.attach();
    assert_eq!(frames(&mut session), 2, "and the step");
    session.abandon_trace();
}

#[test]
fn a_step_that_ends_as_gdb_goes_is_counted() {
    let (mut target, hand) = Scripted::new(&[Y, Y]);
    let mut session = Session::new(&mut target);
    session.attach();
    session.answer_trace_request(Request::Disconnected(true));
    define(&mut session, &["1:1000:E:1:0"]);
    session.start(vec![Continue, Continue]);
    hand.stops(1, X, Int3);
    session.on_event();
    hand.stops(1, X + 1, Stepped);
    session.detach();
    assert_traced(&hand);
    session.attach();
    assert_eq!(frames(&mut session), 2);
}

#[test]
fn a_reset_or_a_crash_ends_the_trace() {
    left(&["1:1000:E:0:0"], |session, hand| {
        hit(session, hand);
        hand.script().ram.fill(0x90);
        hand.script().events.push_back(Event::Reset);
        session.on_unattended_event();
        assert_undisturbed(hand);
        session.attach();
        let why = Status::Error("the guest was reset".to_owned(), 0);
        assert_eq!((frames(session), &session.trace.status), (1, &why));
    });
    left(&["1:1000:E:0:0"], |session, hand| {
        hand.stops(0, Y, Crashed("triple fault".to_owned()));
        session.on_unattended_event();
        assert_eq!(hand.resumed(), [Resume::Hold, Resume::Continue]);
        assert!(!hand.script().ram.contains(&BREAKPOINT));
        let left = Attachment::Left { crashed: false };
        assert_eq!(hand.script().attachments.last(), Some(&left));
        session.attach();
        let why = Status::Error("the guest crashed".to_owned(), 0);
        assert_eq!(session.trace.status, why);
        assert_eq!(
            session.crash(session.selection.focus()),
            Some("triple fault")
        );
    });
    left(&["1:1000:E:0:0"], |session, hand| {
        hand.script().events.push_back(Event::Exited(3));
        session.on_unattended_event();
        assert_eq!(session.exited(), Some(3));
        session.abandon_trace();
    });
}

#[test]
fn a_guest_that_cannot_be_resumed_traced_is_let_go() {
    left(&["1:1000:E:0:0"], |session, hand| {
        hand.script().fail_resume = true;
        hand.stops(1, X, Int3);
        session.on_unattended_event();
        let why = Status::Error("the guest could not be resumed".to_owned(), 0);
        assert_eq!(session.trace.status, why);
        assert!(!hand.script().ram.contains(&BREAKPOINT));
        assert!(!session.is_running());
    });
}

#[test]
fn the_end_of_the_server_is_the_end_of_the_trace() {
    left(&["1:1000:E:0:0"], |session, hand| {
        session.abandon_trace();
        assert_undisturbed(hand);
        session.abandon_trace();
    });
}
