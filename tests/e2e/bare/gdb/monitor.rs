//! gdb's `monitor` commands.

use tests::process::wait_until;
use tests::{DEADLINE, backend, scratch};

use super::{Guest, assert_lines};

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
            "gdb's memory accesses are physical until the guest resumes or \"monitor phys off\"",
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

#[test]
fn the_machine_is_shown_with_its_memory_map_and_counters() {
    let guest = Guest::debuggee();
    let lines = guest.gdb_at_scenario(&[
        "monitor info mtree",
        "monitor info devices",
        "monitor info queues",
        "monitor info exits",
        "monitor exits 2",
    ]);
    let map = [
        "0x0000000000000000-0x0000000003ffffff     64 MiB RAM",
        "0x0000000004000000-0x00000000febfffff   4012 MiB hole",
        "0x00000000fec00000-0x00000000fec00fff      4 KiB I/O APIC",
        "0x00000000fec01000-0x00000000fedfffff   2044 KiB hole",
        "0x00000000fee00000-0x00000000fee00fff      4 KiB local APICs",
        "0x00000000fee01000-0x00000000fffbbfff  18156 KiB hole",
        "0x00000000fffbc000-0x00000000fffbcfff      4 KiB KVM's identity map",
        "0x00000000fffbd000-0x00000000fffbffff     12 KiB KVM's task state segment",
        "ports 0x60-0x64: i8042",
        "ports 0x70-0x71: RTC",
        "ports 0x3f8-0x3ff: COM1",
        "ports 0x505-0x505: pvpanic",
        "ports 0x600-0x601: sleep control",
        "no devices",
        "no devices",
    ];
    let (found, exits) = lines.split_at(map.len());
    assert_lines(found, &map);
    assert!(exits[0].starts_with("vCPU 0: IO_"), "{lines:#?}");
    assert_eq!(exits[1], "vCPU 0:", "{lines:#?}");
    assert_eq!(exits.len(), 4, "{lines:#?}");
    assert!(exits[3].contains(" 0.0 us ago: "), "{lines:#?}");
    // Where the exit was is in the guest's code.
    for line in &exits[2..] {
        let rip = line.split_once(" rip 0x").unwrap().1;
        let rip = u64::from_str_radix(rip, 16).unwrap();
        assert!((0x10_0000..0x11_0000).contains(&rip), "{lines:#?}");
    }
    guest.finish();
}

#[test]
fn msrs_are_read_and_written_as_registers_are() {
    let guest = Guest::debuggee();
    guest.expect_at_scenario(
        &[
            "monitor msr efer",
            "monitor msr MSR_KERNEL_GS_BASE 0x123456789",
            "maintenance flush register-cache",
            "print $k_gs_base",
            "monitor msr 0xc0000102 0",
            "monitor msr 0x12345",
            "monitor msr kernel_gs_base 0x8000000000000000",
            "monitor nmi 1",
        ],
        &[
            "vCPU 0: efer (0xc0000080) = 0x0000000000000500",
            "vCPU 0: MSR_KERNEL_GS_BASE (0xc0000102) = 0x0000000123456789",
            "$1 = 4886718345",
            "vCPU 0: 0xc0000102 (0xc0000102) = 0x0000000000000000",
            "KVM_GET_MSRS: MSR 0x12345 is not readable",
            "KVM_SET_MSRS: MSR 0xc0000102 does not take 0x8000000000000000",
            "\"1\" is no vCPU of this guest: vcpu=0 to vcpu=0",
            "usage: monitor nmi [VCPU]",
        ],
    );
    guest.finish();
}

#[test]
fn reset_from_gdb_begins_again_and_keeps_breakpoints() {
    let guest = Guest::launch("debug", |vmm| vmm.arg("--on-reboot", "exit"));
    guest.vmm.process.wait_for("debug: ready", DEADLINE);
    let lines = guest.gdb(&[
        "set var greeting[0] = 'j'",
        "hbreak *registers_loaded",
        "continue",
        "set $mxcsr = 0x1fa0",
        "set $xmm1.uint128 = 5",
        "set $st3 = 1.5",
        "monitor reset",
        "maintenance flush register-cache",
        "info registers cr0",
        "print greeting",
        "print/x $mxcsr",
        "print $xmm1.uint128",
        "print $st3",
        "continue",
        "info symbol $pc",
        "delete",
    ]);
    let text = lines.join("\n");
    assert!(
        text.contains("the guest is reset and stands before its first instruction"),
        "{text}"
    );
    let after = text.split_once("register-cache").unwrap().1;
    assert!(after.contains("[ PE"), "{text}");
    assert!(!after.contains("PG"), "{text}");
    for value in ["$1 = \"hello gdb\"", "$2 = 0x1f80", "$3 = 0", "$4 = 0"] {
        assert!(after.lines().any(|line| line == value), "{value}: {text}");
    }
    assert!(
        after.contains("registers_loaded") || after.contains("load_registers"),
        "{text}"
    );
    let ready = guest.vmm.console().matches("debug: ready").count();
    assert_eq!(ready, 2, "{}", guest.vmm.process.transcript());
    guest.finish();
}

