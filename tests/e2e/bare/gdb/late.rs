//! Breakpoints in a page of the kernel's half that the guest maps later.

use tests::DEADLINE;

use super::{Guest, assert_lines};
use crate::host::{host, shown};

/// Where tests/guests/bare/guests/late/main.c maps its page, and the size of its
/// functions there, which are called one behind the other.
const LATE: u64 = 0xffff_ffff_8000_0000;
const FUNCTION: u64 = 16;

/// Makes the guest map the page when it resumes.
const MAP: &str = "set var map_requested = 1";

const SLOTS: usize = 4;
/// More breakpoints than there are slots, also where those are taken already.
const MANY: usize = 9;

fn ready() -> Guest {
    let guest = Guest::start("late", "", 1);
    guest.vmm.process.wait_for("late: ready", DEADLINE);
    guest
}

/// The addresses of the first functions.
fn functions(count: usize) -> Vec<String> {
    let address = |n| format!("{:#x}", LATE + n * FUNCTION);
    (0..count as u64).map(address).collect()
}

/// gdb's commands that set breakpoints there.
fn breaks(count: usize) -> Vec<String> {
    let functions = functions(count);
    functions.iter().map(|at| format!("break *{at}")).collect()
}

/// What gdb prints for `commands`, each of which is repeated so often.
fn run(guest: &Guest, breaks: &[String], more: &[(&str, usize)]) -> Vec<String> {
    let mut commands: Vec<&str> = breaks.iter().map(String::as_str).collect();
    for &(command, times) in more {
        commands.extend(std::iter::repeat_n(command, times));
    }
    guest.gdb(&commands)
}

/// Where gdb says that it has stopped.
fn stops(lines: &[String]) -> Vec<String> {
    let stops = lines.iter().filter_map(|line| {
        let (_, stop) = line.strip_prefix("Breakpoint ")?.split_once(", ")?;
        stop.strip_suffix(" in ?? ()")
    });
    stops.map(str::to_owned).collect()
}

/// The slots are there at the first call, and with the stop there gdb sets afresh what
/// has waited.
#[test]
fn breakpoints_take_slots_and_without_one_wait_for_their_page() {
    let ring0 = host().ring0;
    if !shown(ring0.hardware, "a breakpoint whose page is mapped later") {
        return;
    }
    let count = if ring0.int3 { MANY } else { SLOTS };
    let guest = ready();
    let commands = [(MAP, 1), ("continue", count), ("print loop_counter", 1)];
    let lines = run(&guest, &breaks(count), &commands);
    assert_eq!(stops(&lines), functions(count), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "$1 = 0", "none was passed by");
    let holders = breaks(SLOTS).join(", ").replace('*', "");
    let why =
        format!(" waits for its page to be mapped, and all 4 hardware slots are taken: {holders}");
    let waits: Vec<_> = lines.iter().filter(|line| line.ends_with(&why)).collect();
    assert_eq!(waits.len(), count - SLOTS, "{lines:#?}");
    guest.expect_undisturbed();
    guest.finish();
}

/// Nothing stops the guest until somebody has looked for the page. Which of them it
/// then comes to first is chance.
#[test]
fn more_breakpoints_than_slots_are_armed_in_a_guest_that_runs() {
    if !shown(host().ring0.int3, "breakpoints that wait for their page") {
        return;
    }
    let guest = ready();
    let code = guest.value("&late_code");
    // On what is never executed.
    let unused = (0..SLOTS).map(|n| format!("hbreak *{:#x}", LATE + 0x1000 + n as u64));
    let mut set = vec!["set breakpoint always-inserted on".to_owned()];
    set.extend(unused);
    set.extend(breaks(MANY));
    let show = "monitor info breakpoints";
    let commands = [
        (show, 1),
        (MAP, 1),
        ("continue", 1),
        (show, 1),
        ("continue", MANY),
    ];
    let lines = run(&guest, &set, &commands);

    let placed = lines.iter().filter(|line| line.starts_with("  break "));
    let placed: Vec<_> = placed.cloned().collect();
    let at = functions(MANY);
    let pending = at
        .iter()
        .map(|at| format!("  break {at}: pending, its page is not mapped"));
    let planted = at.iter().enumerate().map(|(n, at)| {
        format!(
            "  break {at}: int3 at physical {:#x}",
            code + n as u64 * FUNCTION
        )
    });
    let expected: Vec<_> = pending.chain(planted).collect();
    assert_eq!(placed, expected, "{lines:#?}");

    let stops = stops(&lines);
    let first = at.iter().position(|at| *at == stops[0]).unwrap();
    let expected: Vec<_> = at.iter().cycle().skip(first).take(MANY + 1).collect();
    assert_eq!(stops.iter().collect::<Vec<_>>(), expected, "{lines:#?}");
    guest.expect_undisturbed();
    guest.finish();
}

/// Where int3 would reach the guest, only a slot can be there before the page is.
#[test]
fn breakpoint_that_cannot_wait_says_why() {
    let ring0 = host().ring0;
    if ring0.int3 || !ring0.hardware {
        shown(
            false,
            "the refusal of a breakpoint whose page is not mapped",
        );
        return;
    }
    let guest = ready();
    let commands = [("continue", 1), ("delete 5", 1), (MAP, 1), ("continue", 1)];
    let lines = run(&guest, &breaks(SLOTS + 1), &commands);
    assert_lines(
        &lines[SLOTS + 1..],
        &[
            "Warning:",
            "Cannot insert breakpoint 5.",
            "Cannot access memory at address 0xffffffff80000040",
            "Command aborted.",
            "breakpoint at 0xffffffff80000040 refused: its page is not mapped yet, and all 4 hardware slots are taken: break 0xffffffff80000000, break 0xffffffff80000010, break 0xffffffff80000020, break 0xffffffff80000030",
            "Breakpoint 1, 0xffffffff80000000 in ?? ()",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}
