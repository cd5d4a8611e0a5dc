//! Software and hardware breakpoints.

use super::{Guest, KERNEL_PAGES};
use crate::host::{host, shown};

/// In pages as they are, and in pages of ring 0's alone: the host decides which
/// of the two gets int3s and which hardware slots.
fn with_both_kinds_of_page(test: impl Fn(&Guest, &str)) {
    for prepare in ["echo", KERNEL_PAGES] {
        let guest = Guest::debuggee();
        test(&guest, prepare);
        guest.expect_undisturbed();
        guest.finish();
    }
}

#[test]
fn software_breakpoints_are_hit_every_time_and_can_be_deleted() {
    with_both_kinds_of_page(|guest, prepare| {
        guest.expect_at_scenario(
            &[
                prepare,
                "break inner",
                "continue",
                "continue",
                "break sum_primes",
                "continue",
                "continue",
                "info breakpoints",
                "delete 2",
                "continue",
                "continue",
            ],
            &[
                "Breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
                "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
                "59\t\tint doubled = value * 2;",
                "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
                "59\t\tint doubled = value * 2;",
                "Breakpoint 3 at 0x10007e: file guests/debug/main.c, line 83.",
                "Breakpoint 3, sum_primes () at guests/debug/main.c:83",
                "83\t\tfor (u32 i = 0; i < ARRAY_SIZE(primes); i++)",
                "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
                "59\t\tint doubled = value * 2;",
                "Num     Type           Disp Enb Address            What",
                "2       breakpoint     keep y   0x000000000010004b in inner at guests/debug/main.c:59",
                "\tbreakpoint already hit 3 times",
                "3       breakpoint     keep y   0x000000000010007e in sum_primes at guests/debug/main.c:83",
                "\tbreakpoint already hit 1 time",
                "Breakpoint 3, sum_primes () at guests/debug/main.c:83",
                "83\t\tfor (u32 i = 0; i < ARRAY_SIZE(primes); i++)",
                "Breakpoint 3, sum_primes () at guests/debug/main.c:83",
                "83\t\tfor (u32 i = 0; i < ARRAY_SIZE(primes); i++)",
            ],
        );
    });
}

#[test]
fn conditions_and_ignore_counts_are_kept() {
    with_both_kinds_of_page(|guest, prepare| {
        guest.expect_at_scenario(
            &[
                prepare,
                "break factorial if n == 2",
                "continue",
                "backtrace",
                "ignore 2 3",
                "set $before = loop_counter",
                "continue",
                "print loop_counter - $before",
            ],
            &[
                "Breakpoint 2 at 0x100020: file guests/debug/main.c, line 52.",
                "Breakpoint 2, factorial (n=n@entry=2) at guests/debug/main.c:52",
                "52\t\tif (n <= 1)",
                "#0  factorial (n=n@entry=2) at guests/debug/main.c:52",
                "#1  0x000000000010003b in factorial (n=n@entry=3) at guests/debug/main.c:54",
                "#2  0x000000000010003b in factorial (n=n@entry=4) at guests/debug/main.c:54",
                "#3  0x000000000010003b in factorial (n=n@entry=5) at guests/debug/main.c:54",
                "#4  0x000000000010013c in scenario () at guests/debug/main.c:124",
                "#5  0x000000000010017a in loop_forever (passes=0) at guests/debug/main.c:135",
                "#6  0x0000000000100215 in main () at guests/debug/main.c:148",
                "Breakpoint 2, factorial (n=n@entry=2) at guests/debug/main.c:52",
                "52\t\tif (n <= 1)",
                "$1 = 4",
            ],
        );
    });
}

/// gdb evaluates a condition again when it hears of a hit: that it has heard of no other
/// is what the bench counts (`make bench gdb`).
#[test]
fn conditions_are_evaluated_in_the_vmm() {
    with_both_kinds_of_page(|guest, prepare| {
        guest.expect_at_scenario(
            &[
                prepare,
                "break factorial if n == 2",
                "continue",
                "info breakpoints",
            ],
            &[
                "Breakpoint 2 at 0x100020: file guests/debug/main.c, line 52.",
                "Breakpoint 2, factorial (n=n@entry=2) at guests/debug/main.c:52",
                "52\t\tif (n <= 1)",
                "Num     Type           Disp Enb Address            What",
                "2       breakpoint     keep y   0x0000000000100020 in factorial at guests/debug/main.c:52",
                "\tstop only if n == 2 (target evals)",
                "\tbreakpoint already hit 1 time",
            ],
        );
    });
}

