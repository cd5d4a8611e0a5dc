//! Run control, event by event.

use gdbstub::common::Tid;
use gdbstub::target::ext::base::multithread::MultiThreadBase;
use gdbstub::target::ext::breakpoints::{
    HwBreakpoint, HwWatchpoint, SwBreakpoint, WatchKind as Gdb,
};
use gdbstub::target::ext::tracepoints::{ExperimentExplanation, Tracepoint, Tracepoints};

use super::state::Action::{Continue, Hold, Range, Step};
use super::stop::Reason;
use super::*;
use crate::arch::{BREAKPOINT, Served};
use crate::breakpoints::{Condition, WatchKind};
use crate::target::StopReason::{Crashed, Hardware, Int3, Protected, Step as Stepped};
use crate::target::{Attachment, Event, HwKind, HwSlots, Resume, VirtAddr};
use crate::testing::{Hand, Scripted};

pub(super) const X: u64 = 0x1000;
pub(super) const Y: u64 = 0x2000;

/// Runs `test` with an attached session over vCPUs at these addresses.
pub(super) fn with_session(rips: &[u64], test: impl FnOnce(&mut Session<'_>, &Hand)) {
    let (mut target, hand) = Scripted::new(rips);
    let mut session = Session::new(&mut target);
    session.attach();
    test(&mut session, &hand);
    session.detach();
    assert!(!hand.script().int3);
    assert_eq!(hand.script().slots, HwSlots::default());
    assert_eq!(hand.script().watched, []);
    assert!(!hand.script().ram.contains(&BREAKPOINT));
    assert_eq!(hand.resumed(), vec![Resume::Continue; rips.len()]);
}

fn plant(session: &mut Session<'_>, addr: u64) {
    assert!(matches!(session.add_sw_breakpoint(addr, 1), Ok(true)));
}

pub(super) fn at(vcpu: usize, reason: Reason) -> Option<Stop> {
    Some(Stop::At(VcpuId(vcpu), reason))
}

/// Takes the events that wait and returns the stop.
pub(super) fn events(session: &mut Session<'_>) -> Option<Stop> {
    session.on_event();
    session.take_stop()
}

#[test]
fn only_the_vcpu_that_gdb_was_told_of_passes_a_breakpoint() {
    with_session(&[X, X], |session, hand| {
        plant(session, X);
        session.start(vec![Continue, Continue]);
        assert_eq!(
            hand.resumed(),
            [Resume::Step, Resume::Hold],
            "vCPU 0 was reported by the attach"
        );
        assert_eq!(hand.script().ram[X as usize], 0x90, "lifted");
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Continue; 2], "vCPU 1 meets it");
        assert_eq!(hand.script().ram[X as usize], BREAKPOINT);
        hand.stops(1, X, Int3);
        assert_eq!(events(session), at(1, Reason::Software));
    });
}

#[test]
fn having_run_a_vcpu_meets_the_breakpoint_where_it_was_reported_before() {
    with_session(&[X, Y], |session, hand| {
        // vCPU 0 was reported at X. It runs, and is at X again when vCPU 1 stops.
        plant(session, Y);
        session.start(vec![Continue, Continue]);
        hand.stops(1, Y, Int3);
        assert_eq!(events(session), at(1, Reason::Software));
        plant(session, X);
        session.start(vec![Continue, Hold]);
        assert_eq!(hand.resumed(), [Resume::Continue, Resume::Hold]);
    });
}

#[test]
fn having_left_a_breakpoint_a_vcpu_meets_it_again() {
    with_session(&[X, Y], |session, hand| {
        plant(session, X);
        session.start(vec![Continue, Continue]);
        // Left, but back at once by a jump to itself, as vCPU 1 makes a stop.
        hand.stops(0, X, Stepped);
        hand.stops(1, Y, Crashed("fault".into()));
        assert_eq!(events(session), at(1, Reason::Crash));
        session.start(vec![Continue, Hold]);
        assert_eq!(hand.resumed(), [Resume::Continue, Resume::Hold]);
        session.vcpus[VcpuId(1)].mend();
    });
}

