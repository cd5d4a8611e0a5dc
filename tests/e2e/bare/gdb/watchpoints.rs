//! Watchpoints, where the host traps data accesses.

use super::Guest;
use crate::host::{host, shown};

#[test]
fn watchpoints_stop_at_writes_and_reads() {
    if !shown(host().ring0.watch, "watchpoints in ring 0") {
        return;
    }
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "set var loop_counter = 1000",
            "watch loop_counter",
            "continue",
            "continue",
            "delete",
            "awatch watched",
            "continue",
            "delete",
            "rwatch primes[7]",
            "continue",
        ],
        &[
            "Hardware watchpoint 2: loop_counter",
            "Hardware watchpoint 2: loop_counter",
            "Old value = 1000",
            "New value = 1001",
            "loop_forever (passes=0) at guests/debug/main.c:134",
            "134\t\twhile (!stop_requested && (passes == 0 || loop_counter < passes)) {",
            "Hardware watchpoint 2: loop_counter",
            "Old value = 1001",
            "New value = 1002",
            "loop_forever (passes=0) at guests/debug/main.c:134",
            "134\t\twhile (!stop_requested && (passes == 0 || loop_counter < passes)) {",
            "Hardware access (read/write) watchpoint 3: watched",
            "Hardware access (read/write) watchpoint 3: watched",
            "Value = 6",
            "inner (value=value@entry=3) at guests/debug/main.c:62",
            "62\t\treturn doubled + 1;",
            "Hardware read watchpoint 4: primes[7]",
            "Hardware read watchpoint 4: primes[7]",
            "Value = 19",
            "sum_primes () at guests/debug/main.c:83",
            "83\t\tfor (u32 i = 0; i < ARRAY_SIZE(primes); i++)",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn refused_watchpoint_says_why_and_the_session_goes_on() {
    if host().ring0.watch || host().ring3.watch {
        shown(false, "the refusal of a watchpoint");
        return;
    }
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "watch watched",
            "continue",
            "monitor info host",
            "delete 2",
            "tbreak inner",
            "continue",
        ],
        &[
            "Hardware watchpoint 2: watched",
            "Warning:",
            "Could not insert hardware watchpoint 2.",
            "Could not insert hardware breakpoints:",
            "You may have requested too many hardware breakpoints/watchpoints.",
            "Command aborted.",
            "watchpoint at 0x103008 refused: this host traps no data access in ring 0 or 3",
            "ring 0: single-step traps, int3 traps, hardware breakpoint traps, watchpoint does not trap",
            "ring 3: single-step does not trap, int3 does not trap, hardware breakpoint does not trap, watchpoint does not trap",
            "Temporary breakpoint 3 at 0x10004b: file guests/debug/main.c, line 59.",
            "Temporary breakpoint 3, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
        ],
    );
    guest.finish();
}
