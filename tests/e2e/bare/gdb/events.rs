//! Exceptions that the guest causes itself: a debugger beside it changes none.
//!
//! The guest counts what it gets, in every case of docs/debug-events.md, and what it
//! counts must be the same with gdb as without.

use std::path::Path;
use std::sync::OnceLock;

use tests::oracle::Step;
use tests::rsp::{RIP, Rsp};
use tests::symbols;
use tests::vmm::Vmm;
use tests::{DEADLINE, guest};

use super::{Guest, KERNEL_PAGES};
use crate::host::{host, shown};

const PASSES: u32 = 3;

/// A case takes a few hundred instructions, its exceptions' handlers included.
const MOST_STEPS: usize = 20_000;

/// The cases that this host can run, with or without a debugger.
fn cases(ring: u8) -> String {
    const ALL: [&str; 8] = [
        "flags",
        "trap_flag",
        "trap_mov_ss",
        "breakpoint",
        "watchpoint",
        "fault",
        "invalid",
        "devices",
    ];
    let mut cases = ALL.to_vec();
    let itself = host().interrupts_itself || ring == 3;
    if shown(itself, "the guest's own int, int3 and int1 in ring 0") {
        cases.extend(["int3", "software"]);
        if shown(ends_int1(), "the guest's own int1") {
            cases.push("int1");
        }
    }
    if ring == 3 && shown(host().interrupts_itself, "a system call of ring 3") {
        cases.push("syscall");
    }
    cases.join(",")
}

/// Whether a guest gets past an int1 of user mode. On processors of
/// AMD, PVM delivers nothing for it and never ends it.
fn ends_int1() -> bool {
    static ENDS: OnceLock<bool> = OnceLock::new();
    *ENDS.get_or_init(|| {
        let vmm = Vmm::new(guest::bare("events")).cmdline(&cmdline(3, "int1", 1));
        let vmm = vmm.start();
        vmm.process.says("events: done", DEADLINE / 3)
    })
}

fn cmdline(ring: u8, cases: &str, passes: u32) -> String {
    format!("ring={ring} cases={cases} passes={passes}")
}

/// What the guest counts with nobody beside it.
fn undisturbed(ring: u8) -> &'static [String] {
    static COUNTS: [OnceLock<Vec<String>>; 2] = [OnceLock::new(), OnceLock::new()];
    COUNTS[usize::from(ring == 3)].get_or_init(|| {
        let vmm = Vmm::new(guest::bare("events")).cmdline(&cmdline(ring, &cases(ring), PASSES));
        let counts = counts(&vmm.run(0).console());
        assert!(counts.iter().all(|line| line.ends_with(" leaks=0")));
        counts
    })
}

fn counts(console: &str) -> Vec<String> {
    let lines = console.lines().filter(|line| line.contains(" exceptions="));
    lines.map(str::to_owned).collect()
}

/// The cases that need debug registers of the guest's. KVM does not tell when the guest
/// writes one: while slots are armed, those are added that are there at a stop.
const OWN_SLOTS: [&str; 2] = ["breakpoint", "watchpoint"];

/// `counts` but for those of `OWN_SLOTS`.
fn without_own_slots(counts: &[String]) -> Vec<String> {
    let is_own = |line: &String| {
        let mut names = OWN_SLOTS.iter();
        names.any(|case| line.starts_with(&format!("events: {case} ")))
    };
    let others = counts.iter().filter(|line| !is_own(line));
    others.cloned().collect()
}

/// Runs all cases under gdb, which has carried out `commands` before, and expects the
/// same counts; with `armed` slots, of the cases that can be.
#[track_caller]
fn expect_undisturbed(ring: u8, armed: bool, commands: &[&str]) {
    let mut guest = Guest::held("events", &cmdline(ring, &cases(ring), PASSES), 1);
    let commands = [&["tbreak main", "continue"], commands, &["continue"]].concat();
    let lines = guest.gdb(&commands);
    guest.vmm.process.expect_exit(0, DEADLINE);
    let counted = counts(&guest.vmm.console());
    match armed {
        false => assert_eq!(counted, undisturbed(ring), "{lines:#?}"),
        true => assert_eq!(
            without_own_slots(&counted),
            without_own_slots(undisturbed(ring)),
            "{lines:#?}"
        ),
    }
    let end = "[Inferior 1 (process 1) exited normally]";
    assert_eq!(lines.last().map(String::as_str), Some(end), "{lines:#?}");
}

#[test]
fn are_the_same_with_gdb_attached() {
    for ring in [0, 3] {
        expect_undisturbed(ring, false, &[]);
    }
}

#[test]
fn are_the_same_while_a_hardware_breakpoint_is_set() {
    for ring in [0, 3] {
        expect_undisturbed(ring, true, &["hbreak triple_fault"]);
    }
}