#[test]
fn a_hit_that_does_not_meet_its_condition_is_left_alone() {
    with_session(&[X, X], |session, hand| {
        let third = Condition {
            vcpu: Some(VcpuId(1)),
            hits: 2,
            ..Condition::default()
        };
        session.guest.breakpoints.conditions.set(VirtAddr(Y), third);
        plant(session, Y);
        session.start(vec![Continue, Continue]);
        for vcpu in [0, 1] {
            hand.stops(vcpu, Y, Int3);
            assert_eq!(events(session), None, "vCPU {vcpu}");
            let mut alone = [Resume::Hold; 2];
            alone[vcpu] = Resume::Step;
            assert_eq!(hand.resumed(), alone);
            assert_eq!(hand.script().ram[Y as usize], 0x90, "lifted");
            hand.stops(vcpu, Y + 1, Stepped);
            assert_eq!(events(session), None);
            assert_eq!(hand.resumed(), [Resume::Continue; 2]);
            assert_eq!(hand.script().ram[Y as usize], BREAKPOINT);
        }
        hand.stops(1, Y, Int3);
        assert_eq!(events(session), at(1, Reason::Software));
        session.start(vec![Continue, Continue]);
        hand.stops(1, Y + 1, Stepped);
        assert_eq!(events(session), None);
    });
}

#[test]
fn a_stop_of_another_vcpu_does_not_make_a_skipped_hit_count_twice() {
    with_session(&[X, X], |session, hand| {
        let second = Condition {
            hits: 2,
            ..Condition::default()
        };
        session
            .guest
            .breakpoints
            .conditions
            .set(VirtAddr(Y), second);
        plant(session, Y);
        session.start(vec![Continue, Step]);
        hand.stops(0, Y, Int3);
        hand.stops(1, X + 1, Stepped);
        assert_eq!(events(session), at(1, Reason::Step));
        session.start(vec![Continue, Hold]);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold], "past it");
        hand.stops(0, Y + 1, Stepped);
        assert_eq!(events(session), None);
        hand.stops(0, Y, Int3);
        assert_eq!(events(session), at(0, Reason::Software));
    });
}

#[test]
fn a_crashed_vcpu_goes_on_only_with_other_registers() {
    with_session(&[X, Y], |session, hand| {
        session.start(vec![Continue, Continue]);
        hand.stops(1, Y, Crashed("fault".into()));
        assert_eq!(events(session), at(1, Reason::Crash));
        let resumes = hand.script().resumed.len();
        for actions in [vec![Continue, Continue], vec![Hold, Step]] {
            session.start(actions);
            assert_eq!(session.take_stop(), at(1, Reason::Crash));
        }
        assert_eq!(hand.script().resumed.len(), resumes, "nothing was resumed");
        session.start(vec![Continue, Hold]);
        assert_eq!(hand.resumed(), [Resume::Continue, Resume::Hold]);
        session.interrupt();
        assert_eq!(session.take_stop(), at(1, Reason::Interrupt));
        let thread = Tid::new(2).unwrap();
        let registers = session.guest.machine.registers(VcpuId(1)).unwrap();
        let all = Served::new(session.description(), &registers, None);
        assert!(session.write_registers(&all, thread).is_ok());
        session.start(vec![Continue, Continue]);
        assert_eq!(hand.resumed(), [Resume::Continue; 2]);
    });
}

#[test]
fn the_vmm_learns_whether_gdb_leaves_a_crashed_guest() {
    for crashed in [false, true] {
        let (mut target, hand) = Scripted::new(&[X, Y]);
        let mut session = Session::new(&mut target);
        session.attach();
        session.start(vec![Continue, Continue]);
        if crashed {
            hand.stops(1, Y, Crashed("fault".into()));
            session.on_event();
        }
        session.detach();
        let expected = [Attachment::Attached, Attachment::Left { crashed }];
        assert_eq!(hand.script().attachments, expected);
        let crashed_goes = if crashed {
            Resume::Hold
        } else {
            Resume::Continue
        };
        assert_eq!(hand.resumed(), [Resume::Continue, crashed_goes]);
    }
}

