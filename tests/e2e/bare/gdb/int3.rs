//! The guest's own int3 instructions.

use tests::DEADLINE;

use super::{Guest, KERNEL_PAGES};

/// gdb has breakpoints planted that are never reached. The guest's own handler
/// gets the exception: it panics, and says where it came from, which is `@` in `panics`.
#[track_caller]
fn guest_gets_its_int3(case: &str, prepare: &str, panics: &[&str]) {
    let guest = Guest::held("misbehave", &format!("case={case}"), 1);
    let lines = guest.gdb(&[
        "tbreak main",
        "continue",
        prepare,
        "set breakpoint always-inserted on",
        "break do_reboot",
        "break spin_forever",
        "tbreak panic",
        "continue",
        "frame 4",
        "printf \"@%lx\\n\", $pc",
    ]);
    let trap = "#4  breakpoint () at guests/misbehave/cpu.c:70";
    assert!(lines.iter().any(|line| line == trap), "{lines:#?}");
    let behind = lines.iter().find_map(|line| line.strip_prefix('@'));
    let panic = guest.vmm.process.wait_for("panic: ", DEADLINE).text;
    assert!(
        panics
            .iter()
            .any(|expected| panic.starts_with(&expected.replace('@', behind.unwrap()))),
        "{panic}"
    );
}

/// Where KVM emulates ring 0 and knows no int3, it is gdb's presence that lets the
/// guest have it.
#[test]
fn int3_of_ring_0_reaches_the_guest() {
    let panic = "panic: vector 3 error 0 at 8:@ ";
    guest_gets_its_int3("int3", KERNEL_PAGES, &[panic]);
}

/// The guest's gate is not for ring 3, so that a processor raises #GP for gate 3
/// (SDM volume 3, 6.12.1.2). PVM hosts do not look.
#[test]
fn int3_of_ring_3_reaches_the_guest() {
    let panics = [
        "panic: vector 3 error 0 at 1b:@ ",
        "panic: vector 13 error 1a at 1b:",
    ];
    guest_gets_its_int3("int3-ring3", "echo", &panics);
}
