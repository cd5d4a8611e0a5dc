//! 16- and 32-bit code, with the 64-bit symbols that there are: as 64-bit code that
//! gdb disassembles wrongly, and as what it is.

use std::path::{Path, PathBuf};

use tests::{guest, scratch};

use super::Guest;
use crate::host::{host, shown};

/// Where a processor starts up, in 16-bit code (tests/guests/bare/lib/layout.h).
const TRAMPOLINE: &str = "hbreak *0x8000";

#[test]
fn a_processor_that_starts_up_stops_in_its_real_mode_code() {
    if !shown(host().debugs_real_mode, "breakpoints in real mode") {
        return;
    }
    let guest = Guest::held("smp", "", 2);
    let code = guest.dir.path().join("code.bin");
    let code = code.display();
    guest.expect(
        &[
            TRAMPOLINE,
            "continue",
            "print/x $cs",
            "print $cr0 & 1",
            "stepi",
            "print/x $rip",
            "set var $rip = 0x8000",
            // A step from a breakpoint that gdb has moved it to meets that.
            "stepi",
            "print/x $rip",
            "hbreak *0x8002",
            "continue",
            &format!("dump binary memory {code} $pc $pc+4"),
            &format!("eval \"shell objdump -D -b binary -m i8086 --adjust-vma=%#lx {code} | tail -2\", $pc"),
            "delete",
            "hbreak ap_start32",
            "continue",
            "print/x $cs",
            "delete",
            "hbreak ap_start64",
            "continue",
            "print $rip == ap_start64",
            "delete",
        ],
        &[
            "Hardware assisted breakpoint 1 at 0x8000",
            "vCPU 1 runs i8086 code, gdb has i386:x86-64: \"unset tdesc filename\" has it look again",
            "[Switching to Thread 1.2]",
            "Thread 2 hit Breakpoint 1, 0x0000000000008000 in ?? ()",
            "$1 = 0x800",
            "$2 = 0",
            "0x0000000000008001 in ?? ()",
            "$3 = 0x8001",
            "Thread 2 hit Breakpoint 1, 0x0000000000008000 in ?? ()",
            "$4 = 0x8000",
            "Hardware assisted breakpoint 2 at 0x8002",
            "Thread 2 hit Breakpoint 2, 0x0000000000008002 in ?? ()",
            "    8002:\t8c c8                \tmov    %cs,%ax",
            "    8004:\t8e d8                \tmov    %ax,%ds",
            "Hardware assisted breakpoint 3 at 0x1002d9: file lib/start.S, line 137.",
            "vCPU 1 runs i386 code, gdb has i386:x86-64: \"unset tdesc filename\" has it look again",
            "Thread 2 hit Breakpoint 3, ap_start32 () at lib/start.S:137",
            "137\t\tENTER_LONG_MODE ap_start64",
            "$5 = 0x28",
            "Hardware assisted breakpoint 4 at 0x10030f: file lib/start.S, line 145.",
            "Thread 2 hit Breakpoint 4, ap_start64 () at lib/start.S:145",
            "145\t\tLOAD_DATA_SEGMENTS",
            "$6 = 1",
        ],
    );
}

#[test]
fn the_entry_in_32_bit_code_is_stepped_with_64_bit_symbols() {
    let guest = Guest::held("debug", "", 1);
    guest.expect(
        &[
            "print $efer",
            "stepi",
            "stepi",
            "print (long)$rip - (long)pvh_start",
            "info threads",
            "hbreak main",
            "continue",
            "print $efer",
        ],
        &[
            "$1 = [ ]",
            "vCPU 0 runs i386 code, gdb has i386:x86-64: \"unset tdesc filename\" has it look again",
            "68\t\tcld",
            "69\t\tmovl\t%ebx, %edi",
            "$2 = 2",
            "  Id   Target Id                          Frame ",
            "* 1    Thread 1.1 (CPU 0, running, CPL 0) pvh_start () at lib/start.S:69",
            "Hardware assisted breakpoint 1 at 0x1001cb: file guests/debug/main.c, line 142.",
            "Breakpoint 1, main () at guests/debug/main.c:142",
            "142\t{",
            "$3 = [ LME LMA ]",
        ],
    );
    guest.finish();
}

