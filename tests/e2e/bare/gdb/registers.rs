//! Registers, known ones and all of them, read and written.

use super::Guest;

/// The value of every general register at the debuggee's `registers_loaded`.
const LOADED: [&str; 15] = [
    "rax            0xa0a1a2a3a4a5a6a7  -6872032732664977753",
    "rbx            0xb0b1b2b3b4b5b6b7  -5714589967255750985",
    "rcx            0xc0c1c2c3c4c5c6c7  -4557147201846524217",
    "rdx            0xd0d1d2d3d4d5d6d7  -3399704436437297449",
    "rsi            0x5150              20816",
    "rdi            0xd1d0              53712",
    "rbp            0xb9b0              0xb9b0",
    "r8             0x8                 8",
    "r9             0x9                 9",
    "r10            0xa                 10",
    "r11            0xb                 11",
    "r12            0xc                 12",
    "r13            0xd                 13",
    "r14            0xe                 14",
    "r15            0xf                 15",
];

#[test]
fn known_values_are_in_every_general_register() {
    let guest = Guest::debuggee();
    let commands = [
        "tbreak *registers_loaded",
        "continue",
        "info registers rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15",
    ];
    let stop = [
        "Temporary breakpoint 2 at 0x100113: file guests/debug/main.c, line 94.",
        "Temporary breakpoint 2, 0x0000000000100113 in load_registers () at guests/debug/main.c:94",
        "94\t\t__asm__ volatile(",
    ];
    guest.expect_at_scenario(&commands, &[&stop[..], &LOADED].concat());
    guest.finish();
}

#[test]
fn segments_bases_and_control_registers_are_those_of_long_mode() {
    let guest = Guest::debuggee();
    guest.expect(
        &[
            "info registers cs ss ds es fs gs fs_base gs_base k_gs_base",
            "info registers cr0 cr2 cr4 cr8 efer",
            "print $cr3 == (unsigned long)&page_pml4",
        ],
        &[
            "cs             0x8                 8",
            "ss             0x10                16",
            "ds             0x10                16",
            "es             0x10                16",
            "fs             0x0                 0",
            "gs             0x0                 0",
            "fs_base        0x0                 0",
            "gs_base        0x0                 0",
            "k_gs_base      0x0                 0",
            "cr0            0x80000011          [ PE ET PG ]",
            "cr2            0x0                 0x0",
            "cr4            0x20                [ PAE ]",
            "cr8            0x0                 0",
            "efer           0x500               [ LME LMA ]",
            "$1 = 1",
        ],
    );
    guest.finish();
}

/// KVM's floating-point calls leave MXCSR out.
#[test]
fn mxcsr_is_read_and_written() {
    let guest = Guest::debuggee();
    guest.expect(
        &[
            "print $mxcsr",
            "set $xmm3.uint128 = 7",
            "set $mxcsr = 0x1fa0",
            "maintenance flush register-cache",
            "print $mxcsr",
            "print $xmm3.uint128",
            "set $mxcsr = 0x80001f80",
            "maintenance flush register-cache",
            "print/x $mxcsr",
        ],
        &[
            "$1 = [ IM DM ZM OM UM PM RC=0 ]",
            "$2 = [ PE IM DM ZM OM UM PM RC=0 ]",
            "$3 = 7",
            // A reserved bit.
            "Could not write register \"mxcsr\"; remote failure reply 'E16'",
            "$4 = 0x1fa0",
        ],
    );
    guest.finish();
}

#[test]
fn written_registers_are_read_back_and_used_by_the_guest() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "tbreak *registers_loaded",
            "continue",
            "set $rax = 0x1122334455667788",
            "set $r15 = -1",
            "set $fs_base = 0x123456789abc",
            "set $eflags = 0x203",
            "maintenance flush register-cache",
            "info registers rax r15 fs_base eflags",
            // The guest adds 1 to what it finds.
            "stepi",
            "print/x $rax",
            "set $fs_base = 0",
        ],
        &[
            "Temporary breakpoint 2 at 0x100113: file guests/debug/main.c, line 94.",
            "Temporary breakpoint 2, 0x0000000000100113 in load_registers () at guests/debug/main.c:94",
            "94\t\t__asm__ volatile(",
            "rax            0x1122334455667788  1234605616436508552",
            "r15            0xffffffffffffffff  -1",
            "fs_base        0x123456789abc      20015998343868",
            "eflags         0x203               [ CF IF IOPL=0 ]",
            "0x0000000000100117\t94\t\t__asm__ volatile(",
            "$1 = 0x1122334455667789",
        ],
    );
    guest.finish();
}

