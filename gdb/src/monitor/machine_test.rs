//! The commands about the machine, on the toy's.

use super::monitor_test::guest;
use crate::testing::Guest;

#[test]
fn the_map_has_ram_holes_and_devices() {
    let (_guest, mut rsp) = guest();
    for command in ["info mtree", "info mtree -f"] {
        assert_eq!(
            rsp.monitor(command),
            "0x0000000000000000-0x00000000000fffff      1 MiB RAM\n\
             0x0000000000100000-0x00000000cfffffff   3327 MiB hole\n\
             0x00000000d0000000-0x00000000d0000fff      4 KiB toy0\n"
        );
    }
}

#[test]
fn msrs_are_read_and_written_by_name_and_number() {
    let (guest, mut rsp) = guest();
    assert_eq!(
        rsp.monitor("msr EFER"),
        "vCPU 0: EFER (0xc0000080) = 0x0000000000000d00\n"
    );
    assert_eq!(
        rsp.monitor("msr IA32_KERNEL_GS_BASE 0x1234 vcpu=1"),
        "vCPU 1: IA32_KERNEL_GS_BASE (0xc0000102) = 0x0000000000001234\n"
    );
    let cpus = guest.watcher.state().cpus.clone();
    assert_eq!(cpus[1].registers.k_gs_base, 0x1234);
    assert_eq!(cpus[0].registers.k_gs_base, 0);
    assert_eq!(
        rsp.monitor("msr 0x10"),
        "MSR: invalid input parameter\n",
        "the target's own words"
    );
    assert_eq!(
        rsp.monitor("msr"),
        "vCPU 0:\n\
         \x20 efer                 0xc0000080 0x0000000000000d00\n\
         \x20 kernel_gs_base       0xc0000102 0x0000000000000000\n"
    );
    assert!(rsp.monitor("msr nope").starts_with(
        "\"nope\" is neither a number nor a known name of an MSR; \"monitor msr\" lists these\n"
    ));
}

#[test]
fn a_written_msr_is_seen_in_the_register() {
    let (_guest, mut rsp) = guest();
    const K_GS_BASE: usize = 59;
    assert_eq!(rsp.register(K_GS_BASE), 0);
    rsp.monitor("msr kernel_gs_base 5");
    assert_eq!(rsp.register(K_GS_BASE), 5);
}

#[test]
fn what_the_target_does_not_have_is_said() {
    let (_guest, mut rsp) = guest();
    assert_eq!(
        rsp.monitor("nmi 1"),
        "this VMM does not have non-maskable interrupts\n"
    );
    assert_eq!(
        rsp.monitor("mmio read 0xd0000000 4"),
        "physical address 0xd0000000 cannot be read as a device's: this VMM cannot read devices\n"
    );
    assert_eq!(
        rsp.monitor("mmio read 0 3"),
        "a device is read 1, 2, 4 or 8 bytes at a time, not 3\n\
         usage: monitor mmio read ADDR [SIZE]\n"
    );
    assert!(rsp.monitor("nmi 2").starts_with("\"2\" is no vCPU"));
}

#[test]
fn exits_are_counted_and_told_with_their_time() {
    let (_guest, mut rsp) = guest();
    assert_eq!(
        rsp.monitor("info exits"),
        "vCPU 0: HLT 3, IO_OUT 1\nvCPU 1: HLT 3, IO_OUT 1\n"
    );
    let last = |n: &str, micros| {
        format!("vCPU {n}:\n  {micros:>14} us ago: IO_OUT          0x3f8              rip 0x3f8\n")
    };
    assert_eq!(rsp.monitor("exits 1"), last("0", "0.5") + &last("1", "0.0"));
    assert_eq!(rsp.monitor("exits").lines().count(), 6);
    assert!(
        rsp.monitor("exits")
            .contains("11.5 us ago: HLT                                rip unknown")
    );
}

#[test]
fn a_reset_leaves_the_guest_stopped_at_its_beginning() {
    let (guest, mut rsp) = guest();
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    assert_eq!(rsp.ask("P0=1111111111111111"), "OK");
    assert_eq!(guest.watcher.state().ram[0x1000], 0xcc);
    let answer = rsp.monitor("reset");
    assert!(
        answer.starts_with("the guest is reset and stands before its first instruction\n"),
        "{answer}"
    );
    assert_eq!(rsp.register(0), 0);
    assert_eq!(rsp.ask("z0,1000,1"), "OK");
    assert_eq!(guest.watcher.state().ram[0x1000], 0xeb);
    rsp.send("D");
    assert_eq!(rsp.answer(), "OK");
    guest.until_undisturbed();
}