/// Has gdb read what it is told of the vCPUs once more.
const LOOK_AGAIN: &str = "unset tdesc filename";

#[test]
fn gdb_sees_the_32_bit_entry_and_follows_into_long_mode() {
    let guest = Guest::held("debug", "", 1);
    guest.expect(
        &[
            "show architecture",
            LOOK_AGAIN,
            "show architecture",
            "stepi 3",
            "x/2i $pc",
            "info registers eip cs cr0 efer",
            "hbreak pvh_start64",
            "continue",
            LOOK_AGAIN,
            "show architecture",
            "x/2i $pc",
            "info registers rip efer",
            "hbreak main",
            "continue",
        ],
        &[
            "The target architecture is set to \"auto\" (currently \"i386:x86-64\").",
            "The target architecture is set to \"auto\" (currently \"i386\").",
            "70\t\tlgdt\tgdt_pointer",
            "=> 0x100248 <pvh_start+4>:\tlgdtl  0x105430",
            "   0x10024f <pvh_start+11>:\tmov    %cr4,%eax",
            "eip            0x100248            0x100248 <pvh_start+4>",
            "cs             0x10                16",
            "cr0            0x11                [ PE ET ]",
            "efer           0x0                 [ ]",
            "Hardware assisted breakpoint 1 at 0x100285: file lib/start.S, line 76.",
            "vCPU 0 runs i386:x86-64 code, gdb has i386: \"unset tdesc filename\" has it look again",
            "Breakpoint 1, pvh_start64 () at lib/start.S:76",
            "76\t\tLOAD_DATA_SEGMENTS",
            "The target architecture is set to \"auto\" (currently \"i386:x86-64\").",
            "=> 0x100285 <pvh_start64>:\tmov    $0x10,%eax",
            "   0x10028a <pvh_start64+5>:\tmov    %eax,%ds",
            "rip            0x100285            0x100285 <pvh_start64>",
            "efer           0x500               [ LME LMA ]",
            "Hardware assisted breakpoint 2 at 0x1001cb: file guests/debug/main.c, line 142.",
            "Breakpoint 2, main () at guests/debug/main.c:142",
            "142\t{",
        ],
    );
    guest.finish();
}

/// Two functions of 32 bits: the outer at 0x300000 calls the inner at 0x30000b, and
/// both have frame pointers. The inner spins on `sti; cli`, for the reason of `io.h`.
const FUNCTIONS_32: [&str; 3] = [
    "set var {unsigned long long}0x300000 = 0x00000003e8e58955",
    "set var {unsigned long long}0x300008 = 0x90e58955fdeb90",
    "set var {unsigned int}0x30000f = 0xfcebfafb",
];

#[test]
fn a_backtrace_in_32_bit_code_follows_its_frames() {
    let guest = Guest::held("debug", "", 1);
    let run = [
        LOOK_AGAIN,
        "set $esp = 0x310000",
        "set $ebp = 0",
        "set $pc = 0x300000",
        "hbreak *0x30000e",
        "continue",
        "x/i $pc",
        "bt 2",
        "up",
        "x/i $pc",
    ];
    guest.expect(
        &[&FUNCTIONS_32[..], &run].concat(),
        &[
            "Hardware assisted breakpoint 1 at 0x30000e",
            "Breakpoint 1, 0x0030000e in ?? ()",
            "=> 0x30000e:\tnop",
            "#0  0x0030000e in ?? ()",
            "#1  0x00300008 in ?? ()",
            "#1  0x00300008 in ?? ()",
            "=> 0x300008:\tnop",
        ],
    );
}