/// Written through gdb and read back from KVM: the guest itself uses no vectors.
#[test]
fn vector_registers_are_those_of_the_processor() {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let guest = Guest::debuggee();
    let mut commands = vec![
        "set $xmm3.v4_int32[1] = 0x1234",
        "maintenance flush register-cache",
        "print $xmm3.v4_int32",
    ];
    let mut expected = vec!["$1 = {0, 4660, 0, 0}"];
    if has("avx") {
        commands.extend([
            "set $ymm3.v8_int32[7] = 7",
            "set $ymm15.v4_int64[2] = -1",
            "maintenance flush register-cache",
            "print $ymm3.v8_int32",
            "print $ymm15.v4_int64",
        ]);
        expected.extend(["$2 = {0, 4660, 0, 0, 0, 0, 0, 7}", "$3 = {0, 0, -1, 0}"]);
    }
    if has("avx512f") {
        commands.extend([
            "set $zmm3.v8_int64[7] = 9",
            "set $zmm31.v8_int64[0] = 31",
            "set $zmm31.v8_int64[5] = 32",
            "set $k2 = 0x55",
            "maintenance flush register-cache",
            "print $zmm3.v8_int64",
            "print $zmm31.v8_int64",
            "print $ymm31.v4_int64",
            "print $k2",
        ]);
        expected.extend([
            "$4 = {20014547599360, 0, 0, 30064771072, 0, 0, 0, 9}",
            "$5 = {31, 0, 0, 0, 0, 32, 0, 0}",
            "$6 = {31, 0, 0, 0}",
            "$7 = 85",
        ]);
    }
    guest.expect(&commands, &expected);
    guest.finish();
}

#[test]
fn selectors_are_loaded_with_their_descriptors() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "set $fs_base = 0x1234",
            "set $fs = 0x10",
            "set $ds = 0x23",
            "set $ss = 8",
            "set $cs = 0xfff8",
            "monitor architecture",
            "maintenance flush register-cache",
            "info registers cs ss ds fs fs_base",
            // The processor takes them.
            "stepi",
            "stepi",
            "info registers ds fs",
            "set $ds = 0x10",
            "set $fs = 0",
            "tbreak inner",
            "continue",
        ],
        &[
            "Could not write register \"ss\"; remote failure reply 'E16'",
            "Could not write register \"cs\"; remote failure reply 'E16'",
            "selector 0x8 is not loaded into ss: its descriptor 0x00af9b000000ffff is no writable data segment",
            "selector 0xfff8 is not loaded into cs: it is beyond the end of the GDT",
            "vCPU 0 runs i386:x86-64 code, gdb has i386:x86-64",
            "cs             0x8                 8",
            "ss             0x10                16",
            "ds             0x23                35",
            "fs             0x10                16",
            "fs_base        0x0                 0",
            "0x000000000010012c\t123\t{",
            "0x000000000010012f\t123\t{",
            "ds             0x23                35",
            "fs             0x10                16",
            "Temporary breakpoint 2 at 0x10004b: file guests/debug/main.c, line 59.",
            "Temporary breakpoint 2, inner (value=value@entry=3) at guests/debug/main.c:59",
            "59\t\tint doubled = value * 2;",
        ],
    );
    guest.finish();
}

#[test]
fn changed_argument_changes_the_result() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "tbreak factorial",
            "continue",
            "set $rdi = 3",
            "finish",
            // The debuggee checks the sum, which must be right again.
            "set $rax = 120",
        ],
        &[
            "Temporary breakpoint 2 at 0x100020: file guests/debug/main.c, line 52.",
            "Temporary breakpoint 2, factorial (n=n@entry=5) at guests/debug/main.c:52",
            "52\t\tif (n <= 1)",
            "0x000000000010013c in scenario () at guests/debug/main.c:124",
            "124\t\tu64 result = factorial(5);",
            "Value returned is $1 = 6",
        ],
    );
    guest.finish();
}