fn with_queue(guest: &Guest) {
    let ram = &mut guest.watcher.state().ram;
    // Chain 1: 1 -> 2; chain 3 leads to itself.
    ram[0x5110..0x5120].copy_from_slice(b"\0\x60\0\0\0\0\0\0\x10\0\0\0\x01\0\x02\0");
    ram[0x5120..0x5130].copy_from_slice(b"\0\0\0\x70\0\0\0\0\0\x02\0\0\x02\0\0\0");
    ram[0x5130..0x5140].copy_from_slice(b"\0\x60\0\0\0\0\0\0\x01\0\0\0\x81\0\x03\0");
    // Available: 0, 1, 3; used: 0 with 17 bytes.
    ram[0x5200..0x520a].copy_from_slice(b"\x01\0\x03\0\0\0\x01\0\x03\0");
    ram[0x5300..0x530c].copy_from_slice(b"\0\0\x01\0\0\0\0\0\x11\0\0\0");
}

#[test]
fn devices_and_queues_are_listed() {
    let (guest, mut rsp) = guest();
    with_queue(&guest);
    assert_eq!(
        rsp.monitor("info devices"),
        "0: toy0, toy, at 0xd0000000, interrupt 16\n\
         \x20  status: ACKNOWLEDGE DRIVER\n\
         \x20  features: VERSION_1\n\
         \x20  backend: toy.sock, connected\n\
         \x20  queues: 1 of 2 run\n\
         \x20  since the start: resets 1\n"
    );
    assert_eq!(
        rsp.monitor("info queues"),
        "toy0 queue 0: 4 entries, descriptors 0x5100, available 0x5200, used 0x5300, running, \
         errors reported: 2, 2 in flight\n\
         toy0 queue 1: not set up, at most 8 entries\n"
    );
}

#[test]
fn a_queue_is_decoded_and_what_is_broken_in_it_named() {
    let (guest, mut rsp) = guest();
    with_queue(&guest);
    let before = guest.watcher.state().ram.clone();
    assert_eq!(
        rsp.monitor("vq toy0 0"),
        "toy0 queue 0: 4 entries, descriptors 0x5100, available 0x5200, used 0x5300, running\n\
         available: index 3, no interrupt wanted\n\
         used: index 1, kick wanted\n\
         in flight: 2\n\
         chain 1:\n\
         \x20 1: 0x6000, 16 bytes, device reads, next 2\n\
         \x20 2: 0x70000000, 512 bytes, device writes, NOT IN RAM\n\
         chain 3:\n\
         \x20 3: 0x6000, 1 bytes, device reads, next 3, unknown flags 0x80\n\
         \x20 broken: the chain comes back to descriptor 3\n\
         last 4 available, heads: 0 0 1 3\n\
         last 4 used, head:bytes: 0:0 0:0 0:0 0:17\n"
    );
    assert_eq!(guest.watcher.state().ram, before, "looking changes nothing");
    guest.watcher.state().event_idx = true;
    let indices = "available: index 3, interrupt wanted at 0\nused: index 1, kick wanted at 0\n";
    let event_idx = rsp.monitor("vq toy0 0");
    assert!(event_idx.contains(indices), "{event_idx}");
    let all = rsp.monitor("vq 0 0 all");
    assert!(
        all.contains("descriptor table:\n  0: 0x0, 0 bytes, device reads\n  1: 0x6000"),
        "{all}"
    );
    guest.watcher.state().ram[0x5302] = 0xf0;
    assert!(
        rsp.monitor("vq toy0")
            .contains("in flight: 65299\nthe used index is ahead")
    );
}

#[test]
fn queues_that_are_not_there_are_named() {
    let (_guest, mut rsp) = guest();
    let usage = "usage: monitor vq DEVICE [QUEUE] [all]\n";
    for (words, error) in [
        ("vq", "a device, by name or number, is missing\n"),
        ("vq blk0", "no device \"blk0\"; there are: toy0\n"),
        ("vq 1", "no device \"1\"; there are: toy0\n"),
        ("vq toy0 2", "toy0 has no queue 2, but 2 from 0 on\n"),
    ] {
        assert_eq!(rsp.monitor(words), format!("{error}{usage}"));
    }
    assert_eq!(
        rsp.monitor("vq toy0 1"),
        "toy0 queue 1 is not set up by the driver\n"
    );
}

