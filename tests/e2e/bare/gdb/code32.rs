//! A 32-bit program, which gdb knows from `outboard` alone.

use tests::gdb::{self, Sysroot};

use super::{Guest, MARK, answer, assert_lines};
use crate::host::{host, shown};

/// What it does about paging, with CR0 and CR4 as gdb shows them then.
const PAGING: [(&str, [&str; 2]); 3] = [
    (
        "",
        [
            "cr0            0x11                [ PE ET ]",
            "cr4            0x0                 [ ]",
        ],
    ),
    (
        "paging=32",
        [
            "cr0            0x80000011          [ PE ET PG ]",
            "cr4            0x10                [ PSE ]",
        ],
    ),
    (
        "paging=pae",
        [
            "cr0            0x80000011          [ PE ET PG ]",
            "cr4            0x20                [ PAE ]",
        ],
    ),
];

/// The program before its first instruction, if this host can run it.
fn program(paging: &str) -> Option<Guest> {
    let can = paging.is_empty() || host().pages_in_32_bits;
    shown(can, "32-bit paging").then(|| Guest::held("i386", paging, 1))
}

impl Guest {
    /// [`Guest::expect`] of a gdb that has no file.
    #[track_caller]
    fn expect_alone(&self, commands: &[&str], expected: &[&str]) {
        let commands = [&[MARK], commands].concat();
        let output = gdb::run_alone(self.vmm.gdb_socket(), Sysroot::Guest, &commands);
        assert_lines(&answer(&output), expected);
    }
}

#[test]
fn gdb_debugs_a_32_bit_program_with_the_symbols_it_gets() {
    for (paging, [cr0, cr4]) in PAGING {
        let Some(guest) = program(paging) else {
            continue;
        };
        guest.expect_alone(
            &[
                "show architecture",
                "info registers eip",
                "hbreak runtime_start",
                "continue",
                "info registers cr0 cr4 efer",
                "break inner",
                "continue",
                "bt",
                "finish",
                "next",
                "print widget",
                "print widget.next == &widget",
                "set var widget.id = 33",
                "set var watched = 7",
                "print widget.id + watched",
                "delete",
                "print outer(3)",
                "hbreak factorial if n == 14",
                "continue",
                "finish",
                "delete",
                "tbreak scenario",
                "continue",
                "next",
                "x/2i $pc",
                "stepi",
                "info registers eip esp eflags",
            ],
            &[
                "The target architecture is set to \"auto\" (currently \"i386\").",
                "eip            0x100014            0x100014 <pvh_start>",
                "Hardware assisted breakpoint 1 at 0x100153: file i386/main.c, line 87.",
                "Breakpoint 1, runtime_start () at i386/main.c:87",
                "87\t{",
                cr0,
                cr4,
                "efer           0x0                 [ ]",
                "Breakpoint 2 at 0x1000e8: file i386/main.c, line 55.",
                "Breakpoint 2, inner (value=3) at i386/main.c:55",
                "55\t{",
                "#0  inner (value=3) at i386/main.c:55",
                "#1  0x0010010c in middle (value=2) at i386/main.c:64",
                "#2  0x00100123 in outer (value=1) at i386/main.c:71",
                "#3  0x00100147 in scenario () at i386/main.c:81",
                "#4  0x00100181 in runtime_start () at i386/main.c:91",
                "#5  0x00100057 in pvh_start () at i386/start.S:49",
                "middle (value=2) at i386/main.c:66",
                "66\t\treturn result + 10;",
                "Value returned is $1 = 7",
                "outer (value=1) at i386/main.c:73",
                "73\t\treturn result + 100;",
                "$2 = {name = \"small\\000\\000\\000\\000\\000\\000\", id = 32, \
                 serial = 18369614221190020847, next = 0x103020 <widget>}",
                "$3 = 1",
                "$4 = 40",
                "$5 = 121",
                "Hardware assisted breakpoint 3 at 0x1000b0: file i386/main.c, line 48.",
                "Breakpoint 3, factorial (n=14) at i386/main.c:48",
                "48\t{",
                "0x00100137 in scenario () at i386/main.c:79",
                "79\t\tu64 result = factorial(14);",
                "Value returned is $6 = 87178291200",
                "Temporary breakpoint 4 at 0x100128: file i386/main.c, line 78.",
                "Temporary breakpoint 4, scenario () at i386/main.c:78",
                "78\t{",
                "79\t\tu64 result = factorial(14);",
                "=> 0x10012d <scenario+5>:\tsub    $0xc,%esp",
                "   0x100130 <scenario+8>:\tpush   $0xe",
                "0x00100130\t79\t\tu64 result = factorial(14);",
                "eip            0x100130            0x100130 <scenario+8>",
                "esp            0x104014            0x104014",
                "eflags         0x216               [ PF AF IF IOPL=0 ]",
            ],
        );
        guest.finish();
    }
}