#[test]
fn a_reset_guest_runs_when_nobody_is_attached() {
    let (mut target, hand) = Scripted::new(&[X, Y]);
    let mut session = Session::new(&mut target);
    hand.stops(0, X, Crashed("kept under --gdb-wait".into()));
    session.on_unattended_event();
    assert!(hand.script().resumed.is_empty());
    hand.script().events.push_back(Event::Reset);
    session.on_unattended_event();
    assert_eq!(hand.resumed(), [Resume::Continue; 2]);
}

#[test]
fn a_held_vcpu_keeps_its_leave() {
    with_session(&[X, Y], |session, hand| {
        plant(session, X);
        session.start(vec![Hold, Step]);
        hand.stops(1, Y + 1, Stepped);
        assert_eq!(events(session), at(1, Reason::Step));
        session.start(vec![Continue, Continue]);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
    });
}

#[test]
fn each_vcpu_leaves_alone() {
    with_session(&[X, Y], |session, hand| {
        plant(session, X);
        plant(session, Y);
        session.vcpus[VcpuId(1)].mark_reported(Some(Y));
        session.start(vec![Continue, Step]);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step]);
        assert_eq!(hand.script().ram[X as usize], BREAKPOINT);
        assert_eq!(hand.script().ram[Y as usize], 0x90);
        hand.stops(1, Y + 1, Stepped);
        assert_eq!(events(session), at(1, Reason::Step), "that was its step");
    });
}

#[test]
fn a_hardware_breakpoint_is_left_with_its_slot_empty() {
    with_session(&[X], |session, hand| {
        assert!(matches!(session.add_hw_breakpoint(X, 1), Ok(true)));
        session.start(vec![Continue]);
        assert_eq!(hand.resumed(), [Resume::Step]);
        assert_eq!(hand.script().slots[0], None);
        // DR6 may name the slot that was not armed: it is a step all the same.
        hand.stops(0, X + 1, Hardware { hit: 1 });
        assert_eq!(events(session), None);
        assert_eq!(hand.script().slots[0].unwrap().kind, HwKind::Execute);
        hand.stops(0, X, Hardware { hit: 1 });
        assert_eq!(events(session), at(0, Reason::Hardware));
    });
}

#[test]
fn an_interrupted_leave_is_taken_up_again() {
    with_session(&[X], |session, hand| {
        plant(session, X);
        session.start(vec![Continue]);
        session.interrupt();
        assert_eq!(session.take_stop(), at(0, Reason::Interrupt));
        assert_eq!(
            hand.script().ram[X as usize],
            BREAKPOINT,
            "planted while gdb looks"
        );
        session.start(vec![Continue]);
        assert_eq!(hand.resumed(), [Resume::Step]);
    });
}

#[test]
fn a_stray_event_does_not_end_a_leave() {
    with_session(&[X, Y], |session, hand| {
        plant(session, X);
        session.start(vec![Continue, Continue]);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
        hand.stops(1, Y, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold], "again");
        assert_eq!(hand.script().resumed.len(), 2);
    });
}