#[test]
fn are_the_same_while_a_watchpoint_is_set() {
    if !shown(host().ring0.watch, "own exceptions beside a watchpoint") {
        return;
    }
    for ring in [0, 3] {
        expect_undisturbed(ring, true, &["watch tests[0].name"]);
    }
}

/// The guest's int3 is told apart from gdb's.
#[test]
fn are_the_same_while_an_int3_is_planted() {
    let armed = !host().ring0.int3;
    expect_undisturbed(0, armed, &[KERNEL_PAGES, "break triple_fault"]);
    let planted = host().plants_in_shared_pages();
    if shown(planted, "own exceptions in ring 3 beside a planted int3") {
        expect_undisturbed(3, false, &["break triple_fault"]);
    }
}

/// The breakpoints around the cases are hit every time, and change no count.
#[test]
fn are_the_same_where_breakpoints_are_hit() {
    let file = guest::bare("events");
    let mut guest = Guest::held("events", &cmdline(0, &cases(0), PASSES), 1);
    let [begin, end] = ["begin", "end"].map(|name| symbols::address(&file, name));
    let mut client = Rsp::attach(guest.vmm.gdb_socket());
    client.set_breakpoint(begin);
    client.set_hardware_breakpoint(end);
    let mut hits = Vec::new();
    while client.resume_until_stop().starts_with('T') {
        hits.push(client.register(RIP));
    }
    guest.vmm.process.expect_exit(0, DEADLINE);
    assert_eq!(counts(&guest.vmm.console()), undisturbed(0));
    let expected = [begin, end].repeat(undisturbed(0).len() * PASSES as usize);
    assert_eq!(hits, expected);
}

/// Steps through these cases from their beginning to their end, beside what `set` has set.
fn step_through(
    ring: u8,
    cases: &str,
    set: impl Fn(&mut Rsp, &Path),
    clear: impl Fn(&mut Rsp, &Path),
) {
    let file = guest::bare("events");
    let reference = Vmm::new(&file).cmdline(&cmdline(ring, cases, 1));
    let reference = counts(&reference.run(0).console());
    let mut guest = Guest::held("events", &cmdline(ring, cases, 1), 1);
    let [begin, end, entry] =
        ["begin", "end", "syscall_entry"].map(|name| symbols::address(&file, name));
    let mut client = Rsp::attach(guest.vmm.gdb_socket());
    let mut stepped = 0;
    client.set_hardware_breakpoint(begin);
    while client.resume_until_stop().starts_with('T') {
        assert_eq!(client.register(RIP), begin);
        client.clear_hardware_breakpoint(begin);
        set(&mut client, &file);
        step_until(&mut client, end, entry);
        clear(&mut client, &file);
        client.set_hardware_breakpoint(begin);
        stepped += 1;
    }
    guest.vmm.process.expect_exit(0, DEADLINE);
    assert_eq!(counts(&guest.vmm.console()), reference);
    assert_eq!(stepped, reference.len());
}

/// Each step must end where the disassembly says.
fn step_until(client: &mut Rsp, end: u64, entry: u64) {
    for _ in 0..MOST_STEPS {
        if client.register(RIP) == end {
            return;
        }
        let step = Step::ahead(client, entry);
        let reply = client.step(1);
        assert!(reply.starts_with("T05"), "{reply}");
        if let Some(fault) = step.fault(client) {
            panic!("{fault}");
        }
    }
    panic!("lost at {:#x}", client.register(RIP));
}

#[test]
fn are_the_same_when_every_instruction_is_a_step() {
    step_through(0, &cases(0), |_, _| (), |_, _| ());
    if shown(
        host().ring3.step,
        "own exceptions that are stepped through in ring 3",
    ) {
        step_through(3, &cases(3), |_, _| (), |_, _| ());
    }
}

/// No slot is left for where a step ends, nor for the guest.
#[test]
fn are_the_same_when_every_instruction_is_a_step_beside_four_watchpoints() {
    if !shown(host().ring0.watch, "steps beside four watchpoints") {
        return;
    }
    let watched = |file: &Path| symbols::address(file, "gdt");
    let each = |client: &mut Rsp, file: &Path, packet: char| {
        for n in 0..4 {
            let addr = watched(file) + 8 * n;
            assert_eq!(client.ask(&format!("{packet}2,{addr:x},8")), "OK");
        }
    };
    for ring in [0, 3] {
        let cases = cases(ring);
        let cases: Vec<_> = cases.split(',').collect();
        let cases = cases.into_iter().filter(|case| !OWN_SLOTS.contains(case));
        step_through(
            ring,
            &cases.collect::<Vec<_>>().join(","),
            |client, file| each(client, file, 'Z'),
            |client, file| each(client, file, 'z'),
        );
    }
}