#[test]
fn dprintf_prints_while_the_guest_runs() {
    with_both_kinds_of_page(|guest, prepare| {
        guest.expect_at_scenario(
            &[
                prepare,
                "set dprintf-style agent",
                "dprintf factorial,\"factorial of %lu\\n\", n",
                "break sum_primes",
                "continue",
            ],
            &[
                "Dprintf 2 at 0x100020: file guests/debug/main.c, line 52.",
                "Breakpoint 3 at 0x10007e: file guests/debug/main.c, line 83.",
                "factorial of 5",
                "factorial of 4",
                "factorial of 3",
                "factorial of 2",
                "factorial of 1",
                "Breakpoint 3, sum_primes () at guests/debug/main.c:83",
                "83\t\tfor (u32 i = 0; i < ARRAY_SIZE(primes); i++)",
            ],
        );
    });
}

#[test]
fn planted_bytes_are_hidden_and_the_hosts_way_is_taken() {
    with_both_kinds_of_page(|guest, prepare| {
        let bytes = "0x10004b <inner>:\t0x8d\t0x04\t0x3f\t0x48\t0x63\t0xd0\t0x48\t0x89";
        let kernel_only = prepare == KERNEL_PAGES;
        let planted = host().plants_in_shared_pages() || (kernel_only && host().ring0.int3);
        let placement = if planted {
            "  break 0x10004b: int3 at physical 0x10004b"
        } else {
            "  break 0x10004b: hardware slot"
        };
        let slot = if planted {
            "  0: free"
        } else {
            "  0: execute 0x10004b, 1 bytes, for break 0x10004b"
        };
        guest.expect_at_scenario(
            &[
                prepare,
                "x/8xb inner",
                "set breakpoint always-inserted on",
                "break inner",
                "monitor info breakpoints",
                "x/8xb inner",
                "continue",
                "x/8xb inner",
            ],
            &[
                bytes,
                "Breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
                "planted now (gdb plants when it resumes the guest):",
                placement,
                "hardware slots:",
                slot,
                "  1: free",
                "  2: free",
                "  3: free",
                bytes,
                "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
                "59\t\tint doubled = value * 2;",
                bytes,
            ],
        );
    });
}

