//! The guest's own int3 instructions.

use tests::DEADLINE;

use super::{Guest, KERNEL_PAGES};

/// Lines of the guest's: its int3, and what follows.
const INT3: u32 = 69;
const BEHIND: u32 = 70;

/// gdb has breakpoints planted that are never reached. The guest's own handler
/// gets the exception: it panics, and says where it came from, which is `@` in `ends`
/// beside the line that gdb shows for it.
#[track_caller]
fn guest_gets_its_int3(case: &str, prepare: &str, ends: &[(u32, &str)]) {
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
    let place = lines.iter().find_map(|line| line.strip_prefix('@'));
    let place = place.unwrap_or_else(|| panic!("{lines:#?}"));
    let panic = guest.vmm.process.wait_for("panic: ", DEADLINE).text;
    let is_right = |(line, panics): &(u32, &str)| {
        let trap = format!("#4  breakpoint () at guests/misbehave/cpu.c:{line}");
        lines.contains(&trap) && panic.starts_with(&panics.replace('@', place))
    };
    assert!(ends.iter().any(is_right), "{panic}: {lines:#?}");
}

/// Where KVM emulates ring 0 and knows no int3, it is gdb's presence that lets the
/// guest have it.
#[test]
fn int3_of_ring_0_reaches_the_guest() {
    let behind = (BEHIND, "panic: vector 3 error 0 at 8:@ ");
    guest_gets_its_int3("int3", KERNEL_PAGES, &[behind]);
}

/// The guest's gate is not for ring 3, so that a processor raises #GP for gate 3
/// (SDM volume 3, 7.12.1.2) at the int3. PVM hosts do not look.
#[test]
fn int3_of_ring_3_reaches_the_guest() {
    let ends = [
        (BEHIND, "panic: vector 3 error 0 at 1b:@ "),
        (INT3, "panic: vector 13 error 1a at 1b:@ "),
    ];
    guest_gets_its_int3("int3-ring3", "echo", &ends);
}
