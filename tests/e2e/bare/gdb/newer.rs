//! The main flows under a newer gdb than the system's.

use tests::{gdb, scratch};

use super::{Guest, MARK, answer};
use crate::host::provides;

#[test]
fn a_newer_gdb_attaches_breaks_steps_watches_and_leaves() {
    if !provides("gdb-newer") {
        return;
    }
    let guest = Guest::debuggee();
    let commands = [
        MARK,
        "break inner",
        "continue",
        "backtrace 2",
        "stepi",
        "finish",
        "delete",
        "watch loop_counter",
        "continue",
        "delete",
        "hbreak outer",
        "continue",
        "next",
        "info registers cs",
        "output primes[7]",
        "echo \\n",
        "set var primes[7] = 23",
        "output primes[7]",
        "echo \\n",
        "set var primes[7] = 19",
        "info threads",
        "monitor info host",
        "detach",
    ];
    for _ in 0..2 {
        let output = gdb::run_newer(guest.vmm.gdb_socket(), &commands);
        let name = guest.symbols.canonicalize().unwrap();
        let read = format!("Reading symbols from target:{}...", name.display());
        assert!(output.contains(&read), "{output}");
        assert!(!output.contains("warning: Remote"), "{output}");
        let lines = answer(&output);
        let mut left = lines.iter();
        for part in [
            "Breakpoint 1, inner (value=",
            "#1 ",
            "Value returned is $1 = 7",
            "Hardware watchpoint 2: loop_counter",
            "Old value = ",
            "New value = ",
            "Breakpoint 3, outer (value=",
            "cs             0x8 ",
            "19",
            "23",
            "* 1    Thread 1.1 (CPU 0, running, CPL 0) ",
            "ring 0: single-step",
        ] {
            assert!(
                left.any(|line| line.contains(part)),
                "no {part:?} in its place in\n{output}"
            );
        }
    }
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn a_newer_gdb_says_at_once_why_a_breakpoint_is_refused() {
    if !provides("gdb-newer") {
        return;
    }
    let guest = Guest::debuggee();
    let functions = ["inner", "middle", "outer", "sum_primes", "factorial"];
    let mut commands: Vec<_> = functions.map(|name| format!("hbreak {name}")).into();
    commands.extend(["continue", "delete"].map(str::to_owned));
    let unseen = ["break *0x8000000000000000", "continue", "delete"];
    commands.extend(unseen.map(str::to_owned));
    commands.extend(["monitor info host", "detach"].map(str::to_owned));
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    let output = gdb::run_newer(guest.vmm.gdb_socket(), &commands);
    let reason =
        "Cannot insert hardware breakpoint 4:Remote failure reply: hardware breakpoint at ";
    assert!(output.contains(reason), "{output}");
    let slots = " refused: all 4 hardware slots are taken: hbreak ";
    assert!(output.contains(slots), "{output}");
    // gdb shows no text of a software breakpoint.
    let (before, behind) = output.split_once("Cannot insert breakpoint").unwrap();
    let reason = "breakpoint at 0x8000000000000000 refused: ";
    assert!(
        !before.contains(reason) && behind.contains(reason),
        "{output}"
    );
    guest.finish();
}

/// By the packets for bytes, where runs are shortened, and by those for digits.
#[test]
fn a_newer_gdb_reads_the_same_memory_by_either_packet() {
    if !provides("gdb-newer") {
        return;
    }
    let guest = Guest::debuggee();
    let dir = scratch();
    let file = |name| dir.path().join(name);
    let dump = |name| format!("dump binary memory {} 0 0x400000", file(name).display());
    let (bytes, digits) = (dump("bytes"), dump("digits"));
    let commands = [
        &bytes,
        "set remote binary-upload-packet off",
        "maintenance flush dcache",
        &digits,
        "detach",
    ];
    let output = gdb::run_newer(guest.vmm.gdb_socket(), &commands);
    let read = |name| std::fs::read(file(name)).unwrap_or_else(|_| panic!("{output}"));
    let bytes = read("bytes");
    assert_eq!(bytes.len(), 0x40_0000, "{output}");
    assert!(bytes == read("digits"), "{output}");
    assert!(bytes.contains(&b'*'), "what must be escaped is among it");
    guest.expect_undisturbed();
    guest.finish();
}
