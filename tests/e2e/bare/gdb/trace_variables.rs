//! Trace state variables: what conditions and actions of tracepoints share.

use super::{Guest, assert_lines};

#[test]
fn a_variable_counts_what_is_not_worth_a_frame() {
    let guest = Guest::debuggee();
    // Five calls of factorial in a pass, and one of inner.
    let script = "\
tvariable $calls = 100
tvariable $untouched = -7
trace factorial if ($calls = $calls + 1) < 0
trace inner if $calls == 110 || $calls == 120
actions
collect $calls
teval $calls = $calls + 0
end
tstart
";
    let commands = [
        "break scenario",
        "eval \"monitor break-if %#lx hits=5\", scenario",
        "continue",
        "tstop",
        "info tvariables",
        "print $calls",
        "tfind start",
        "print $calls",
        "tdump",
        "tfind",
        "print $calls",
        "print $untouched",
        "tfind",
        "tfind none",
    ];
    assert_lines(
        &guest.trace(script, &commands),
        &[
            "Breakpoint 4 at 0x10012b: file guests/debug/main.c, line 123.",
            "breakpoints at 0x10012b stop the guest if hits=5",
            "Breakpoint 4, scenario () at guests/debug/main.c:123",
            "123\t{",
            "warning: Target does not support trace notes, note ignored",
            "Name            Initial     Current     ",
            "$calls          100         125         ",
            "$untouched      -7          -7          ",
            "$1 = 125",
            "Found trace frame 0, tracepoint 3",
            "$2 = 110",
            "Data collected at tracepoint 3, trace frame 0:",
            "$calls = 110",
            "Found trace frame 1, tracepoint 3",
            "$3 = 120",
            "$4 = void",
            "No trace frame found",
            "No longer looking at any trace frame",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}