#[test]
fn its_page_tables_are_followed() {
    let tables: [(_, _, _, &[&str]); 2] = [
        (
            "paging=32",
            "4 MiB",
            "vCPU 0: 32-bit paging with PSE, cr3 0x101000",
            &["PDE[768]   at 0x101c00: 0x0000000000000083 4 MiB page: P R/W PS"],
        ),
        (
            "paging=pae",
            "2 MiB",
            "vCPU 0: PAE paging, cr3 0x103000",
            &[
                "PDPTE[3]   at 0x103018: 0x0000000000102001 P",
                "PDE[0]     at 0x102000: 0x00000000000000e3 2 MiB page: P R/W A D PS",
            ],
        ),
    ];
    for (paging, page, mode, steps) in tables {
        let top = 1 + steps.len();
        let Some(guest) = program(paging) else {
            continue;
        };
        let [low, high] = [0x10_3020, 0xc010_3020u32]
            .map(|addr| format!("{addr:#x} is physical 0x103020 ({page} page, rwx kernel)"));
        let [first, again] = [
            ("0x0000000000000000", "0x000000003fffffff"),
            ("0x00000000c0000000", "0x00000000ffffffff"),
        ]
        .map(|(start, last)| format!("{start}-{last}      1 GiB rwx kernel, {page} pages"));
        let commands = [
            "tbreak scenario",
            "continue",
            "eval \"monitor translate %#x\", &widget",
            "monitor translate 0x40000000",
            "monitor translate 0x100000000",
            "monitor pagewalk 0xc0103020",
            "monitor pagetable",
            "x/s 0xc0103020",
            "set var {char}0xc0103020 = 'S'",
            "print widget.name",
        ];
        let before = [
            "Temporary breakpoint 1 at 0x100128: file i386/main.c, line 78.",
            "Temporary breakpoint 1, scenario () at i386/main.c:78",
            "78\t{",
            &low,
            &format!("0x40000000 is not mapped: the level-{top} entry is not present"),
            "0x100000000 is not mapped: address 0x100000000 is beyond the 4 GiB of this mode",
            mode,
        ];
        let after = [
            &high,
            mode,
            &first,
            &again,
            "0xc0103020:\t\"small\"",
            "$1 = \"Small\\000\\000\\000\\000\\000\\000\"",
        ];
        guest.expect_alone(&commands, &[&before, steps, &after].concat());
        guest.finish();
    }
}

#[test]
fn its_variables_are_watched() {
    if !shown(host().ring0.watch, "watchpoints in ring 0") {
        return;
    }
    for (paging, _) in PAGING {
        let Some(guest) = program(paging) else {
            continue;
        };
        guest.expect_alone(
            &["watch loop_counter", "continue", "continue", "delete"],
            &[
                "Hardware watchpoint 1: loop_counter",
                "Hardware watchpoint 1: loop_counter",
                "Old value = 0",
                "New value = 1",
                "runtime_start () at i386/main.c:90",
                "90\t\twhile (!stop_requested) {",
                "Hardware watchpoint 1: loop_counter",
                "Old value = 1",
                "New value = 2",
                "runtime_start () at i386/main.c:90",
                "90\t\twhile (!stop_requested) {",
            ],
        );
        guest.finish();
    }
}

#[test]
fn a_reset_clears_what_is_not_in_its_file() {
    let guest = Guest::held("i386", "", 1);
    guest.expect_alone(
        &[
            "break inner",
            "ignore 1 2",
            "continue",
            "print loop_counter",
            "set var widget.id = 33",
            "monitor reset",
            "maintenance flush register-cache",
            "print loop_counter",
            "print watched",
            "print widget.id",
            "continue",
            "print loop_counter",
        ],
        &[
            "Breakpoint 1 at 0x1000e8: file i386/main.c, line 55.",
            "Breakpoint 1, inner (value=3) at i386/main.c:55",
            "55\t{",
            "$1 = 2",
            "the guest is reset and stands before its first instruction",
            "gdb may still show what it has read before: maintenance flush register-cache",
            "$2 = 0",
            "$3 = 0",
            "$4 = 32",
            "the guest was reset; breakpoints are planted again when it resumes",
            "Breakpoint 1, inner (value=3) at i386/main.c:55",
            "55\t{",
            "$5 = 0",
        ],
    );
    guest.finish();
}
