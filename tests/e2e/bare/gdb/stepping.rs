//! Single steps, and what gdb makes of them.

use super::Guest;

#[test]
fn steps_into_and_out_of_functions() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "next",
            "next",
            "step",
            "step",
            "step",
            "backtrace",
            "finish",
            "next",
            "next",
            "finish",
            "next",
        ],
        &[
            "124\t\tu64 result = factorial(5);",
            "126\t\tresult += outer(1);",
            "outer (value=value@entry=1) at guests/debug/main.c:74",
            "74\t\tint result = middle(value + 1);",
            "middle (value=value@entry=2) at guests/debug/main.c:67",
            "67\t\tint result = inner(value + 1);",
            "inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
            "#0  inner (value=value@entry=3) at guests/debug/main.c:59",
            "#1  0x0000000000100068 in middle (value=value@entry=2) at guests/debug/main.c:67",
            "#2  0x0000000000100079 in outer (value=value@entry=1) at guests/debug/main.c:74",
            "#3  0x0000000000100149 in scenario () at guests/debug/main.c:126",
            "#4  0x000000000010017a in loop_forever (passes=0) at guests/debug/main.c:135",
            "#5  0x0000000000100215 in main () at guests/debug/main.c:148",
            "middle (value=value@entry=2) at guests/debug/main.c:69",
            "69\t\treturn result + 10;",
            "Value returned is $1 = 7",
            "outer (value=value@entry=1) at guests/debug/main.c:76",
            "76\t\treturn result + 100;",
            "scenario () at guests/debug/main.c:127",
            "127\t\tresult += sum_primes();",
            "0x000000000010017a in loop_forever (passes=0) at guests/debug/main.c:135",
            "135\t\t\tif (scenario() != 314)",
            "Value returned is $2 = 314",
            "137\t\t\tloop_counter++;",
        ],
    );
    guest.finish();
}

#[test]
fn single_instructions_do_what_they_should() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "tbreak *registers_loaded",
            "continue",
            "stepi",
            "print/x $rax",
            "stepi 2",
            "print/x $rax",
        ],
        &[
            "Temporary breakpoint 2 at 0x100113: file guests/debug/main.c, line 94.",
            "Temporary breakpoint 2, 0x0000000000100113 in load_registers () at guests/debug/main.c:94",
            "94\t\t__asm__ volatile(",
            "0x0000000000100117\t94\t\t__asm__ volatile(",
            "$1 = 0xa0a1a2a3a4a5a6a8",
            "0x000000000010011f\t94\t\t__asm__ volatile(",
            "$2 = 0xa0a1a2a3a4a5a6aa",
        ],
    );
    guest.finish();
}

#[test]
fn steps_leave_and_reach_breakpoints() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "break *registers_loaded",
            "break *registers_loaded + 4",
            "continue",
            "stepi",
            "stepi",
            "stepi",
            "continue",
            "info breakpoints",
        ],
        &[
            "Breakpoint 2 at 0x100113: file guests/debug/main.c, line 94.",
            "Breakpoint 3 at 0x100117: file guests/debug/main.c, line 94.",
            "Breakpoint 2, 0x0000000000100113 in load_registers () at guests/debug/main.c:94",
            "94\t\t__asm__ volatile(",
            "Breakpoint 3, 0x0000000000100117 in load_registers () at guests/debug/main.c:94",
            "94\t\t__asm__ volatile(",
            "0x000000000010011b\t94\t\t__asm__ volatile(",
            "0x000000000010011f\t94\t\t__asm__ volatile(",
            "Breakpoint 2, 0x0000000000100113 in load_registers () at guests/debug/main.c:94",
            "94\t\t__asm__ volatile(",
            "Num     Type           Disp Enb Address            What",
            "2       breakpoint     keep y   0x0000000000100113 in load_registers at guests/debug/main.c:94",
            "\tbreakpoint already hit 2 times",
            "3       breakpoint     keep y   0x0000000000100117 in load_registers at guests/debug/main.c:94",
            "\tbreakpoint already hit 1 time",
        ],
    );
    guest.finish();
}

#[test]
fn next_stops_at_a_breakpoint_in_the_function_it_steps_over() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "next",
            "next",
            "break inner",
            "next",
            "finish",
            "backtrace 1",
        ],
        &[
            "124\t\tu64 result = factorial(5);",
            "126\t\tresult += outer(1);",
            "Breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
            "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
            "middle (value=value@entry=2) at guests/debug/main.c:69",
            "69\t\treturn result + 10;",
            "Value returned is $1 = 7",
            "#0  middle (value=value@entry=2) at guests/debug/main.c:69",
        ],
    );
    guest.finish();
}