#[test]
fn gdb_sees_the_real_mode_code_of_a_processor_that_starts_up() {
    if !shown(host().debugs_real_mode, "breakpoints in real mode") {
        return;
    }
    let guest = Guest::held("smp", "", 2);
    guest.expect(
        &[
            TRAMPOLINE,
            "continue",
            LOOK_AGAIN,
            "show architecture",
            "x/4i $pc",
            "stepi",
            "hbreak *0x8004",
            "continue",
            "info registers eip ax cs",
            "set $ds = 0x1234",
            "print/x $ds",
            "delete",
            "hbreak ap_start64",
            "continue",
            LOOK_AGAIN,
            "x/i $pc",
            "delete",
        ],
        &[
            "Hardware assisted breakpoint 1 at 0x8000",
            "vCPU 1 runs i8086 code, gdb has i386:x86-64: \"unset tdesc filename\" has it look again",
            "[Switching to Thread 1.2]",
            "Thread 2 hit Breakpoint 1, 0x0000000000008000 in ?? ()",
            "The target architecture is set to \"auto\" (currently \"i8086\").",
            "=> 0x8000:\tcli",
            "   0x8001:\tcld",
            "   0x8002:\tmov    %cs,%ax",
            "   0x8004:\tmov    %ax,%ds",
            "0x00008001 in ?? ()",
            "Hardware assisted breakpoint 2 at 0x8004",
            "Thread 2 hit Breakpoint 2, 0x00008004 in ?? ()",
            "eip            0x8004              0x8004",
            "ax             0x800               2048",
            "cs             0x800               2048",
            "$1 = 0x1234",
            "Hardware assisted breakpoint 3 at 0x10030f: file lib/start.S, line 145.",
            "vCPU 1 runs i386:x86-64 code, gdb has i8086: \"unset tdesc filename\" has it look again",
            "Thread 2 hit Breakpoint 3, ap_start64 () at lib/start.S:145",
            "145\t\tLOAD_DATA_SEGMENTS",
            "=> 0x10030f <ap_start64>:\tmov    $0x10,%eax",
        ],
    );
}

/// A copy of an ELF file with its segments in the uppermost 2 GiB of virtual memory,
/// as Linux has them, and where they were of physical.
fn raised(elf: &Path, dir: &Path) -> PathBuf {
    const PT_LOAD: [u8; 4] = [1, 0, 0, 0];
    const VIRTUAL: std::ops::Range<usize> = 16..24;
    let mut bytes = std::fs::read(elf).unwrap();
    let table = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    let count = u16::from_le_bytes(bytes[56..58].try_into().unwrap()) as usize;
    for segment in bytes[table..].chunks_exact_mut(56).take(count) {
        if segment[..4] == PT_LOAD {
            let addr = u64::from_le_bytes(segment[VIRTUAL].try_into().unwrap());
            let high = addr.wrapping_sub(2 << 30);
            segment[VIRTUAL].copy_from_slice(&high.to_le_bytes());
        }
    }
    let copy = dir.join("raised.elf");
    std::fs::write(&copy, bytes).unwrap();
    copy
}

#[test]
fn a_breakpoint_that_waited_in_vain_at_half_its_address_is_refused() {
    let dir = scratch();
    let kernel = raised(&guest::bare("debug"), dir.path());
    let guest = Guest::of_file(kernel, |vmm| vmm.gdb_wait());
    guest.expect(
        &[
            LOOK_AGAIN,
            "hbreak *0xffffffff801001cb",
            "continue",
            "monitor architecture x86-64",
            LOOK_AGAIN,
            "delete",
            "set breakpoint always-inserted on",
            "hbreak *0xffffffff801001cb",
            "monitor info breakpoints",
        ],
        &[
            "Hardware assisted breakpoint 1 at 0x801001cb",
            "Warning:",
            "Cannot insert hardware breakpoint 1.",
            "Could not insert hardware breakpoints:",
            "You may have requested too many hardware breakpoints/watchpoints.",
            "Command aborted.",
            "hardware breakpoint at 0x801001cb refused: with i386 gdb has only the lower half of \
             0xffffffff801001cb; \"monitor architecture x86-64\" and then \"unset tdesc filename\" \
             give it the whole",
            "vCPU 0 runs i386 code, gdb has i386",
            "\"unset tdesc filename\" has gdb take i386:x86-64",
            "Hardware assisted breakpoint 2 at 0xffffffff801001cb",
            "planted now (gdb plants when it resumes the guest):",
            "hardware slots:",
            "  0: execute 0xffffffff801001cb, 1 bytes, for hbreak 0xffffffff801001cb",
            "  1: free",
            "  2: free",
            "  3: free",
        ],
    );
    guest.finish();
}
