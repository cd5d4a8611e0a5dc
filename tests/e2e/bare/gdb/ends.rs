//! The guest's beginning, its ends, and what a gdb that watches sees of them.

use tests::process::Stream;
use tests::{DEADLINE, gdb};

use super::{Guest, KERNEL_PAGES, MARK, answer, assert_lines};
use crate::host::{host, shown};

#[test]
fn held_guest_stands_at_the_pvh_entry() {
    let guest = Guest::held("debug", "passes=1", 2);
    guest.expect(
        &[
            "info threads",
            "print $rip == (unsigned long)&pvh_start",
            // hvm_start_info, by its magic number.
            "print/x *(unsigned int *)$rbx",
            "info registers eflags cs ss ds es cr0 cr3 cr4 efer",
            "x/i $rip",
            "stepi",
            "stepi",
            "print loop_counter",
        ],
        &[
            "  Id   Target Id                              Frame ",
            "* 1    Thread 1.1 (CPU 0, running, CPL 0)     pvh_start () at lib/start.S:67",
            "  2    Thread 1.2 (CPU 1, not started, CPL 0) 0x00000000fffffff0 in ?? ()",
            "$1 = 1",
            "$2 = 0x336ec578",
            "eflags         0x2                 [ IOPL=0 ]",
            "cs             0x10                16",
            "ss             0x18                24",
            "ds             0x18                24",
            "es             0x18                24",
            "cr0            0x11                [ PE ET ]",
            "cr3            0x0                 0",
            "cr4            0x0                 [ ]",
            "efer           0x0                 [ ]",
            "=> 0x100244 <pvh_start>:\tcli",
            "vCPU 0 runs i386 code, gdb has i386:x86-64: \"unset tdesc filename\" has it look again",
            "68\t\tcld",
            "69\t\tmovl\t%ebx, %edi",
            "$3 = 0",
        ],
    );
}

