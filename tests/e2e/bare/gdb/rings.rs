//! The debuggee in ring 3, where hosts differ most.

use tests::DEADLINE;
use tests::process::wait_until;

use super::{Guest, MARK, ONE_RING};
use crate::host::{host, shown};

/// The debuggee in its endless loop in ring 3.
fn in_ring3() -> Guest {
    let guest = Guest::start("debug", "ring=3", 1);
    wait_until("the loop", DEADLINE, || guest.value("loop_counter") > 0);
    guest
}

#[test]
fn registers_and_memory_are_those_of_ring_3() {
    let guest = in_ring3();
    guest.expect(
        &["print/x $cs", "print/x $ss", "print primes[7]"],
        &["$1 = 0x1b", "$2 = 0x23", "$3 = 19"],
    );
    let lines = guest.gdb(&["info threads"]);
    assert!(lines[1].contains("(CPU 0, running, CPL 3)"), "{lines:#?}");
    guest.finish();
}

#[test]
fn breakpoints_and_steps_work() {
    let ring3 = host().ring3;
    if !shown(
        ring3.breaks() && ring3.step,
        "breakpoints and steps in ring 3",
    ) {
        return;
    }
    let guest = in_ring3();
    guest.expect_at_scenario(
        &[
            "break inner",
            "continue",
            "next",
            "stepi",
            "finish",
            "info threads",
            "continue",
        ],
        &[
            "Breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
            "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
            "61\t\twatched = doubled;",
            "0x0000000000100051\t61\t\twatched = doubled;",
            "middle (value=value@entry=2) at guests/debug/main.c:69",
            "69\t\treturn result + 10;",
            "Value returned is $1 = 7",
            "  Id   Target Id                          Frame ",
            "* 1    Thread 1.1 (CPU 0, running, CPL 3) middle (value=value@entry=2) at guests/debug/main.c:69",
            "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn refused_step_says_why_and_the_session_goes_on() {
    if host().ring3.step {
        shown(false, "the refusal of a single step");
        return;
    }
    let guest = in_ring3();
    let lines = guest.gdb(&["stepi", "print primes[7]", "next", "print primes[6]"]);
    let refusal =
        "the guest cannot be resumed: this host cannot single-step code at CPL 3, where vCPU 0 is";
    assert_eq!(lines[0], refusal, "{lines:#?}");
    assert_eq!(lines[1], "Program stopped.", "{lines:#?}");
    let said = |text: &str| lines.iter().filter(|line| *line == text).count();
    assert_eq!(said(refusal), 2, "{lines:#?}");
    assert_eq!(said("$1 = 19") + said("$2 = 17"), 2, "{lines:#?}");
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn breakpoint_that_only_ring_0_can_hit_says_so() {
    let (ring0, ring3) = (host().ring0, host().ring3);
    let differs = ring0.hardware && !ring3.hardware;
    if !shown(differs, "a breakpoint that only ring 0 can hit") {
        return;
    }
    let guest = Guest::debuggee();
    let transcript = guest.transcript(&[MARK, "break inner", "continue", "continue"]);
    let notice = format!("breakpoint at 0x10004b{ONE_RING}\n");
    assert_eq!(transcript.matches(&notice).count(), 1, "{transcript}");
    guest.finish();
}