#[test]
fn the_vcpu_passed_over_most_is_reported_first() {
    with_session(&[X, X, X], |session, hand| {
        plant(session, Y);
        let mut order = Vec::new();
        for _ in 0..6 {
            session.start(vec![Continue; 3]);
            while session.is_running() {
                let alone = hand
                    .resumed()
                    .iter()
                    .position(|resume| *resume == Resume::Step);
                match alone {
                    Some(vcpu) => hand.stops(vcpu, Y + 1, Stepped),
                    None => (0..3).for_each(|vcpu| hand.stops(vcpu, Y, Int3)),
                }
                session.on_event();
            }
            match session.take_stop() {
                Some(Stop::At(vcpu, Reason::Software)) => order.push(vcpu.0),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    });
}

#[test]
fn an_access_is_reported_later_unless_no_longer_watched() {
    for still_watched in [true, false] {
        with_session(&[X, X], |session, hand| {
            assert!(matches!(
                session.add_hw_watchpoint(Y, 8, Gdb::Write),
                Ok(true)
            ));
            session.start(vec![Continue, Continue]);
            hand.stops(0, X + 2, Hardware { hit: 1 });
            hand.script()
                .late
                .push_back(Event::Stopped(VcpuId(1), Hardware { hit: 1 }));
            assert!(matches!(
                events(session),
                Some(Stop::At(VcpuId(0), Reason::Watch { .. }))
            ));
            if !still_watched {
                assert!(matches!(
                    session.remove_hw_watchpoint(Y, 8, Gdb::Write),
                    Ok(true)
                ));
            }
            let resumes = hand.script().resumed.len();
            session.start(vec![Continue, Hold]);
            assert_eq!(
                hand.script().resumed.len(),
                resumes + 1,
                "vCPU 1 is not resumed"
            );
            session.interrupt();
            session.take_stop();
            session.start(vec![Continue, Continue]);
            match session.take_stop() {
                Some(Stop::At(VcpuId(1), Reason::Watch { addr, .. })) => {
                    assert!(still_watched);
                    assert_eq!(addr, VirtAddr(Y));
                    assert_eq!(hand.script().resumed.len(), resumes + 1, "nobody ran");
                }
                None => assert!(!still_watched),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn a_write_to_a_protected_page_steps_alone() {
    with_session(&[X, Y], |session, hand| {
        let wide = session.add_hw_watchpoint(0x3000, 64, Gdb::Write);
        assert!(matches!(wide, Ok(true)));
        session.start(vec![Continue, Continue]);
        assert_eq!(hand.script().watched.len(), 1);
        for changes in [false, true] {
            hand.stops(1, Y, Protected);
            assert_eq!(events(session), None);
            assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step]);
            assert_eq!(hand.script().watched, [], "open");
            if changes {
                hand.script().ram[0x3010] = 1;
            }
            hand.stops(1, Y + 2, Stepped);
            let (addr, kind) = (VirtAddr(0x3010), WatchKind::Write);
            let stop = changes.then_some(Stop::At(VcpuId(1), Reason::Watch { addr, kind }));
            assert_eq!(events(session), stop);
            if !changes {
                assert_eq!(hand.resumed(), [Resume::Continue; 2]);
                assert_eq!(hand.script().watched.len(), 1, "protected again");
            }
        }
    });
}

#[test]
fn a_change_by_an_interrupted_lone_step_is_reported_later() {
    with_session(&[X, Y], |session, hand| {
        let wide = session.add_hw_watchpoint(0x3000, 64, Gdb::Write);
        assert!(matches!(wide, Ok(true)));
        session.start(vec![Continue, Continue]);
        hand.stops(1, Y, Protected);
        assert_eq!(events(session), None);
        hand.script().ram[0x303f] = 1;
        session.interrupt();
        assert!(matches!(
            session.take_stop(),
            Some(Stop::At(VcpuId(0), Reason::Interrupt))
        ));
        session.start(vec![Continue, Continue]);
        let (addr, kind) = (VirtAddr(0x303f), WatchKind::Write);
        assert_eq!(session.take_stop(), at(1, Reason::Watch { addr, kind }));
    });
}

/// Where the handler of an exception is, and its stack.
pub(super) const HANDLER: u64 = 0x2800;
const STACK: u64 = 0x3000;

/// vCPU 0 is in the handler of an exception that has come into its step.
pub(super) fn takes_exception(hand: &Hand) {
    let registers = &mut hand.script().registers[0];
    (registers.rip, registers.gpr[7]) = (HANDLER, STACK);
}

/// It is back at the instruction, whose stack pointer is 0.
pub(super) fn returns(hand: &Hand, rip: u64) {
    let registers = &mut hand.script().registers[0];
    (registers.rip, registers.gpr[7]) = (rip, 0);
}

/// The guest is looked at because it has been silent.
pub(super) fn look(session: &mut Session<'_>) {
    assert!(session.has_pending());
    session.serve_pending();
    assert_eq!(session.take_stop(), None);
}

#[test]
fn a_step_goes_on_after_a_pause_for_another_vcpu() {
    with_session(&[X, Y], |session, hand| {
        let never = Condition {
            hits: 9,
            ..Condition::default()
        };
        session
            .guest
            .breakpoints
            .conditions
            .set(VirtAddr(0x2100), never);
        plant(session, 0x2100);
        session.start(vec![Step, Continue]);
        takes_exception(hand);
        hand.stops(1, 0x2100, Int3);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step]);
        hand.stops(1, 0x2101, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::FinishStep, Resume::Continue]);
        returns(hand, X + 1);
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), at(0, Reason::Step));
        session.start(vec![Step, Continue]);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Continue]);
    });
}

