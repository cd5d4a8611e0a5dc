//! gdb's `monitor` commands.

use super::Guest;

#[test]
fn an_address_is_followed_through_the_page_tables() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "eval \"monitor translate %#lx\", (unsigned long)&greeting",
            "monitor translate 0x100000000",
            "monitor translate 0x8000000000000000",
            "monitor pagetable",
            "output (unsigned long)&page_pml4 == $cr3",
            "echo \\n",
            "monitor translate &greeting",
        ],
        &[
            "0x104000 is physical 0x104000 (2 MiB page, rwx user)",
            "0x100000000 is not mapped: the level-3 entry is not present",
            "0x8000000000000000 is not mapped: address 0x8000000000000000 is not canonical in this paging mode",
            "vCPU 0: 4-level paging, cr3 0x106000",
            "0x0000000000000000-0x00000000ffffffff      4 GiB rwx user, 2 MiB pages",
            "1",
            "\"&greeting\" is not a number: write 4096, 0x1000 or $rip; for others: \
             eval \"monitor COMMAND %#lx\", (unsigned long)EXPRESSION",
            "usage: monitor translate ADDR",
        ],
    );
    let walk = guest.gdb(&["monitor pagewalk 0x104005"]);
    let names: Vec<_> = walk
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        names,
        ["vCPU", "PML4E[0]", "PDPTE[0]", "PDE[0]", "0x104005"]
    );
    guest.finish();
}

#[test]
fn physical_memory_is_read_and_written_beside_virtual() {
    let guest = Guest::debuggee();
    // Virtual 0x40000000 leads to physical 0, as long as gdb looks.
    let moved = "(unsigned long*)((char*)&page_directories + 4096)";
    guest.expect_at_scenario(
        &[
            &format!("set var $was = *{moved}"),
            &format!("set var *{moved} = 0xe7"),
            "x/s 0x40104000",
            "monitor phys on",
            "x/s 0x104000",
            "x/xb 0x40104000",
            "set var {char}0x104000 = 'j'",
            "monitor phys off",
            "x/s 0x40104000",
            "set var {char}0x40104000 = 'h'",
            &format!("set var *{moved} = $was"),
            "monitor xp /10b 0x104000",
            "monitor xp /2g 0x3fffff8",
        ],
        &[
            "0x40104000:\t\"hello gdb\"",
            "gdb's memory accesses are physical until the guest goes on or \"monitor phys off\"",
            "0x104000 <greeting>:\t\"hello gdb\"",
            "0x40104000:\tCannot access memory at address 0x40104000",
            "gdb's memory accesses are virtual",
            "0x40104000:\t\"jello gdb\"",
            "0x104000: 0x68 0x65 0x6c 0x6c 0x6f 0x20 0x67 0x64 0x62 0x00",
            "0x3fffff8: 0x0000000000000000",
            "0x4000000: no RAM at this physical address",
        ],
    );
    guest.finish();
}
