//! Every form of kernel reaches its init, on one and on several vCPUs.

use tests::guest;
use tests::vmm::Vmm;

use crate::machine::{BOOT, cmdline, linux, run};

#[test]
fn vmlinux_boots_by_pvh_with_two_vcpus() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let vmm = run(linux(&vmlinux, &guest, "outboard.run=smp").cpus(2));
    assert_eq!(vmm.guest_value("cpus"), "2");
    assert_eq!(vmm.guest_value("cpus-online"), "0-1");
    assert_eq!(vmm.guest_value("smp"), "ok");
}

#[test]
fn bzimage_boots_by_the_64_bit_protocol_with_four_vcpus() {
    let guest = guest::linux();
    let vmm = run(linux(&guest.bzimage, &guest, "outboard.run=smp").cpus(4));
    assert_eq!(vmm.guest_value("cpus"), "4");
    assert_eq!(vmm.guest_value("smp"), "ok");
}

#[test]
fn stock_debian_kernel_boots() {
    let guest = guest::stock_linux();
    let vmm = run(linux(&guest.bzimage, &guest, "outboard.run=smp").cpus(2));
    assert_eq!(vmm.guest_value("cpus-online"), "0-1");
}

#[test]
fn all_of_a_large_memory_is_seen() {
    let guest = guest::linux();
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=memory").arg("--memory", "4G");
    let vmm = run(vmm);
    let kib: u64 = vmm.guest_value("memory-kib").parse().unwrap();
    assert!(kib > 3_900_000, "{kib} KiB of 4 GiB");
}

#[test]
fn reboot_boots_again_in_the_same_process() {
    let guest = guest::linux();
    let mut vmm = Vmm::new(&guest.bzimage)
        .arg("--initrd", &guest.initramfs)
        .arg("--memory", "256M")
        .cmdline(&cmdline("outboard.run=reboot"))
        .cpus(2)
        .start();
    let mut line = 0;
    for _ in 0..2 {
        line = vmm.process.wait_for_after(line, "init: reached", BOOT).0;
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, tests::DEADLINE);
}

#[test]
fn reboot_ends_the_machine_if_told_so() {
    let guest = guest::linux();
    for method in ["", "reboot=k"] {
        let what = format!("outboard.run=reboot {method}");
        let vmm = run(linux(&guest.bzimage, &guest, &what).cpus(2));
        assert_eq!(vmm.console().matches("init: reached").count(), 1);
    }
}

#[test]
fn stock_debian_kernel_reboots() {
    let guest = guest::stock_linux();
    run(linux(&guest.bzimage, &guest, "outboard.run=reboot").cpus(2));
}

#[test]
fn kernel_panic_reboots_as_its_command_line_says() {
    let guest = guest::linux();
    let vmm = run(linux(&guest.bzimage, &guest, "outboard.run=panic").cpus(2));
    assert!(
        vmm.console().contains("sysrq"),
        "{}",
        vmm.process.transcript()
    );
}

#[test]
fn serial_console_carries_input() {
    let guest = guest::linux();
    let mut vmm = linux(&guest.bzimage, &guest, "outboard.run=line").start();
    vmm.process.wait_for("line=waiting", BOOT);
    vmm.process.send(b"through the serial port\n");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("line"), "through the serial port");
}
