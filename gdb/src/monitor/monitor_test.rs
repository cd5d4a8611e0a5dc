//! The commands on the toy machine.

use crate::arch::{cr0, cr4};
use crate::testing::{Guest, HIGH, Rsp};

/// jmp 1000
const LOOP: &[u8] = &[0xeb, 0xfe];

pub(super) fn guest() -> (Guest, Rsp) {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let rsp = guest.attach();
    (guest, rsp)
}

#[test]
fn help_lists_each_command_with_what_it_takes() {
    let (_guest, mut rsp) = guest();
    let help = rsp.monitor("help");
    assert!(
        help.contains("\npagewalk ADDR                every page-table entry"),
        "{help}"
    );
    assert!(
        help.lines().all(|line| line.len() > 30 && line.is_ascii()),
        "{help}"
    );
}

#[test]
fn the_beginning_of_commands_lists_them() {
    let (_guest, mut rsp) = guest();
    let names = |text: String| -> Vec<String> {
        let words = text.lines().map(|line| line.split_whitespace().take(2));
        words.map(|two| two.collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(
        names(rsp.monitor("lx")),
        ["lx dmesg", "lx modules", "lx ps", "lx version", "lx wait"]
    );
    assert!(names(rsp.monitor("info")).contains(&"info registers".to_owned()));
    assert_eq!(rsp.monitor(""), rsp.monitor("help"));
    assert_eq!(
        rsp.monitor("lx pss"),
        "unknown command \"lx pss\"; near it is lx ps; \"monitor help\" lists all\n"
    );
    let long = format!("unknown command {:?}; \"monitor", "q".repeat(60));
    assert!(rsp.monitor(&"q".repeat(1000)).starts_with(&long));
}

#[test]
fn who_asks_for_qemu_gets_its_words_and_the_next_client_does_not() {
    let (guest, mut rsp) = guest();
    let ours = rsp.monitor("xp/2w 0x1000");
    assert!(ours.starts_with("0x1000: 0x"), "{ours}");
    assert!(rsp.monitor("gpa2hva 0x1000").starts_with("unknown command"));
    assert_eq!(rsp.ask("qqemu.PhyMemMode"), "0");
    assert_eq!(
        rsp.monitor("xp/2w 0x1000"),
        format!("000000000000{}", &ours[2..])
    );
    assert_eq!(
        rsp.monitor("xp 0x70000000"),
        "0000000070000000: Cannot access memory\n"
    );
    for (addr, said) in [
        (
            "0x1000",
            "Host virtual address for 0x1000 (pc.ram) is 0x7f0000001000\n",
        ),
        ("0x70000000", "No memory is mapped at address 0x70000000\n"),
    ] {
        assert_eq!(rsp.monitor(&format!("gpa2hva {addr}")), said);
    }
    let one = rsp.monitor("info registers");
    assert!(
        one.starts_with("\nCPU#0\nRAX=") && !one.contains("CPU#1"),
        "{one}"
    );
    let all = rsp.monitor("info registers -a");
    assert!(
        all.starts_with(&one) && all.contains("\n\nCPU#1\n"),
        "{all}"
    );
    for flag in ["", " -f"] {
        let tree = rsp.monitor(&format!("info mtree{flag}"));
        assert!(tree.contains("(prio 0, ram): pc.ram\n"), "{tree}");
        assert!(
            tree.contains("-00000000d0000fff (prio 0, i/o): toy0\n"),
            "{tree}"
        );
    }
    // Other commands are for everybody.
    assert!(rsp.monitor("info devices").starts_with("0: toy0"));
    assert_eq!(rsp.ask("D"), "OK");
    assert_eq!(guest.attach().monitor("xp/2w 0x1000"), ours);
}

#[test]
fn mappings_are_listed_as_qemu_lists_them() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    guest.watcher.state().cpus[1].registers.cr0 &= !cr0::PG;
    let mut rsp = guest.attach();
    assert_eq!(
        rsp.monitor("info mem"),
        "0000000000000000-0000000000100000 0000000000100000 -rw\n\
         ffffffff80000000-ffffffff80100000 0000000000100000 -rw\n"
    );
    assert_eq!(rsp.monitor("info mem vcpu=1"), "PG disabled\n");
}

#[test]
fn wrong_words_are_told_with_the_usage() {
    let (_guest, mut rsp) = guest();
    let usage = "usage: monitor translate ADDR\n";
    for (words, error) in [
        ("translate", "an address is missing\n".to_owned()),
        (
            "translate 1 2 3",
            "there is more than the command takes: \"2 3\"\n".to_owned(),
        ),
        (
            "translate $xmm0",
            "no register \"xmm0\" with at most 64 bits\n".to_owned(),
        ),
        (
            "translate 1 vcpu=2",
            "\"vcpu=2\" is no vCPU of this guest: vcpu=0 to vcpu=1\n".to_owned(),
        ),
        (
            "translate &jiffies",
            "\"&jiffies\" is not a number: write 4096, 0x1000 or $rip; for others: \
             eval \"monitor COMMAND %#lx\", (unsigned long)EXPRESSION\n"
                .to_owned(),
        ),
    ] {
        assert_eq!(rsp.monitor(words), error + usage);
    }
}

#[test]
fn translate_says_where_an_address_leads_or_why_nowhere() {
    let (_guest, mut rsp) = guest();
    let high = HIGH + 0x1234;
    assert_eq!(
        rsp.monitor(&format!("translate {high:#x}")),
        "0xffffffff80001234 is physical 0x1234 (4 KiB page, rwx kernel)\n"
    );
    assert_eq!(
        rsp.monitor("translate $rip vcpu=1"),
        "0x1000 is physical 0x1000 (4 KiB page, rwx kernel)\n"
    );
    assert_eq!(
        rsp.monitor("translate 0x100000"),
        "0x100000 is not mapped: the level-1 entry is not present\n"
    );
    assert_eq!(
        rsp.monitor("translate 0x800000000000"),
        "0x800000000000 is not mapped: address 0x800000000000 is not canonical in this paging mode\n"
    );
}

#[test]
fn pagewalk_shows_every_entry_to_the_end() {
    let (guest, mut rsp) = guest();
    assert_eq!(
        rsp.monitor("pagewalk 0xffffffff80001234"),
        "vCPU 0: 4-level paging, cr3 0xf0000\n\
         PML4E[511] at 0xf0ff8: 0x00000000000f2003 P R/W\n\
         PDPTE[510] at 0xf2ff0: 0x00000000000f3003 P R/W\n\
         PDE[0]     at 0xf3000: 0x00000000000f4003 P R/W\n\
         PTE[1]     at 0xf4008: 0x0000000000001003 4 KiB page: P R/W\n\
         0xffffffff80001234 is physical 0x1234 (4 KiB page, rwx kernel)\n"
    );
    // A 1 GiB page, a table outside RAM, a reserved bit.
    let put = |at: usize, entry: u64| {
        guest.watcher.state().ram[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    };
    put(0xf1000 + 8, 0xc000_01e7);
    put(0xf1000 + 16, 0x7000_0003);
    put(0xf0008, 0xf1083);
    let end = |text: String| text.lines().skip(2).collect::<Vec<_>>().join("\n");
    assert_eq!(
        end(rsp.monitor("pagewalk 0x40000abc")),
        "PDPTE[1]   at 0xf1008: 0x00000000c00001e7 1 GiB page: P R/W U/S A D PS G\n\
         0x40000abc is physical 0xc0000abc (1 GiB page, rwx kernel)"
    );
    assert_eq!(
        end(rsp.monitor("pagewalk 0x80000000")),
        "PDPTE[2]   at 0xf1010: 0x0000000070000003 P R/W\n\
         0x80000000 is not mapped: the level-2 table cannot be read: \
         no guest RAM at physical address 0x70000000"
    );
    assert_eq!(
        end(rsp.monitor("pagewalk 0xc0000000")),
        "PDPTE[3]   at 0xf1018: 0x0000000000000000 not present\n\
         0xc0000000 is not mapped: the level-3 entry is not present"
    );
    assert_eq!(
        end(rsp.monitor("pagewalk 0x8000000000")),
        "0x8000000000 is not mapped: the level-4 entry 0xf1083 has reserved bits set"
    );
}

#[test]
fn every_paging_mode_is_named() {
    let (guest, mut rsp) = guest();
    // vCPU 1's mode is its own.
    let mode = |guest: &Guest, cr0, cr4, efer| {
        let registers = &mut guest.watcher.state().cpus[1].registers;
        (registers.cr0, registers.cr4, registers.efer) = (cr0, cr4, efer);
    };
    let paging = cr0::PE | cr0::PG;
    for (cr0, cr4, efer, name) in [
        (cr0::PE, 0, 0, "paging is off"),
        (paging, 0, 0, "32-bit paging"),
        (paging, cr4::PSE, 0, "32-bit paging with PSE"),
        (paging, cr4::PAE, 0, "PAE paging"),
        (paging, cr4::PAE | cr4::LA57, 0x500, "5-level paging"),
    ] {
        mode(&guest, cr0, cr4, efer);
        // A step of the other vCPU makes the session forget what it has cached.
        rsp.send("vCont;s:1");
        rsp.told();
        let text = rsp.monitor("pagewalk 0 vcpu=1");
        assert!(
            text.starts_with(&format!("vCPU 1: {name}, cr3 0xf0000\n")),
            "{text}"
        );
    }
}

#[test]
fn the_vcpu_that_gdb_looks_at_is_meant() {
    let (_guest, mut rsp) = guest();
    let named = |rsp: &mut Rsp| rsp.monitor("pagewalk 0")[..7].to_owned();
    assert_eq!(named(&mut rsp), "vCPU 0:");
    assert_eq!(rsp.ask("Hg2"), "OK");
    assert_eq!(rsp.ask("m1000,1"), "eb");
    assert_eq!(named(&mut rsp), "vCPU 1:");
    rsp.send("vCont;s:1");
    rsp.told();
    assert_eq!(named(&mut rsp), "vCPU 0:", "the one that stopped");
}

#[test]
fn pagetable_merges_equal_neighbours() {
    let (guest, mut rsp) = guest();
    assert_eq!(
        rsp.monitor("pagetable"),
        "vCPU 0: 4-level paging, cr3 0xf0000\n\
         0x0000000000000000-0x00000000000fffff      1 MiB rwx kernel, 4 KiB pages\n\
         0xffffffff80000000-0xffffffff800fffff      1 MiB rwx kernel, 4 KiB pages\n"
    );
    {
        let ram = &mut guest.watcher.state().ram;
        // The second page: read-only, global, not executable; the third: user,
        // which the levels above do not allow.
        ram[0xf4008..0xf4010].copy_from_slice(&(1_u64 << 63 | 0x1101).to_le_bytes());
        ram[0xf4010] |= 4;
    }
    assert_eq!(
        rsp.monitor("pagetable 0x1000 0x7fffffffffff"),
        "vCPU 0: 4-level paging, cr3 0xf0000\n\
         0x0000000000001000-0x0000000000001fff      4 KiB r-- kernel global, 4 KiB pages\n\
         0x0000000000002000-0x00000000000fffff   1016 KiB rwx kernel, 4 KiB pages\n"
    );
    assert_eq!(
        rsp.monitor("pagetable 0x100000 0x200000"),
        "vCPU 0: 4-level paging, cr3 0xf0000\nnothing is mapped there\n"
    );
}

#[test]
fn xp_shows_physical_memory_without_what_is_planted() {
    let (guest, mut rsp) = guest();
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    guest.watcher.state().ram[0x1000..0x1014].copy_from_slice(b"\xcc\xfe23456789abcdefghij");
    assert_eq!(rsp.monitor("xp 0x1000"), "0x1000: 0x3332feeb\n");
    assert_eq!(
        rsp.monitor("xp /20b 0x1000"),
        "0x1000: 0xeb 0xfe 0x32 0x33 0x34 0x35 0x36 0x37 0x38 0x39 0x61 0x62 0x63 0x64 0x65 0x66\n\
         0x1010: 0x67 0x68 0x69 0x6a\n"
    );
    assert_eq!(
        rsp.monitor("xp /2xg 0x1002"),
        "0x1002: 0x3938373635343332 0x6867666564636261\n"
    );
    assert_eq!(
        rsp.monitor("xp /3h 0xffffc"),
        "0xffffc: 0x0000 0x0000\n0x100000: no RAM at this physical address\n"
    );
    assert_eq!(
        rsp.monitor("xp /65537b 0"),
        "between 1 and 65536 bytes can be shown at once\n\
         usage: monitor xp [/COUNT[b|h|w|g]] ADDR\n"
    );
    guest.watcher.state().ram[0x1000] = 0xcc;
    assert_eq!(rsp.ask("z0,1000,1"), "OK");
}

#[test]
fn gdb_reads_and_writes_physical_memory_until_the_guest_goes_on() {
    let (guest, mut rsp) = guest();
    // Virtual 0x5000 is no longer physical 0x5000.
    guest.watcher.state().ram[0xf4028..0xf402a].copy_from_slice(&[0x03, 0x60]);
    guest.watcher.state().ram[0x5000] = 0x55;
    guest.watcher.state().ram[0x6000] = 0x66;
    assert_eq!(rsp.ask("m5000,1"), "66");
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    assert_eq!(
        rsp.monitor("phys on"),
        "gdb's memory accesses are physical until the guest resumes or \"monitor phys off\"\n"
    );
    assert_eq!(rsp.ask("m5000,1"), "55");
    assert_eq!(rsp.ask("m1000,2"), "ebfe", "the int3 is hidden");
    assert_eq!(rsp.ask("M1000,2:9090"), "OK", "and not written over");
    assert_eq!(guest.watcher.state().ram[0x1000..0x1002], [0xcc, 0x90]);
    assert_eq!(rsp.ask("M1000,2:ebfe"), "OK");
    assert_eq!(rsp.ask("mffffe,4"), "0000");
    assert_eq!(rsp.ask("Mfffff,2:ffff"), "E0e");
    assert_eq!(rsp.ask("mfffff,1"), "00", "nothing was written");
    assert_eq!(
        rsp.monitor("phys off"),
        "gdb's memory accesses are virtual\n"
    );
    assert_eq!(rsp.ask("m5000,1"), "66");

    rsp.monitor("phys on");
    rsp.send("vCont;s:1");
    rsp.told();
    assert_eq!(rsp.ask("m5000,1"), "66", "the guest has run");
    assert_eq!(
        rsp.monitor("phys no"),
        "\"no\" is neither on nor off\nusage: monitor phys [on|off]\n"
    );
}