#[test]
fn a_step_that_takes_long_is_let_take_its_time() {
    with_session(&[X], |session, hand| {
        session.start(vec![Step]);
        for _ in 0..2 {
            look(session);
            assert_eq!(hand.resumed(), [Resume::FinishStep], "not begun");
        }
        takes_exception(hand);
        look(session);
        assert_eq!(hand.resumed(), [Resume::FinishStep]);
        assert!(!session.has_pending());
        returns(hand, X + 1);
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), at(0, Reason::Step));
    });
}

#[test]
fn a_leave_that_takes_long_lets_the_others_go_on() {
    with_session(&[X, Y], |session, hand| {
        plant(session, X);
        session.start(vec![Continue, Continue]);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
        takes_exception(hand);
        look(session);
        assert_eq!(hand.resumed(), [Resume::Continue; 2]);
        assert_eq!(hand.script().ram[X as usize], BREAKPOINT);
        returns(hand, X);
        hand.stops(0, X, Int3);
        assert_eq!(events(session), None, "no second hit");
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
        assert_eq!(hand.script().ram[X as usize], 0x90, "lifted");
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Continue; 2]);
        hand.stops(0, X, Int3);
        assert_eq!(events(session), at(0, Reason::Software));
    });
}

#[test]
fn the_user_is_told_once_that_the_guest_has_breakpoints_too() {
    with_session(&[X], |session, hand| {
        fn notices_at_a_stop(session: &mut Session<'_>) -> usize {
            session.start(vec![Continue]);
            session.interrupt();
            session.take_notices().len()
        }
        hand.script().dr7 = 0x402;
        assert_eq!(notices_at_a_stop(session), 0, "no slot of gdb's");
        assert!(matches!(session.add_hw_breakpoint(Y, 1), Ok(true)));
        assert_eq!(notices_at_a_stop(session), 1);
        assert_eq!(notices_at_a_stop(session), 0);
    });
}

#[test]
fn a_breakpoint_met_when_interrupted_is_reported_afterwards() {
    with_session(&[X], |session, hand| {
        plant(session, Y);
        session.start(vec![Continue]);
        hand.stops(0, Y, Int3);
        session.interrupt();
        assert_eq!(session.take_stop(), at(0, Reason::Interrupt));
        session.start(vec![Continue]);
        assert_eq!(
            hand.resumed(),
            [Resume::Continue],
            "it meets the breakpoint"
        );
    });
}

#[test]
fn an_interrupt_stops_the_vcpu_that_steps() {
    with_session(&[X, Y], |session, _| {
        session.start(vec![Continue, Range(Y..Y + 9)]);
        session.interrupt();
        assert_eq!(session.take_stop(), at(1, Reason::Interrupt));
        session.interrupt();
        assert_eq!(session.take_stop(), None, "it is stopped already");
    });
}

