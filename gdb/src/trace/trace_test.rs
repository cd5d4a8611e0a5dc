//! Hits, without a machine.

use super::limits::{MAX_ACTIONS, MAX_CODE};
use super::*;
use crate::agent::{VariableDefinition, Vcpu};
use crate::arch::Description;
use crate::arch::Registers;

const X: VirtAddr = VirtAddr(0x1000);

/// Memory of 4096 zeros from 0.
struct Model;

impl Vcpu for Model {
    fn register(&self, number: usize) -> Option<u64> {
        Some(number as u64)
    }

    fn read(&self, addr: u64, _: &mut [u8]) -> bool {
        addr < 4096
    }
}

/// A running trace of these definitions.
fn trace(packets: &[&str]) -> Trace {
    let mut trace = Trace::default();
    for packet in packets {
        trace
            .define(Definition::parse(packet, Description::default()).unwrap())
            .unwrap();
    }
    trace.start();
    trace
}

/// vCPU 0 at `rip`.
fn at(rip: u64, act: impl FnOnce(&Hit<'_>)) {
    let registers = Registers {
        rip,
        ..Registers::default()
    };
    act(&Hit {
        vcpu: VcpuId(0),
        registers: &registers,
        view: &Model,
    });
}

fn hit(trace: &mut Trace) {
    at(X.0, |hit| trace.hit(hit));
}

#[test]
fn every_tracepoint_at_an_address_collects() {
    let mut trace = trace(&[
        "1:1000:E:0:0",
        "2:1000:E:0:0",
        "3:1000:D:0:0",
        "4:2000:E:0:0",
    ]);
    hit(&mut trace);
    hit(&mut trace);
    let hits = |n, addr| trace.counts(n, VirtAddr(addr)).map(|(hits, _)| hits);
    assert_eq!(hits(1, 0x1000), Some(2));
    assert_eq!(hits(2, 0x1000), Some(2));
    assert_eq!(hits(3, 0x1000), Some(0), "disabled");
    assert_eq!(hits(4, 0x2000), Some(0), "elsewhere");
    assert_eq!(hits(4, 0x1000), None);
    assert_eq!(trace.frames.len(), 4);
    assert!(trace.is_traced(X) && !trace.is_traced(VirtAddr(0x1001)));
}

#[test]
fn pass_count_and_condition() {
    let mut counted = trace(&["7:1000:E:0:2:X1,27"]);
    hit(&mut counted);
    assert_eq!(counted.status, Status::Running);
    hit(&mut counted);
    assert_eq!(counted.status, Status::PassCount(7));
    hit(&mut counted);
    assert_eq!(counted.frames.len(), 2, "the trace is over");
    let mut never = trace(&["7:1000:E:0:1:X3,220027"]);
    hit(&mut never);
    assert_eq!((never.frames.len(), never.status), (0, Status::Running));
    let mut wrong = trace(&["7:1000:E:0:1:X1,ff"]);
    hit(&mut wrong);
    let text = "agent instruction 0xff is not supported".to_owned();
    assert_eq!(wrong.status, Status::Error(text, 7));
}

/// A trace of a tracepoint that adds 1 to variable 1 at each hit, from 5 on, traces
/// where that is even, and collects it.
fn counting() -> Trace {
    let mut trace = Trace::default();
    for packet in [
        "1:1000:E:0:0:Xe,2c0001 2201 02 2d0001 2201 0f 0e 27-",
        "-1:1000:X4,2e000127",
    ] {
        let packet = packet.replace(' ', "");
        let definition = Definition::parse(&packet, Description::default());
        trace.define(definition.unwrap()).unwrap();
    }
    // gdb sends them in this order.
    let variable = VariableDefinition::parse("1:5:0:61").unwrap();
    trace.variables.define(variable).unwrap();
    trace.start();
    trace
}

#[test]
fn variables_count_in_conditions_and_are_collected() {
    let mut trace = counting();
    for _ in 0..4 {
        hit(&mut trace);
    }
    assert_eq!(trace.status, Status::Running);
    let frames = [0, 1, 2].map(|n| trace.frames.get(n)?.variable(1));
    assert_eq!(frames, [Some(6), Some(8), None]);
    assert_eq!(trace.variables.get(1), Some(9));
    trace.start();
    assert_eq!(trace.variables.get(1), Some(5), "from its start");
    trace.clear();
    assert_eq!(trace.variables.get(1), None);
}

#[test]
fn a_variable_that_is_not_there_ends_the_trace() {
    let mut trace = trace(&["1:1000:E:0:0-", "-1:1000:X4,2e000127"]);
    hit(&mut trace);
    let text = "there is no trace state variable 1".to_owned();
    assert_eq!(trace.status, Status::Error(text, 1));
}

#[test]
fn unreadable_memory_is_left_out_and_the_trace_goes_on() {
    let mut trace = trace(&["1:1000:E:0:0-", "-1:1000:M-1,2000,8M0,10,8X3,220017"]);
    // What reads through a bad pointer: const16 0x2000, ref64, end.
    let bad = "-1:1000:X5,2320001a27";
    trace
        .define(Definition::parse(bad, Description::default()).unwrap())
        .unwrap();
    trace.points[0]
        .at_hit
        .actions
        .retain(|action| action.code_len() != 3);
    hit(&mut trace);
    assert_eq!(trace.status, Status::Running);
    let frame = trace.frames.get(0).unwrap();
    let mut buf = [1; 8];
    assert_eq!(frame.read(VirtAddr(0x2000), &mut buf), 0);
    assert_eq!(frame.read(VirtAddr(0x10), &mut buf), 8);
}

/// What the frames are of, and where.
fn frames(trace: &Trace) -> Vec<(usize, u64)> {
    let frames = (0..).map_while(|n| trace.frames.get(n));
    frames
        .map(|frame| (frame.tracepoint, frame.addr.0))
        .collect()
}

#[test]
fn steps_behind_a_hit_collect_what_is_theirs() {
    // The second packet of step actions has no S.
    let mut trace = trace(&[
        "1:1000:E:2:0-",
        "-1:1000:M-1,10,8-",
        "-1:1000:SM-1,20,8-",
        "-1:1000:M-1,30,8",
        "2:1002:E:1:0",
    ]);
    let vcpu = VcpuId(0);
    assert!(!trace.is_stepping(vcpu));
    hit(&mut trace);
    assert!(trace.is_stepping(vcpu) && !trace.is_stepping(VcpuId(1)));
    at(0x1002, |hit| trace.stepped(hit));
    at(0x1002, |hit| trace.hit(hit));
    at(0x1004, |hit| trace.stepped(hit));
    assert!(!trace.is_stepping(vcpu));
    at(0x1005, |hit| trace.stepped(hit));
    let expected = [
        (1, 0x1000),
        (1, 0x1002),
        (2, 0x1002),
        (1, 0x1004),
        (2, 0x1004),
    ];
    assert_eq!(frames(&trace), expected);
    let has = |frame: usize, addr| {
        let frame = trace.frames.get(frame).unwrap();
        frame.read(VirtAddr(addr), &mut [0; 8]) == 8
    };
    let held = |frame| [0x10, 0x20, 0x30].map(|addr| has(frame, addr));
    assert_eq!(held(0), [true, false, false]);
    assert_eq!(held(1), [false, true, true]);
    assert_eq!(held(2), [false; 3]);
    assert_eq!(trace.counts(1, X).unwrap().0, 1, "steps are no hits");
}

#[test]
fn steps_end_with_the_trace_and_are_taken_for_hits_that_count_alone() {
    let mut never = trace(&["1:1000:E:5:0:X3,220027"]);
    hit(&mut never);
    assert!(!never.is_stepping(VcpuId(0)));
    let mut last = trace(&["1:1000:E:5:1"]);
    hit(&mut last);
    assert_eq!(last.status, Status::PassCount(1));
    assert!(!last.is_stepping(VcpuId(0)));
    let mut full = trace(&["1:1000:E:5:0"]);
    full.frames.size = 200;
    hit(&mut full);
    at(0x1001, |hit| full.stepped(hit));
    assert!(full.is_stepping(VcpuId(0)));
    at(0x1002, |hit| full.stepped(hit));
    assert_eq!((full.frames.len(), &full.status), (2, &Status::Full));
    assert!(!full.is_stepping(VcpuId(0)));
    full.start();
    assert!(!full.is_stepping(VcpuId(0)), "nothing is left of it");
    hit(&mut full);
    full.give_up_steps(VcpuId(0));
    assert!(!full.is_stepping(VcpuId(0)));
}

#[test]
fn a_full_buffer_ends_the_trace() {
    let mut trace = trace(&["1:1000:E:0:0"]);
    trace.frames.size = 200;
    hit(&mut trace);
    hit(&mut trace);
    assert_eq!(trace.status, Status::Running);
    hit(&mut trace);
    assert_eq!((trace.frames.len(), trace.status), (2, Status::Full));
}

#[test]
fn a_range_larger_than_the_buffer_is_not_even_tried() {
    let mut trace = trace(&["1:1000:E:0:0-", "-1:1000:M-1,0,ffffffffffffffff"]);
    hit(&mut trace);
    assert_eq!((trace.frames.len(), trace.status), (0, Status::Full));
}

#[test]
fn definitions_are_bounded() {
    let mut trace = trace(&["1:1000:E:0:0-"]);
    let define = |trace: &mut Trace, packet: &str| {
        trace.define(Definition::parse(packet, Description::default()).unwrap())
    };
    let code = format!("-1:1000:X8000,{}", "27".repeat(0x8000));
    assert_eq!(define(&mut trace, &code), Ok(()));
    assert_eq!(define(&mut trace, &code), Ok(()));
    let full = Err(DefinitionError::TooMuch(MAX_CODE));
    assert_eq!(define(&mut trace, &code), full);
    let ranges = format!("-1:1000:{}", "M-1,0,1".repeat(MAX_ACTIONS));
    let full = Err(DefinitionError::TooMuch(MAX_ACTIONS));
    assert_eq!(define(&mut trace, &ranges), full);
    let unknown = Err(DefinitionError::Unknown);
    assert_eq!(define(&mut trace, "-1:1001:R1"), unknown);
    for n in 1..MAX_POINTS {
        assert_eq!(define(&mut trace, &format!("{n:x}:9:E:0:0")), Ok(()));
    }
    let full = Err(DefinitionError::TooMuch(MAX_POINTS));
    assert_eq!(define(&mut trace, "ffff:9:E:0:0"), full);
}

#[test]
fn definitions_come_back_as_they_were_sent() {
    let mut trace = trace(&[
        "1:1000:E:2:3:X3,220127-",
        "-1:1000:R1-",
        "-1:1000:X1,27SR3-",
        "-1:1000:M-1,10,8",
        "a:2000:D:0:0",
    ]);
    for source in ["1:1000:at:0:4:6d61696e", "a:2000:cmd:0:3:656e64"] {
        assert_eq!(trace.add_source(&Source::parse(source).unwrap()), Ok(()));
    }
    let missing = Source::parse("2:1000:at:0:1:61").unwrap();
    assert_eq!(trace.add_source(&missing), Err(DefinitionError::Unknown));
    let described: Vec<_> = trace.described().collect();
    let expected = [
        "T1:1000:E:2:3:X3,220127",
        "A1:1000:R1",
        "A1:1000:X1,27",
        "S1:1000:R3",
        "S1:1000:M-1,10,8",
        "Z1:1000:at:0:4:6d61696e",
        "Ta:2000:D:0:0",
        "Za:2000:cmd:0:3:656e64",
    ];
    assert_eq!(described, expected);
    let again = Definition::parse("1:1000:E:0:0", Description::default());
    assert_eq!(trace.define(again.unwrap()), Ok(()));
    assert_eq!(trace.described().last().unwrap(), "T1:1000:E:0:0");
    trace.clear();
    assert_eq!((trace.described().count(), trace.text), (0, 0));
}

#[test]
fn what_is_kept_to_be_read_back_is_bounded() {
    let mut trace = trace(&["1:1000:E:0:0", "2:1000:E:0:0"]);
    let source = format!("1:1000:cmd:0:1:{}", "61".repeat(0x8000));
    let source = Source::parse(&source).unwrap();
    let added = (0..100).take_while(|_| trace.add_source(&source).is_ok());
    assert_eq!(added.count(), MAX_TEXT / 0x10000);
    let registers = Definition::parse("-2:1000:R1", Description::default()).unwrap();
    let full = Err(DefinitionError::TooMuch(MAX_TEXT));
    assert_eq!(trace.define(registers.clone()), full);
    let again = Definition::parse("1:1000:E:0:0", Description::default()).unwrap();
    assert_eq!(trace.define(again), Ok(()));
    assert_eq!(trace.text, 0, "what it had is gone");
    assert_eq!(trace.define(registers), Ok(()));
}

/// gdb knows where a frame is of, if it has no registers, by the tracepoint.
#[test]
fn frames_that_may_be_of_several_places_need_registers() {
    let mut trace = trace(&[
        "1:1000:E:0:0",
        "2:1000:E:1:0",
        "3:1000:E:0:0",
        "3:2000:E:0:0",
    ]);
    hit(&mut trace);
    at(0x2000, |hit| trace.hit(hit));
    let needs = (0..4).map(|n| trace.frames.get(n).unwrap().needs_registers());
    assert_eq!(needs.collect::<Vec<_>>(), [false, true, true, true]);
}