#[test]
fn requests_in_flight_are_shown_and_not_disturbed() {
    const DEPTH: &str = "4";
    let disk_dir = scratch();
    let image = backend::disk_image(disk_dir.path(), 4);
    let disk = backend::outboard_blk(disk_dir.path(), &image, &[]);
    let mut guest = Guest::launch("virtio", |vmm| {
        vmm.cmdline(&format!(
            "mode=bench n=50000 depth={DEPTH} timeout=600 event_idx"
        ))
        .device("blk", &disk.socket)
    });
    guest.vmm.process.wait_for("bench: start", DEADLINE);
    disk.process.signal(libc::SIGSTOP);
    let full = format!("running, {DEPTH} in flight");
    wait_until("the queue is full", DEADLINE, || {
        guest.gdb(&["monitor info queues"])[0].ends_with(&full)
    });
    let lines = guest.gdb(&[
        "monitor vq blk0",
        "monitor mmio read 0xd0000000",
        "monitor mmio read 0xd0001000",
        "monitor info devices",
    ]);
    let text = lines.join("\n");
    for part in [
        "\navailable: index ",
        ", interrupt wanted at ",
        ", kick wanted at ",
        "\nin flight: 4\nchain ",
        ", 16 bytes, device reads, next ",
        ", 4096 bytes, device writes, next ",
        ", 1 bytes, device writes\n",
        "\n0xd0000000: 0x74726976\n",
        "physical address 0xd0001000 cannot be read as a device's: no device claims this address",
        "\n0: blk0, blk, at 0xd0000000, interrupt 16\n",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert_eq!(text.matches("\nchain ").count(), 4, "{text}");
    assert!(!text.contains("NOT IN RAM"), "{text}");
    disk.process.signal(libc::SIGCONT);
    guest.vmm.process.expect_exit(0, DEADLINE);
    let console = guest.vmm.console();
    assert!(console.contains("bench: ok reads=50000"), "{console}");
}

/// `text` has all of `parts`, each behind the one before.
#[track_caller]
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let (_, after) = rest
            .split_once(part)
            .unwrap_or_else(|| panic!("no {part:?} in its place in:\n{text}"));
        rest = after;
    }
}

#[test]
fn an_access_to_a_device_stops_the_guest() {
    let disk_dir = scratch();
    let image = backend::disk_image(disk_dir.path(), 4);
    let disk = backend::outboard_blk(disk_dir.path(), &image, &[]);
    let mut guest = Guest::launch("virtio", |vmm| {
        vmm.cmdline("mode=bench n=2000 depth=1")
            .device("blk", &disk.socket)
            .gdb_wait()
    });
    let lines = guest.gdb(&[
        "monitor trap mmio 0xd0000070",
        "continue",
        "continue",
        "monitor trap off",
        "monitor trap kick blk0",
        "continue",
        "continue",
        "monitor vq blk0",
        "monitor trap off",
        "monitor trap pio 0x3f8",
        "continue",
    ]);
    let text = lines.join("\n");
    assert_in_order(
        &text,
        &[
            "of blk0: writes only, and neither kicks (trap kick)",
            // The driver's reset of the device, then ACKNOWLEDGE.
            "vCPU 0: write of 0x00000000 in 4 bytes at 0xd0000070",
            "received signal SIGTRAP",
            "vCPU 0: write of 0x00000001 in 4 bytes at 0xd0000070",
            "nothing is trapped",
            "kicks of blk0 queue 0",
            "vCPU 0: kick of blk0 queue 0: write of 0x00000000 in 4 bytes at 0xd0000050",
            "vCPU 0: kick of blk0 queue 0: write of 0x00000000 in 4 bytes at 0xd0000050",
            "blk0 queue 0: ",
            "nothing is trapped",
            "ports 0x3f8-0x3f8",
            "vCPU 0: write of 0x",
            " in 1 bytes at port 0x3f8",
        ],
    );
    guest.vmm.process.expect_exit(0, DEADLINE);
    let console = guest.vmm.console();
    assert!(console.contains("bench: ok reads=2000"), "{console}");
    // The kicks that stopped the guest have reached the backend; no other exited.
    assert_eq!(guest.vmm.device_counter("blk0", "notify-exits"), 2);
}

#[test]
fn an_access_to_an_msr_stops_the_guest_and_is_done() {
    let mut guest = Guest::start("msr", "", 1);
    guest.vmm.process.wait_for("msr: ready", DEADLINE);
    let lines = guest.gdb(&[
        "tbreak write_register",
        "continue",
        "set $value = value",
        "printf \"value is %#lx\\n\", $value",
        "monitor trap msr kernel_gs_base",
        "continue",
        "printf \"written: %d\\n\", $k_gs_base == $value",
        "continue",
        "printf \"read: %d\\n\", $rax == $value",
        "monitor trap off",
        "set var stop_requested = 1",
    ]);
    let text = lines.join("\n");
    let (_, value) = text.split_once("value is ").unwrap();
    let value = value.lines().next().unwrap();
    assert_in_order(
        &text,
        &[
            "MSR 0xc0000102",
            &format!("vCPU 0: write of {value} to MSR 0xc0000102"),
            "received signal SIGTRAP",
            "in write_register (",
            "written: 1",
            "vCPU 0: read of MSR 0xc0000102",
            "received signal SIGTRAP",
            "read_register () at guests/msr/main.c:23",
            "read: 1",
            "nothing is trapped",
        ],
    );
    // It compares what it reads with what it has written.
    guest.vmm.process.expect_exit(0, DEADLINE);
    let console = guest.vmm.console();
    assert!(console.contains("stop_requested=1"), "{console}");
}
