//! What pwndbg and gef ask of a stub, by a client that asks nothing else.
//!
//! Both take a guest for a process when the stub does not answer as QEMU's, and then
//! look for its memory map by writing memory back.

use tests::rsp::Rsp;
use tests::{DEADLINE, scratch};

use super::Guest;
use crate::qmp::Client;

/// The guest's program, code and data, by physical address.
const IMAGE: (u64, usize) = (0x10_0000, 0x10_0000);

/// All of it. It stands still.
fn image(rsp: &mut Rsp) -> Vec<u8> {
    const PIECE: usize = 0x8000;
    let (start, len) = IMAGE;
    let pieces = (0..len).step_by(PIECE);
    pieces
        .flat_map(|at| rsp.memory(start + at as u64, PIECE))
        .collect()
}

/// The numbers behind `name` and an equals sign, as their regular expressions find them.
fn numbers(text: &str, name: &str) -> Vec<u64> {
    let line = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.trim_start();
        rest.strip_prefix('=')
    });
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let words = line.split_whitespace();
    words
        .map_while(|word| u64::from_str_radix(word, 16).ok())
        .collect()
}

fn number(rsp: &mut Rsp, register: &str) -> u64 {
    let text = rsp.monitor(&format!("translate ${register}"));
    let (number, _) = text.split_once(' ').unwrap();
    u64::from_str_radix(number.trim_start_matches("0x"), 16).unwrap()
}

/// pwndbg: aglib/qemu.py, aglib/remote.py, aglib/regs.py, aglib/vmmap.py.
fn as_pwndbg(rsp: &mut Rsp) {
    assert!(rsp.ask("Qqemu.sstepbits").contains("ENABLE="));
    assert!(!rsp.ask("qOffsets").contains("Text="), "no user mode");
    assert!(rsp.ask("qSupported").contains("qXfer:exec-file:read"));
    assert!(!rsp.monitor("help").contains("Quit GDBserver"));
    assert!(!rsp.monitor("").contains("Black Magic Probe"));
    let registers = rsp.monitor("info registers");
    for name in ["GDT", "IDT"] {
        assert_eq!(numbers(&registers, name).len(), 2, "{registers}");
    }
    let mappings = rsp.monitor("info mem");
    for line in mappings.lines() {
        let mut words = line.split(' ');
        let (range, size) = (words.next().unwrap(), words.next().unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let [start, end, size] =
            [start, end, size].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        assert_eq!(end.wrapping_sub(start), size, "{line}");
        let rights = words.next().unwrap();
        assert!(rights.len() == 3 && rights.contains('r'), "{line}");
    }
    assert!(!mappings.is_empty());
    // Of a process it would read these.
    for packet in [
        "vFile:readlink:2f70726f632f312f657865",
        "qXfer:auxv:read::0,1000",
    ] {
        assert_eq!(rsp.ask(packet), "", "{packet}");
    }
}

/// gef, of both its authors: is_qemu_system, read_physmem, get_idt_base and others.
fn as_gef(rsp: &mut Rsp) {
    assert!(rsp.ask("Qqemu.sstepbits").contains("ENABLE="));
    assert_eq!(rsp.ask("qOffsets"), "", "a system emulator");
    assert!(!rsp.ask("qSupported").contains("intel.name="));
    assert!(!rsp.monitor("help r").contains("Dump hidden register"));
    // Else it executes code of its own in the guest, to know FS.
    assert!(rsp.monitor("info kvm").contains("enabled"));
    assert_eq!(rsp.monitor("info cpus").lines().count(), 1);
    let registers = rsp.monitor("info registers");
    for (name, count) in [("LDT", 4), ("TR", 4), ("GDT", 2), ("IDT", 2)] {
        assert!(numbers(&registers, name).len() >= count, "{registers}");
    }
    assert!(registers.contains("\nDR6=") && registers.contains("\nEFER="));
    let idt = numbers(&registers, "IDT")[0];
    assert_eq!(rsp.memory(idt, 16).len(), 16, "it can be read");

    let virt = number(rsp, "rip");
    let text = rsp.monitor(&format!("gva2gpa {virt:#x}"));
    let phys = text.trim_end().strip_prefix("gpa: 0x").unwrap();
    let phys = u64::from_str_radix(phys, 16).unwrap();
    let expected = rsp.memory(virt, 16);
    let text = rsp.monitor(&format!("xp/16xb {phys:#x}"));
    let found = text
        .lines()
        .flat_map(|line| line.split_whitespace().skip(1));
    let found = found.map(|byte| u8::from_str_radix(&byte[2..], 16).unwrap());
    assert_eq!(found.collect::<Vec<_>>(), expected);

    assert_eq!(rsp.ask("qqemu.PhyMemMode"), "0");
    assert_eq!(rsp.ask("Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(rsp.ask("qqemu.PhyMemMode"), "1");
    assert_eq!(rsp.memory(phys, 16), expected);
    assert_eq!(rsp.ask("Qqemu.PhyMemMode:0"), "OK");
    assert_eq!(rsp.ask("qqemu.PhyMemMode"), "0");
}

#[test]
fn pwndbg_and_gef_know_the_guest_for_a_machine_and_write_nothing() {
    let guest = Guest::debuggee();
    for explore in [as_pwndbg, as_gef] {
        let mut rsp = Rsp::attach(guest.vmm.gdb_socket());
        assert!(rsp.ask("?").starts_with("T05"));
        assert_eq!(rsp.ask("Hc-1"), "OK");
        assert_eq!(rsp.ask("qOffsets"), "", "the program has not moved");
        let before = image(&mut rsp);
        assert_eq!(before.len(), IMAGE.1);
        explore(&mut rsp);
        assert!(image(&mut rsp) == before, "the guest's memory has changed");
        assert_eq!(rsp.ask("D;1"), "OK");
        guest.expect_undisturbed();
    }
    guest.finish();
}

/// The vCPUs stand still meanwhile.
#[test]
fn the_monitor_and_qmp_say_the_same_in_qemus_words() {
    let dir = scratch();
    let qmp = dir.path().join("qmp");
    let guest = Guest::launch("debug", |vmm| {
        vmm.cpus(2).arg("--qmp", format!("unix:{}", qmp.display()))
    });
    guest.vmm.process.wait_for("debug: ready", DEADLINE);
    let mut client = Client::ready(&qmp);
    let mut rsp = Rsp::attach(guest.vmm.gdb_socket());
    assert!(rsp.ask("?").starts_with("T05"));
    assert_eq!(rsp.ask("Hg1"), "OK");
    let ours = rsp.monitor("info mtree -f");
    assert!(ours.contains("hole"), "{ours}");
    assert_eq!(rsp.ask("qqemu.PhyMemMode"), "0");
    for command in [
        "info registers",
        "info registers -a",
        "info mem",
        "info mtree",
        "info mtree -f",
        "xp/5xg 0x100000",
        "xp/9xb 1048576",
        "xp 0x70000000",
        "gva2gpa 0x100010",
        "gpa2hva 0x100000",
        "gpa2hva 0x70000000",
    ] {
        let (said, expected) = (rsp.monitor(command), client.human(command));
        assert_eq!(said, expected, "{command}");
    }
    assert_eq!(rsp.ask("D;1"), "OK");
    guest.finish();
}
