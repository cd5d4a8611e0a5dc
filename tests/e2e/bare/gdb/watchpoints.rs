//! Watchpoints, where the host traps data accesses.

use tests::DEADLINE;
use tests::process::wait_until;

use super::{Guest, MARK};
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
            "awatch watched",
            "continue",
            "monitor info host",
            "delete 2",
            "tbreak inner",
            "continue",
        ],
        &[
            "Hardware access (read/write) watchpoint 2: watched",
            "Warning:",
            "Could not insert hardware watchpoint 2.",
            "Could not insert hardware breakpoints:",
            "You may have requested too many hardware breakpoints/watchpoints.",
            "Command aborted.",
            "watchpoint at 0x103008 refused: this host traps no data access in ring 0 or 3, and only writes can be watched by write-protected pages",
            "ring 0: single-step traps, int3 traps, hardware breakpoint traps, watchpoint does not trap",
            "ring 3: single-step does not trap, int3 does not trap, hardware breakpoint does not trap, watchpoint does not trap",
            "Temporary breakpoint 3 at 0x10004b: file guests/debug/main.c, line 59.",
            "Temporary breakpoint 3, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
        ],
    );
    guest.finish();
}

/// The guest that writes to a table in every way, in its loop.
fn writer(cmdline: &str, cpus: usize) -> Guest {
    let guest = Guest::start("watch", cmdline, cpus);
    guest.vmm.process.wait_for("watch: ready", DEADLINE);
    guest
}

/// Lets it end. It counts its own writes, and crashes if one is lost.
fn finish(mut guest: Guest) {
    guest.gdb(&["set var stop_requested = 1"]);
    guest.vmm.process.expect_exit(0, DEADLINE);
    assert!(guest.vmm.console().contains("watch: ok"));
}

/// Which function a stop was in, in the order of the stops.
fn functions(lines: &[String]) -> Vec<&str> {
    let names = [
        "store (",
        "store_string (",
        "store_locked (",
        "store_across (",
        "write_all (",
    ];
    let stop = |line: &String| names.into_iter().find(|name| line.contains(name));
    lines.iter().filter_map(stop).collect()
}

#[test]
fn a_table_is_watched_through_every_kind_of_write() {
    if !shown(host().ring0.step, "wide watchpoints in ring 0") {
        return;
    }
    let guest = writer("", 1);
    let commands = [
        "tbreak write_all",
        "continue",
        MARK,
        "watch pages.table",
        "continue",
        "continue",
        "continue",
        "continue",
        "continue",
    ];
    let lines = super::answer(&guest.transcript(&commands));
    let expected = ["store (", "store_string (", "store_locked (", "write_all ("];
    // KVM emulates a string instruction in parts, the processor steps over all of it.
    let mut stops = functions(&lines);
    stops.dedup();
    assert!(stops.starts_with(&expected), "{lines:#?}");
    let notice = |text: &str| lines.iter().any(|line| line.contains(text));
    let first = "vCPU 0: 0x00 became 0x11 in the byte at 0x";
    let both = "vCPU 0: 0x0000 became 0x1111 in 2 bytes at 0x";
    assert!(notice(first) || notice(both), "{lines:#?}");
    assert!(
        notice("vCPU 0: 0x1111 became 0x0000 in 2 bytes at 0x"),
        "{lines:#?}"
    );
    finish(guest);
}

#[test]
fn a_table_is_watched_in_ring_3() {
    if !shown(host().ring3.step, "wide watchpoints in ring 3") {
        return;
    }
    let guest = writer("ring=3", 1);
    wait_until("the loop", DEADLINE, || guest.value("pass") > 0);
    let lines = guest.gdb(&["watch pages.table", "continue", "continue"]);
    assert_eq!(functions(&lines).len(), 2, "{lines:#?}");
    finish(guest);
}

#[test]
fn a_write_across_the_border_of_two_pages_is_seen() {
    if !shown(host().ring0.step, "wide watchpoints in ring 0") {
        return;
    }
    let guest = writer("", 1);
    let lines = guest.gdb(&["watch pages.border", "continue", "continue"]);
    // The byte that always changes is the first one: the lowest of the number.
    assert_eq!(functions(&lines), ["store_across ("; 2], "{lines:#?}");
    finish(guest);
}

/// All count in the page, with locked instructions, beside what is watched.
#[test]
fn writes_beside_a_watched_table_go_on_and_none_is_lost() {
    if !shown(host().ring0.step, "wide watchpoints in ring 0") {
        return;
    }
    let guest = writer("", 2);
    let before = guest.value("pages.counted");
    let lines = guest.gdb(&[
        "watch pages.table",
        "continue",
        "continue 30",
        "info watchpoints",
    ]);
    let hits = "breakpoint already hit 31 times";
    assert!(lines.iter().any(|line| line.contains(hits)), "{lines:#?}");
    assert!(guest.value("pages.counted") > before);
    finish(guest);
}

#[test]
fn nothing_is_protected_when_gdb_is_killed() {
    if !shown(host().ring0.step, "wide watchpoints in ring 0") {
        return;
    }
    let guest = writer("", 2);
    for command in ["print 1", "watch pages.fill", "watch pages.table"] {
        let gdb = guest.open(&[command, "continue"]);
        wait_until("the guest is watched", DEADLINE, || {
            gdb.printed(tests::process::Stream::Out)
                .contains("ontinuing")
        });
        gdb.signal(libc::SIGKILL);
        let before = guest.value("pages.counted");
        wait_until("the guest counts at full speed", DEADLINE, || {
            guest.value("pages.counted") > before + 1000
        });
    }
    let lines = guest.gdb(&["monitor info breakpoints"]);
    assert_eq!(lines.last().map(String::as_str), Some("  3: free"));
    finish(guest);
}

/// A host that steps no code of ring 3 cannot have it step over its writes.
#[test]
fn code_that_cannot_be_stepped_runs_on_unwatched_and_says_so() {
    if host().ring3.step {
        shown(false, "a wide watchpoint where ring 3 cannot be stepped");
        return;
    }
    let guest = Guest::start("watch", "ring=3", 1);
    wait_until("the loop", DEADLINE, || guest.value("pass") > 0);
    let gdb = guest.open(&["watch pages.table", "continue"]);
    let log = "nothing is watched until the next stop";
    wait_until("the notice", DEADLINE, || {
        guest.vmm.process.transcript().contains(log)
    });
    gdb.signal(libc::SIGKILL);
    let before = guest.value("pass");
    wait_until("it runs on", DEADLINE, || guest.value("pass") > before);
    finish(guest);
}