#[test]
fn a_thousand_steps_end_where_they_must() {
    let guest = Guest::debuggee();
    let counter = "print loop_counter - $before";
    guest.expect_at_scenario(
        &["set $before = loop_counter", "stepi 1000", counter],
        &[
            "outer (value=value@entry=1) at guests/debug/main.c:73",
            "73\t{",
            "$1 = 5",
        ],
    );
    guest.finish();
}

/// The guest notices when an interrupt makes its loop lose or repeat a step.
#[test]
fn interrupts_do_not_derail_steps_and_breakpoints() {
    let mut guest = Guest::start("timer", "source=lapic forever", 1);
    guest.vmm.process.wait_for("timer: ready", tests::DEADLINE);
    let lines = guest.gdb(&[
        "break count_once",
        "continue",
        "continue 20",
        "stepi 200",
        "delete",
        "stepi 200",
        "print derailed",
        "print strange_frames",
        "print ticks > 0",
        "set var stop_requested = 1",
    ]);
    assert_eq!(lines[lines.len() - 3..], ["$1 = 0", "$2 = 0", "$3 = 1"]);
    guest.vmm.process.expect_exit(0, tests::DEADLINE);
    assert!(guest.vmm.console().contains("timer: ok"));
}

/// The vCPU halts there and then, and the next interrupt wakes it, as without a step.
#[test]
fn a_stepped_hlt_halts_the_vcpu_once() {
    let mut guest = Guest::start("timer", "source=lapic forever halt", 1);
    guest.vmm.process.wait_for("timer: ready", tests::DEADLINE);
    let to_hlt = [
        // sti; hlt; cli
        "find /b sleep_while_equal, +64, 0xfb, 0xf4, 0xfa",
        "tbreak *$_",
        "continue",
        "stepi",
    ];
    let lines = guest.gdb(
        &[
            &to_hlt[..],
            &["x/i $pc", "stepi", "info threads", "x/i $pc"],
        ]
        .concat(),
    );
    let text = lines.join("\n");
    for part in [":\thlt", "CPU 0, halted", ":\tcli"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    // A breakpoint at it is left by a step too.
    let left = ["break *$pc", "continue", "continue", "delete"];
    let on = [
        "set $before = ticks",
        "break timer_tick",
        "continue",
        "continue 5",
    ];
    let end = ["print ticks - $before", "set var stop_requested = 1"];
    let lines = guest.gdb(&[&to_hlt[..], &left, &on, &end].concat());
    assert_eq!(
        lines.last().map(String::as_str),
        Some("$1 = 5"),
        "{lines:#?}"
    );
    guest.vmm.process.expect_exit(0, tests::DEADLINE);
    assert!(guest.vmm.console().contains("timer: ok"));
}

/// The access is done, and the stop says so; the next step continues from there.
#[test]
fn a_step_over_a_trapped_access_is_one_step() {
    let mut guest = Guest::start("msr", "", 1);
    guest.vmm.process.wait_for("msr: ready", tests::DEADLINE);
    let lines = guest.gdb(&[
        "monitor trap msr kernel_gs_base",
        "continue",
        "monitor trap off",
        "tbreak *$pc - 2",
        "continue",
        "monitor trap msr kernel_gs_base",
        "set $at = $pc",
        "stepi",
        "print $pc - $at",
        "stepi",
        "print $pc != $at + 2",
        "monitor trap off",
        "set var stop_requested = 1",
    ]);
    for line in ["$1 = 2", "$2 = 1"] {
        assert!(
            lines.iter().any(|found| found == line),
            "{line}: {lines:#?}"
        );
    }
    guest.vmm.process.expect_exit(0, tests::DEADLINE);
}

/// The guest's handler maps the page and comes back.
#[test]
fn steps_run_through_a_page_fault() {
    let mut guest = Guest::start("watch", "", 1);
    guest.vmm.process.wait_for("watch: ready", tests::DEADLINE);
    let fault = [
        "tbreak touch",
        "continue",
        "next",
        "next",
        "set $before = faults",
    ];
    for step in ["next", "step", "stepi"] {
        let commands = [&fault[..], &[step, "print faults - $before"]].concat();
        let lines = guest.gdb(&commands);
        let end = &lines[lines.len() - 2..];
        assert_eq!(end, ["61\t\tfound = *far_page;", "$1 = 1"], "{lines:#?}");
    }
    let commands = [
        &fault[..],
        &[
            "break *$pc",
            "tbreak 62",
            "continue",
            "print faults - $before",
        ],
        &["continue", "info breakpoints"],
    ]
    .concat();
    let lines = guest.gdb(&commands);
    assert!(lines.contains(&"$1 = 1".to_owned()), "{lines:#?}");
    let hits = "\tbreakpoint already hit 1 time";
    assert_eq!(lines.last().map(String::as_str), Some(hits), "{lines:#?}");
    guest.gdb(&["set var stop_requested = 1"]);
    guest.vmm.process.expect_exit(0, tests::DEADLINE);
}