#[test]
fn an_own_int3_is_injected_when_the_vcpu_goes_on() {
    with_session(&[X, Y], |session, hand| {
        hand.script().ram[X as usize] = BREAKPOINT;
        plant(session, Y + 9);
        session.start(vec![Continue, Continue]);
        hand.stops(0, X, Int3);
        hand.stops(1, Y + 9, Int3);
        assert_eq!(events(session), at(1, Reason::Software));
        assert_eq!(
            hand.script().injected,
            [],
            "not while gdb may still change it"
        );
        session.start(vec![Hold, Step]);
        hand.stops(1, Y + 10, Stepped);
        assert_eq!(events(session), at(1, Reason::Step));
        assert_eq!(hand.script().injected, [], "nor while it is held");
        session.start(vec![Continue, Continue]);
        assert_eq!(hand.script().injected, [VcpuId(0)]);
        hand.script().ram[X as usize] = 0x90;
    });
}

#[test]
fn an_own_int3_that_is_gone_or_left_is_not_injected() {
    for moved in [true, false] {
        with_session(&[X, Y], |session, hand| {
            hand.script().ram[X as usize] = BREAKPOINT;
            plant(session, Y);
            session.start(vec![Hold, Continue]);
            hand.stops(1, Y + 1, Stepped);
            assert_eq!(events(session), None);
            hand.stops(0, X, Int3);
            hand.stops(1, Y, Int3);
            assert_eq!(events(session), at(1, Reason::Software));
            if moved {
                let mut registers = hand.script().registers[0];
                registers.rip = X + 5;
                session
                    .guest
                    .machine
                    .set_registers(VcpuId(0), &registers)
                    .unwrap();
            } else {
                hand.script().ram[X as usize] = 0x90;
            }
            session.start(vec![Continue, Hold]);
            assert_eq!(hand.script().injected, []);
            hand.script().ram[X as usize] = 0x90;
        });
    }
}

#[test]
fn an_exit_or_a_reset_among_other_events_wins() {
    with_session(&[X, Y], |session, hand| {
        plant(session, X);
        session.start(vec![Continue, Hold]);
        assert_eq!(hand.script().ram[X as usize], 0x90);
        hand.stops(0, X + 1, Stepped);
        hand.script().late.push_back(Event::Reset);
        hand.script()
            .late
            .push_back(Event::Stopped(VcpuId(7), Stepped));
        session.on_event();
        assert_eq!(session.take_stop(), at(0, Reason::Reset));
        // The bytes in the new memory are not ours: nothing is restored over them.
        hand.script().ram[X as usize] = 0x55;
        assert!(matches!(session.remove_sw_breakpoint(X, 1), Ok(true)));
        assert_eq!(hand.script().ram[X as usize], 0x55);
    });

    let (mut target, hand) = Scripted::new(&[X]);
    let mut session = Session::new(&mut target);
    session.attach();
    session.start(vec![Continue]);
    hand.stops(0, X, Crashed("first".into()));
    hand.script().late.push_back(Event::Exited(3));
    assert_eq!(events(&mut session), Some(Stop::Exited(3)));
    let resumes = hand.script().resumed.len();
    session.detach();
    assert_eq!(
        hand.script().resumed.len(),
        resumes,
        "there is nothing to resume"
    );
}

#[test]
fn a_target_that_fails_leaves_gdb_with_a_stop_and_the_reason() {
    with_session(&[X], |session, hand| {
        plant(session, X);
        hand.script().fail_resume = true;
        session.start(vec![Continue]);
        assert_eq!(session.take_stop(), at(0, Reason::Refused));
        assert_eq!(hand.script().ram[X as usize], BREAKPOINT, "planted again");
        let notice = "the guest cannot be resumed: resume refused: other error";
        assert_eq!(session.take_notices(), [notice]);

        hand.script().fail_resume = false;
        session.start(vec![Continue]);
        hand.script().fail_pause = true;
        session.interrupt();
        assert_eq!(session.take_stop(), at(0, Reason::Interrupt));
        assert_eq!(
            session.take_notices(),
            ["not every vCPU stops: pause refused: other error"]
        );
        hand.script().fail_pause = false;
    });
}

