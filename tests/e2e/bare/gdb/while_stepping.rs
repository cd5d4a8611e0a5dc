//! Instructions behind a tracepoint, collected one by one.

use std::fs;

use super::{Guest, assert_lines};

#[test]
fn each_instruction_behind_a_hit_has_a_frame() {
    let guest = Guest::debuggee();
    let script = "\
trace *registers_loaded
actions
collect $rbx
while-stepping 4
collect $rax, loop_counter
end
end
tstart
";
    let commands = [
        "set $before = loop_counter",
        "break scenario",
        "eval \"monitor break-if %#lx hits=3\", scenario",
        "continue",
        "tstop",
        "tstatus",
        "tfind 2",
        "print/x $rax",
        "print $rbx",
        "print loop_counter - $before",
        "tdump",
        "tfind",
        "print/x $rax",
        "tfind",
        "tfind",
        "print/x $rbx",
        "print $rax",
        "tfind 14",
        "print loop_counter - $before",
        "tfind",
    ];
    let lines = guest.trace(script, &commands);
    let lines: Vec<_> = lines
        .into_iter()
        .filter(|line| !line.starts_with("94\t") && !line.starts_with("#0 "))
        .collect();
    assert_lines(
        &lines,
        &[
            "Breakpoint 3 at 0x10012b: file guests/debug/main.c, line 123.",
            "breakpoints at 0x10012b stop the guest if hits=3",
            "Breakpoint 3, scenario () at guests/debug/main.c:123",
            "123\t{",
            "warning: Target does not support trace notes, note ignored",
            "Trace stopped by a tstop command ().",
            "Collected 15 trace frames.",
            "Trace will stop if GDB disconnects.",
            "Not looking at any trace frame.",
            "Found trace frame 2, tracepoint 2",
            "$1 = 0xa0a1a2a3a4a5a6a9",
            "$2 = <unavailable>",
            "$3 = 0",
            "Data collected at tracepoint 2, trace frame 2:",
            "$rax = -6872032732664977751",
            "Found trace frame 3, tracepoint 2",
            "$4 = 0xa0a1a2a3a4a5a6aa",
            "Found trace frame 4, tracepoint 2",
            "Found trace frame 5, tracepoint 2",
            "$5 = 0xb0b1b2b3b4b5b6b7",
            "$6 = <unavailable>",
            "Found trace frame 14, tracepoint 2",
            "$7 = 2",
            "No trace frame found",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

/// The guest's handler maps the page and comes back: it is no step, and the
/// instruction is executed once.
#[test]
fn a_page_fault_comes_into_a_step() {
    let mut guest = Guest::start("watch", "", 1);
    guest.vmm.process.wait_for("watch: ready", tests::DEADLINE);
    let script = guest.dir.path().join("trace.gdb");
    let actions = "actions\nwhile-stepping 3\ncollect faults\nend\nend\ntstart\n";
    fs::write(&script, format!("trace *$pc\n{actions}")).unwrap();
    let lines = guest.gdb(&[
        "tbreak touch",
        "continue",
        "next",
        "next",
        "set $before = faults",
        "set $start = $pc",
        &format!("source {}", script.display()),
        "tbreak 62",
        "continue",
        "print faults - $before",
        "tbreak touch",
        "continue",
        "tstop",
        "tstatus",
        "tfind start",
        "print $pc - $start",
        "tfind",
        "print faults - $before",
        "print $pc > $start && $pc < $start + 16",
    ]);
    for line in [
        "Collected 4 trace frames.",
        "$1 = 1",
        "$2 = 0",
        "$3 = 1",
        "$4 = 1",
    ] {
        assert!(
            lines.iter().any(|found| found == line),
            "{line}: {lines:#?}"
        );
    }
    guest.gdb(&["set var stop_requested = 1"]);
    guest.vmm.process.expect_exit(0, tests::DEADLINE);
}

/// The guest notices when an interrupt makes its loop lose or repeat a step.
#[test]
fn interrupts_do_not_derail_traced_steps() {
    let mut guest = Guest::start("timer", "forever", 1);
    guest.vmm.process.wait_for("timer: ", tests::DEADLINE);
    let script = guest.dir.path().join("trace.gdb");
    let actions = "actions\nwhile-stepping 20\ncollect iterations\nend\nend\ntstart\n";
    fs::write(&script, format!("trace count_once\n{actions}")).unwrap();
    let lines = guest.gdb(&[
        &format!("source {}", script.display()),
        "set $before = ticks",
        "break timer_tick if ticks > $before + 3",
        "continue",
        "tstop",
        "print derailed",
        "print strange_frames",
    ]);
    for line in ["$1 = 0", "$2 = 0"] {
        assert!(
            lines.iter().any(|found| found == line),
            "{line}: {lines:#?}"
        );
    }
    guest.gdb(&["set var stop_requested = 1"]);
    guest.vmm.process.expect_exit(0, tests::DEADLINE);
}

/// Both vCPUs step at once, each behind its own hits.
#[test]
fn two_vcpus_step_each_behind_its_own_hits() {
    use super::vcpus::{all_counting, finish};

    let guest = Guest::start("smp", "forever", 2);
    let script = guest.dir.path().join("trace.gdb");
    let actions = "actions\ncollect $rsp\nwhile-stepping 3\ncollect $rsp\nend\nend\ntstart\n";
    fs::write(&script, format!("trace main.c:28\n{actions}")).unwrap();
    let lines = guest.gdb(&[
        &all_counting(2),
        "continue",
        &format!("source {}", script.display()),
        "break main.c:28",
        "eval \"monitor break-if %#lx hits=60\", $rip",
        "continue",
        "tstop",
        "tstatus",
        "info tracepoints",
    ]);
    let number = |start: &str| -> u64 {
        let found = lines.iter().find_map(|line| line.strip_prefix(start));
        let digits = found.and_then(|rest| rest.split(' ').next());
        let number = digits.and_then(|digits| digits.parse().ok());
        number.unwrap_or_else(|| panic!("no {start} in {lines:#?}"))
    };
    let frames = number("Collected ");
    let hits = number("\ttracepoint already hit ");
    // The last hits of each may have steps to go.
    assert!((50..=60).contains(&hits), "{hits}");
    assert!(
        (4 * hits - 6..=4 * hits).contains(&frames),
        "{frames} frames of {hits} hits"
    );
    finish(guest, 2);
}