#[test]
fn write_over_a_breakpoint_goes_beneath_it() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            KERNEL_PAGES,
            "set breakpoint always-inserted on",
            "break inner",
            // lea (%rdi,%rdi),%eax becomes lea (%rdi,%rdi,2),%eax, and again as it was.
            "set var *(unsigned char[3] *)inner = {0x8d, 0x04, 0x7f}",
            "x/3xb inner",
            "continue",
            "stepi",
            "print $eax",
            "set $eax = 6",
            "set var *(unsigned char[3] *)inner = {0x8d, 0x04, 0x3f}",
            "x/3xb inner",
            "continue",
        ],
        &[
            "Breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
            "0x10004b <inner>:\t0x8d\t0x04\t0x7f",
            "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
            "61\t\twatched = doubled;",
            "$1 = 9",
            "0x10004b <inner>:\t0x8d\t0x04\t0x3f",
            "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn more_than_four_software_breakpoints_where_int3_traps() {
    if !shown(host().ring0.int3, "more than four breakpoints at a time") {
        return;
    }
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            KERNEL_PAGES,
            "break factorial if n == 5",
            "break outer",
            "break middle",
            "break inner",
            "break sum_primes",
            "break load_registers",
            "continue",
            "continue",
            "continue",
            "continue",
            "continue",
            "continue",
            "continue",
        ],
        &[
            "Breakpoint 2 at 0x100020: file guests/debug/main.c, line 52.",
            "Breakpoint 3 at 0x10006d: file guests/debug/main.c, line 73.",
            "Breakpoint 4 at 0x10005c: file guests/debug/main.c, line 66.",
            "Breakpoint 5 at 0x10004b: file guests/debug/main.c, line 59.",
            "Breakpoint 6 at 0x10007e: file guests/debug/main.c, line 83.",
            "Breakpoint 7 at 0x10009e: file guests/debug/main.c, line 93.",
            "Breakpoint 2, factorial (n=n@entry=5) at guests/debug/main.c:52",
            "52\t\tif (n <= 1)",
            "Breakpoint 3, outer (value=value@entry=1) at guests/debug/main.c:73",
            "73\t{",
            "Breakpoint 4, middle (value=value@entry=2) at guests/debug/main.c:66",
            "66\t{",
            "Breakpoint 5, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
            "Breakpoint 6, sum_primes () at guests/debug/main.c:83",
            "83\t\tfor (u32 i = 0; i < ARRAY_SIZE(primes); i++)",
            "Breakpoint 7, load_registers () at guests/debug/main.c:93",
            "93\t{",
            "Breakpoint 2, factorial (n=n@entry=5) at guests/debug/main.c:52",
            "52\t\tif (n <= 1)",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn hardware_breakpoints_are_hit() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "set breakpoint always-inserted on",
            "hbreak inner",
            "monitor info breakpoints",
            "continue",
            "continue",
            "info breakpoints",
        ],
        &[
            "Hardware assisted breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
            "planted now (gdb plants when it resumes the guest):",
            "hardware slots:",
            "  0: execute 0x10004b, 1 bytes, for hbreak 0x10004b",
            "  1: free",
            "  2: free",
            "  3: free",
            "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
            "Breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
            "Num     Type           Disp Enb Address            What",
            "2       hw breakpoint  keep y   0x000000000010004b in inner at guests/debug/main.c:59",
            "\tbreakpoint already hit 2 times",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn fifth_hardware_breakpoint_is_refused_with_the_holders_named() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "hbreak *registers_loaded",
            "hbreak *registers_loaded + 4",
            "hbreak *registers_loaded + 8",
            "hbreak *registers_loaded + 12",
            "hbreak inner",
            "continue",
            "delete 6",
            "continue",
            "continue",
        ],
        &[
            "Hardware assisted breakpoint 2 at 0x100113: file guests/debug/main.c, line 94.",
            "Hardware assisted breakpoint 3 at 0x100117: file guests/debug/main.c, line 94.",
            "Hardware assisted breakpoint 4 at 0x10011b: file guests/debug/main.c, line 94.",
            "Hardware assisted breakpoint 5 at 0x10011f: file guests/debug/main.c, line 94.",
            "Hardware assisted breakpoint 6 at 0x10004b: file guests/debug/main.c, line 59.",
            "Warning:",
            "Cannot insert hardware breakpoint 5.",
            "Could not insert hardware breakpoints:",
            "You may have requested too many hardware breakpoints/watchpoints.",
            "Command aborted.",
            "hardware breakpoint at 0x10011f refused: all 4 hardware slots are taken: hbreak 0x10004b, hbreak 0x100113, hbreak 0x100117, hbreak 0x10011b",
            "Breakpoint 2, 0x0000000000100113 in load_registers () at guests/debug/main.c:94",
            "94\t\t__asm__ volatile(",
            "Breakpoint 3, 0x0000000000100117 in load_registers () at guests/debug/main.c:94",
            "94\t\t__asm__ volatile(",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

/// A breakpoint that needs a slot, because int3 would reach the guest, is refused
/// with this reason.
#[test]
fn software_breakpoint_without_a_slot_says_why() {
    if host().plants_in_shared_pages() {
        shown(false, "a software breakpoint that is left without a slot");
        return;
    }
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "hbreak inner",
            "hbreak middle",
            "hbreak outer",
            "hbreak sum_primes",
            "break load_registers",
            "continue",
            "delete 6",
            "continue",
        ],
        &[
            "Hardware assisted breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
            "Hardware assisted breakpoint 3 at 0x10005c: file guests/debug/main.c, line 66.",
            "Hardware assisted breakpoint 4 at 0x10006d: file guests/debug/main.c, line 73.",
            "Hardware assisted breakpoint 5 at 0x10007e: file guests/debug/main.c, line 83.",
            "Breakpoint 6 at 0x10009e: file guests/debug/main.c, line 93.",
            "Warning:",
            "Cannot insert breakpoint 6.",
            "Cannot access memory at address 0x10009e",
            "Command aborted.",
            "breakpoint at 0x10009e refused: this host does not trap int3 in ring 0 or 3, and all 4 hardware slots are taken: hbreak 0x10004b, hbreak 0x10005c, hbreak 0x10006d, hbreak 0x10007e",
            "Breakpoint 4, outer (value=value@entry=1) at guests/debug/main.c:73",
            "73\t{",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}