#[test]
fn held_guest_stops_at_an_early_breakpoint() {
    let mut guest = Guest::held("debug", "passes=3", 1);
    guest.expect(
        &[
            "hbreak main",
            "continue",
            "backtrace",
            "print loop_counter",
            "delete",
            "break outer",
            "continue 3",
            "print loop_counter",
            "delete",
            "continue",
        ],
        &[
            "Hardware assisted breakpoint 1 at 0x1001cb: file guests/debug/main.c, line 142.",
            "Breakpoint 1, main () at guests/debug/main.c:142",
            "142\t{",
            "#0  main () at guests/debug/main.c:142",
            "$1 = 0",
            "Breakpoint 2 at 0x10006d: file guests/debug/main.c, line 73.",
            "Breakpoint 2, outer (value=value@entry=1) at guests/debug/main.c:73",
            "73\t{",
            "$2 = 0",
            "[Inferior 1 (process 1) exited normally]",
        ],
    );
    guest.vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn power_off_is_an_exit() {
    let mut guest = Guest::held("hello", "", 2);
    guest.expect(&["continue"], &["[Inferior 1 (process 1) exited normally]"]);
    guest.vmm.process.expect_exit(0, DEADLINE);
}

/// What gdb shows of a crash in triple_fault(), on the host's terms: the
/// first `always` lines, and the others where the host keeps the registers.
///
/// Where the instructions are depends on the whole program: each is `@`.
#[track_caller]
fn assert_crash(found: &[String], always: usize, expected: &[&str]) {
    let found = &without_address(found, " in triple_fault () at");
    let found = &without_address(found, " in crash_ap (");
    if shown(
        host().keeps_registers_of_crash,
        "the registers of a triple fault",
    ) {
        assert_lines(found, expected);
    } else {
        assert_lines(&found[..always], &expected[..always]);
    }
}

/// `lines` with `@` for the address that stands before `mark` in one of them.
fn without_address(lines: &[String], mark: &str) -> Vec<String> {
    let before = lines.iter().find_map(|line| line.split_once(mark));
    let address = before.and_then(|(before, _)| before.split_whitespace().last());
    let Some(long) = address else {
        return lines.to_vec();
    };
    let short = format!(
        "0x{}",
        long.trim_start_matches("0x").trim_start_matches('0')
    );
    let replaced = lines.iter().map(|line| line.replace(long, "@"));
    replaced.map(|line| line.replace(&short, "@")).collect()
}

#[test]
fn crashed_guest_is_kept_until_gdb_leaves() {
    let mut guest = Guest::debuggee();
    let lines = guest.gdb_at_scenario(&[
        "set $rip = triple_fault",
        "continue",
        "backtrace 1",
        "x/i $rip",
        "print primes[7]",
        "info threads",
        "monitor info vcpus",
        "continue",
    ]);
    assert_crash(
        &lines,
        2,
        &[
            "vCPU 0 crashed: triple fault",
            "Program received signal SIGABRT, Aborted.",
            "@ in triple_fault () at lib/power.c:56",
            "56\t\t__asm__ volatile(\"lidt %0; ud2\" : : \"m\"(no_idt));",
            "#0  @ in triple_fault () at lib/power.c:56",
            "=> @ <triple_fault+35>:\tud2",
            "$1 = 19",
            "  Id   Target Id                          Frame ",
            "* 1    Thread 1.1 (CPU 0, crashed, CPL 0) @ in triple_fault () at lib/power.c:56",
            "* CPU 0, crashed, CPL 0, rip @, cr3 0x106000: triple fault",
            "vCPU 0 crashed: it cannot continue unless its registers are changed",
            "Program received signal SIGABRT, Aborted.",
            "@ in triple_fault () at lib/power.c:56",
            "56\t\t__asm__ volatile(\"lidt %0; ud2\" : : \"m\"(no_idt));",
        ],
    );
    guest.vmm.process.expect_exit(3, DEADLINE);
    assert!(guest.vmm.messages().contains("vCPU 0: triple fault"));
}

#[test]
fn crash_of_another_vcpu_is_shown_on_its_thread() {
    let guest = Guest::held("misbehave", "case=ap-triple-fault", 2);
    let lines = guest.gdb(&["continue", "backtrace 2"]);
    assert_crash(
        &lines,
        3,
        &[
            "vCPU 1 crashed: triple fault",
            "Thread 2 received signal SIGABRT, Aborted.",
            "[Switching to Thread 1.2]",
            "@ in triple_fault () at lib/power.c:56",
            "56\t\t__asm__ volatile(\"lidt %0; ud2\" : : \"m\"(no_idt));",
            "#0  @ in triple_fault () at lib/power.c:56",
            "#1  @ in crash_ap (index=index@entry=1) at guests/misbehave/cpu.c:118",
        ],
    );
}

/// gdb has only looked, and is gone when the guest crashes.
#[test]
fn crash_ends_the_machine_when_gdb_has_left() {
    let mut guest = Guest::debuggee();
    guest.gdb(&["set var primes[0] = 0"]);
    guest.vmm.process.expect_exit(3, DEADLINE);
    assert!(
        guest
            .vmm
            .console()
            .contains("panic: debug: scenario went wrong")
    );
}

#[test]
fn kill_ends_the_guest_only_if_it_may() {
    let guest = Guest::debuggee();
    guest.gdb(&["kill"]);
    guest.finish();

    let mut guest = Guest::launch("debug", |vmm| vmm.gdb_kill());
    guest.vmm.process.wait_for("debug: ready", DEADLINE);
    guest.gdb(&["break inner", "detach"]);
    guest.gdb(&["kill"]);
    guest.vmm.process.expect_exit(0, DEADLINE);
    assert!(!guest.vmm.console().contains("panic"));
}

/// The kernel is loaded again, which removes planted bytes.
#[test]
fn reboot_is_a_stop_and_breakpoints_survive_it() {
    let guest = Guest::debuggee();
    let lines = guest.gdb_at_scenario(&[
        KERNEL_PAGES,
        "hbreak middle",
        "break inner",
        "set $rip = reboot",
        "continue",
        "print $rip == (unsigned long)&pvh_start",
        "printf \"@rebooted\\n\"",
        "continue",
        "continue",
        "continue",
    ]);
    let reset = "the guest was reset; breakpoints are planted again when it resumes";
    assert_eq!(lines[2], reset, "{lines:#?}");
    let mode = "vCPU 0 runs i386 code, gdb has i386:x86-64";
    assert!(lines[3].starts_with(mode), "{lines:#?}");
    let stop = "Program received signal SIGTRAP, Trace/breakpoint trap.";
    assert_eq!(lines[4], stop, "{lines:#?}");
    assert!(lines.contains(&"$1 = 1".to_owned()), "{lines:#?}");
    let rebooted = lines.iter().position(|line| line == "@rebooted").unwrap();
    for stop in ["Breakpoint 2, middle (", "Breakpoint 3, inner ("] {
        let hits = lines[rebooted..]
            .iter()
            .filter(|line| line.starts_with(stop));
        assert!(hits.count() >= 1, "{lines:#?}");
    }
    guest.expect_undisturbed();
    assert_eq!(guest.vmm.console().matches("debug: ready").count(), 2);
    guest.finish();
}

#[test]
fn end_by_a_signal_is_an_exit_while_gdb_waits() {
    let mut guest = Guest::held("debug", "", 1);
    let mut gdb = gdb::start_merged(guest.vmm.gdb_socket(), &guest.symbols, &[MARK, "continue"]);
    guest.vmm.process.wait_for("debug: ready", DEADLINE);
    guest.vmm.process.signal(libc::SIGTERM);
    guest.vmm.process.expect_exit(0, DEADLINE);
    gdb.expect_exit(0, DEADLINE);
    let expected = ["[Inferior 1 (process 1) exited normally]"];
    assert_lines(&answer(&gdb.printed(Stream::Out)), &expected);
}

#[test]
fn end_by_a_signal_does_not_wait_for_gdb() {
    let mut guest = Guest::debuggee();
    let _stopped = guest.open(&[]);
    guest.vmm.process.signal(libc::SIGTERM);
    guest.vmm.process.expect_exit(0, DEADLINE);
}