pub(super) fn define(session: &mut Session<'_>, packets: &[&str]) {
    assert!(session.tracepoints_init().is_ok());
    for packet in packets {
        session.define_tracepoint(packet);
        assert!(session.tracepoint_create_complete(Tracepoint(0)).is_ok());
    }
    session.plant_tracepoints();
    assert!(session.trace_experiment_start().is_ok());
}

pub(super) fn frames(session: &mut Session<'_>) -> usize {
    let mut frames = 0;
    let count = &mut |info: ExperimentExplanation<'_>| {
        if let ExperimentExplanation::Frames(n) = info {
            frames = n;
        }
    };
    assert!(session.trace_experiment_info(count).is_ok());
    frames
}

#[test]
fn a_tracepoint_collects_once_an_execution_and_stops_nobody() {
    with_session(&[X, Y], |session, hand| {
        define(session, &["1:1000:E:0:0", "2:2000:E:0:0"]);
        assert_eq!(hand.script().ram[X as usize], BREAKPOINT, "at once");
        session.start(vec![Continue, Continue]);
        // vCPU 0 was reported at X; it leaves, and that is an execution.
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
        assert_eq!(frames(session), 1);
        // A stop before it has executed is no second one.
        session.interrupt();
        assert_eq!(session.take_stop(), at(0, Reason::Interrupt));
        session.start(vec![Continue, Continue]);
        assert_eq!(frames(session), 1);
        hand.stops(0, X, Stepped);
        assert_eq!(events(session), None, "a jump to itself");
        hand.stops(0, X, Int3);
        hand.stops(1, Y, Int3);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Step, Resume::Hold]);
        hand.stops(0, X + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(hand.resumed(), [Resume::Hold, Resume::Step]);
        hand.stops(1, Y + 1, Stepped);
        assert_eq!(events(session), None);
        assert_eq!(frames(session), 3);
        assert_eq!(hand.resumed(), [Resume::Continue; 2]);
    });
}

#[test]
fn a_breakpoint_where_a_tracepoint_is_stops_and_both_count() {
    with_session(&[Y, Y], |session, hand| {
        define(session, &["1:1000:E:0:0"]);
        plant(session, X);
        session.start(vec![Continue, Continue]);
        hand.stops(1, X, Int3);
        assert_eq!(events(session), at(1, Reason::Software));
        assert_eq!(frames(session), 0, "nothing is executed yet");
        assert!(session.remove_sw_breakpoint(X, 1).is_ok());
        assert_eq!(
            hand.script().ram[X as usize],
            BREAKPOINT,
            "the tracepoint's"
        );
        session.start(vec![Hold, Step]);
        assert_eq!(frames(session), 1);
        hand.stops(1, X + 1, Stepped);
        assert_eq!(events(session), at(1, Reason::Step));
        assert!(session.trace_experiment_stop().is_ok());
        assert_eq!(hand.script().ram[X as usize], 0x90);
    });
}

#[test]
fn the_hit_that_ends_a_trace_lets_everybody_go_on_undisturbed() {
    with_session(&[Y, Y], |session, hand| {
        define(session, &["1:1000:E:0:1"]);
        session.start(vec![Continue, Continue]);
        hand.stops(1, X, Int3);
        assert_eq!(events(session), None);
        assert_eq!(frames(session), 1);
        assert_eq!(hand.resumed(), [Resume::Continue; 2], "no need to step");
        assert_eq!(hand.script().ram[X as usize], 0x90);
    });
}

#[test]
fn a_reset_ends_a_trace_and_keeps_its_frames() {
    with_session(&[X, Y], |session, hand| {
        define(session, &["1:1000:E:0:0"]);
        session.start(vec![Continue, Continue]);
        hand.script().ram.fill(0x90);
        hand.script().events.push_back(Event::Reset);
        assert_eq!(events(session), at(0, Reason::Reset));
        assert_eq!(frames(session), 1);
        assert!(!session.trace.is_running());
        assert!(!hand.script().ram.contains(&BREAKPOINT));
    });
}