#[test]
fn a_trapped_access_stops_the_guest_with_the_reason() {
    // out %al,$0x10; jmp 1000
    let guest = Guest::start(&[0xe6, 0x10, 0xeb, 0xfc], &[0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.monitor("trap"), "nothing is trapped\n");
    assert_eq!(rsp.monitor("trap pio 0x20"), "ports 0x20-0x20\n");
    assert_eq!(
        rsp.monitor("trap pio 0x10 0x1f"),
        "ports 0x20-0x20\nports 0x10-0x1f\n"
    );
    for _ in 0..2 {
        rsp.send("vCont;c");
        let (told, stop) = rsp.told();
        assert!(told.contains("vCPU 0: write at port 0x10\n"), "{told}");
        assert!(stop.starts_with("T05thread:01;"), "{stop}");
        assert_eq!(rsp.register(16), 0x1002, "the access is done");
    }
    assert_eq!(
        rsp.monitor("trap kick toy0 1"),
        "ports 0x20-0x20\nports 0x10-0x1f\nkicks of toy0 queue 1\n"
    );
    assert_eq!(rsp.monitor("trap off"), "nothing is trapped\n");
    assert_eq!(rsp.monitor("trap msr lstar"), "MSR 0xc0000082\n");
    rsp.monitor("trap pio 0x10");
    drop(rsp);
    guest.until_undisturbed();
}

#[test]
fn traps_that_would_never_be_met_are_refused() {
    let (_guest, mut rsp) = guest();
    let usage =
        "usage: monitor trap [off | mmio|pio FIRST [LAST] | kick DEVICE [QUEUE] | msr MSR]\n";
    for (words, error) in [
        (
            "trap mmio 0xff000 0x100000",
            "0xff000 to 0x100000 has RAM in it, where accesses do not stop the guest; \
             gdb's watch can, on a virtual address\n",
        ),
        (
            "trap pio 0x10000",
            "0x10000 to 0x10000 is no range up to 0xffff\n",
        ),
        ("trap pio 5 4", "0x5 to 0x4 is no range up to 0xffff\n"),
        ("trap kick toy0 2", "toy0 has no queue 2, but 2 from 0 on\n"),
        (
            "trap irq 4",
            "\"irq\" cannot be trapped; mmio, pio, kick and msr can\n",
        ),
    ] {
        assert_eq!(rsp.monitor(words), format!("{error}{usage}"));
    }
    assert_eq!(
        rsp.monitor("trap mmio 0xd0000070"),
        "accesses to 0xd0000070-0xd0000070\n\
         \x20 of toy0: writes only, and neither kicks (trap kick) nor interrupt \
         acknowledgements; the others do not leave the kernel\n"
    );
}

#[test]
fn pages_that_a_device_writes_are_told_until_gdb_leaves() {
    let (guest, mut rsp) = guest();
    let unknown = "toy0: pages that it writes are not noted; \"monitor written toy0 on\" begins\n";
    assert_eq!(rsp.monitor("written toy0"), unknown);
    assert_eq!(
        rsp.monitor("written 0 on"),
        "toy0: pages that it writes are noted\n"
    );
    assert_eq!(
        rsp.monitor("written 0"),
        "toy0: 3 pages written since the last look\n\
         0x0000000000001000-0x0000000000002fff      2\n\
         0x00000000000ff000-0x00000000000fffff      1\n"
    );
    assert_eq!(
        rsp.monitor("written toy0 off"),
        "toy0: pages that it writes are not noted\n"
    );
    assert_eq!(rsp.monitor("written toy0"), unknown);
    assert_eq!(
        rsp.monitor("written toy0 maybe"),
        "\"maybe\" is neither on nor off\nusage: monitor written DEVICE [on|off]\n"
    );
    rsp.monitor("written toy0 on");
    drop(rsp);
    guest
        .watcher
        .until("it is let go", |state| state.is_let_go());
}

#[test]
fn a_dump_may_be_compressed() {
    let (_guest, mut rsp) = guest();
    assert_eq!(rsp.monitor("dump a b"), "a b: Elf in a b\n");
    assert_eq!(rsp.monitor("dump -z a"), "a: Kdump in a\n");
    for command in ["dump", "dump -z"] {
        let said = rsp.monitor(command);
        assert!(said.starts_with("a file is missing\nusage: "), "{said}");
    }
}
