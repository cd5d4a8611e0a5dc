//! Guest memory by virtual address.

use super::Guest;

#[test]
fn variables_are_printed_by_their_types() {
    let guest = Guest::debuggee();
    guest.expect(
        &[
            "print *first_widget.next",
            // Addresses change with every change of the guests' library.
            "set print address off",
            "print first_widget",
            "print primes",
            "print greeting",
            "ptype first_widget.corner",
        ],
        &[
            "$1 = {name = \"second\\000\\000\\000\\000\\000\\000\\000\\000\\000\", id = 2, \
             colour = BLUE, corner = {x = -3, y = 4}, serial = 1234605616436508552, next = 0x0}",
            "$2 = {name = \"first\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\", id = 1, \
             colour = GREEN, corner = {x = 10, y = -20}, serial = 18369614221190020847, \
             next = <second_widget>}",
            "$3 = {2, 3, 5, 7, 11, 13, 17, 19}",
            "$4 = \"hello gdb\"",
            "type = struct point {",
            "    int x;",
            "    int y;",
            "}",
        ],
    );
    guest.finish();
}

#[test]
fn written_memory_is_read_back_and_used_by_the_guest() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "set var greeting = \"HELLO GDB\"",
            "x/s greeting",
            "tbreak sum_primes",
            "continue",
            "set var primes[0] = 102",
            "finish",
            // The debuggee checks the sum, which must be right again.
            "set var primes[0] = 2",
            "set $rax = 77",
        ],
        &[
            "0x104000 <greeting>:\t\"HELLO GDB\"",
            "Temporary breakpoint 2 at 0x10007e: file guests/debug/main.c, line 83.",
            "Temporary breakpoint 2, sum_primes () at guests/debug/main.c:83",
            "83\t\tfor (u32 i = 0; i < ARRAY_SIZE(primes); i++)",
            "0x0000000000100154 in scenario () at guests/debug/main.c:127",
            "127\t\tresult += sum_primes();",
            "Value returned is $1 = 177",
        ],
    );
    guest.finish();
}

#[test]
fn accesses_cross_page_borders() {
    let guest = Guest::debuggee();
    // Two small pages' border, and that of two large ones.
    for border in ["0x1ff000", "0x200000"] {
        let command = |text: &str| text.replace("BORDER", border);
        let lines = guest.gdb(&[
            &command("set var {unsigned long}(BORDER - 3) = 0x0807060504030201"),
            &command("x/8xb BORDER - 3"),
            &command("output/x {unsigned int}(BORDER - 1)"),
        ]);
        let bytes = lines[0].split_once(":\t").map(|(_, bytes)| bytes);
        assert_eq!(
            bytes,
            Some("0x01\t0x02\t0x03\t0x04\t0x05\t0x06\t0x07\t0x08"),
            "{lines:#?}"
        );
        assert!(lines[1].starts_with("0x6050403"), "{lines:#?}");
    }
    guest.finish();
}

#[test]
fn unmapped_and_absent_memory_is_an_error_and_the_session_goes_on() {
    let guest = Guest::debuggee();
    guest.expect(
        &[
            // 64 MiB of RAM end here; the page tables map more.
            "x/8xb 0x4000000 - 4",
            "x/xb 0x4000000",
            // 4 GiB are mapped.
            "x/xg 0x100000000",
            "x/xg 0xffffffff80000000",
            // Not canonical.
            "x/xg 0x8000000000000000",
            "set var {int}0x4000000 = 1",
            "set var {int}0x100000000 = 1",
            "print primes[7]",
        ],
        &[
            "0x3fffffc:\t0x00\t0x00\t0x00\t0x00\tCannot access memory at address 0x4000000",
            "0x4000000:\tCannot access memory at address 0x4000000",
            "0x100000000:\tCannot access memory at address 0x100000000",
            "0xffffffff80000000:\tCannot access memory at address 0xffffffff80000000",
            "0x8000000000000000:\tCannot access memory at address 0x8000000000000000",
            "Cannot access memory at address 0x4000000",
            "Cannot access memory at address 0x100000000",
            "$1 = 19",
        ],
    );
    guest.finish();
}

#[test]
fn large_reads_are_whole() {
    let guest = Guest::debuggee();
    let file = guest.dir.path().join("ram");
    let commands = [
        "tbreak scenario",
        "continue",
        &format!("dump binary memory {} 0x100000 0x400000", file.display()),
        "compare-sections -r",
    ];
    let lines = guest.gdb(&commands);
    let sections: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("Section "))
        .collect();
    assert!(!sections.is_empty(), "{lines:#?}");
    assert!(
        sections.iter().all(|line| line.ends_with(": matched.")),
        "{lines:#?}"
    );
    assert_eq!(std::fs::read(file).unwrap().len(), 0x300000);
    guest.finish();
}

/// Of memory that is not mapped, gdb itself says nothing.
#[test]
fn patterns_are_found_in_memory() {
    let guest = Guest::debuggee();
    let lines = guest.gdb(&[
        "find &primes[0], +sizeof(primes), (int) 19",
        "find 0, +0x1000000, \"hello gdb\"",
        "find &primes[0], +sizeof(primes), (int) 4",
        "find 0x7fffffff00, +0x1000, 'o', 'b'",
        "monitor info host",
    ]);
    let text = lines.join("\n");
    for expected in [
        "<primes+28>\n1 pattern found.",
        "<greeting>\n",
        "Pattern not found.\nPattern not found.",
        "the search ended at 0x7fffffff00: it cannot be read",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    guest.finish();
}
