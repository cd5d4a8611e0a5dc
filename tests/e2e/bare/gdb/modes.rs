//! 16- and 32-bit code, with the 64-bit symbols that there are.

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
