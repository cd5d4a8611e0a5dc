//! This project's backends under somebody else's frontend: QEMU's. Its emulator
//! will do, because the frontend is the same with KVM, so that Linux guests need
//! no KVM here either.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::backend::{self, Backend};
use tests::process::Process;
use tests::{DEADLINE, guest, program, scratch};

/// A Linux guest under QEMU's emulator.
const BOOT: Duration = Duration::from_secs(180);

/// QEMU with `disk` as its vhost-user block device. `machine` names the machine
/// and the device's model on it.
fn qemu(machine: &[&str], disk: &Backend, kernel: &Path, cmdline: &str) -> Command {
    let mut command = Command::new(program::system("qemu-system-x86_64"));
    command
        .args(["-accel", "tcg", "-m", "256M"])
        .args(["-object", "memory-backend-memfd,id=ram,size=256M,share=on"])
        .args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ])
        .arg("-chardev")
        .arg(format!("socket,id=disk,path={}", disk.socket.display()))
        .args(machine)
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", cmdline]);
    command
}

const MICROVM: [&str; 6] = [
    "-M",
    "microvm,acpi=on,ioapic2=off,memory-backend=ram",
    "-global",
    "virtio-mmio.force-legacy=off",
    "-device",
    "vhost-user-blk,chardev=disk",
];
/// For Linux, which hangs now and then in the microvm's clock calibration.
const Q35: [&str; 4] = [
    "-M",
    "q35,memory-backend=ram",
    "-device",
    "vhost-user-blk-pci,chardev=disk",
];

fn run(command: &mut Command, within: Duration, expected: &str) {
    let mut qemu = Process::start("qemu", command);
    qemu.expect_exit(0, within);
    assert!(
        qemu.transcript().contains(expected),
        "{}",
        qemu.transcript()
    );
}

#[test]
fn outboard_blk_serves_qemu_twice_and_removes_its_socket() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let mut disk = backend::outboard_blk(dir.path(), &image, &[]);
    // QEMU's microvm lets a guest set a larger queue than its frontend has.
    let cmdline = "virtio=0xfeb00000 stride=0x200 gsi=16 sectors=64 queue_size=128";
    for _ in 0..2 {
        let mut command = qemu(&MICROVM, &disk, &guest::bare("virtio"), cmdline);
        run(&mut command, DEADLINE, "blk: ok sectors=64 written=1");
    }
    disk.process.signal(libc::SIGTERM);
    disk.process.expect_exit(0, DEADLINE);
    assert!(!disk.socket.exists());
}

#[test]
fn outboard_blk_serves_linux_under_qemu() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let cmdline = "console=ttyS0 quiet panic=-1 tsc=reliable outboard.run=disk outboard.mib=16";
    let mut command = qemu(&Q35, &disk, &guest.bzimage, cmdline);
    command.arg("-initrd").arg(&guest.initramfs);
    run(&mut command, BOOT, "outboard-guest: disk=ok");
}
