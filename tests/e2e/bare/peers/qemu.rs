//! outboard-blk under the frontend of QEMU. Its emulator
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

/// QEMU with `disk` as its vhost-user block device. Not on its microvm: under
/// emulation Linux hangs there now and then when it calibrates its clock.
fn qemu(disk: &Backend, kernel: &Path, initramfs: &Path, cmdline: &str) -> Command {
    let mut command = Command::new(program::system("qemu-system-x86_64"));
    command
        .args([
            "-accel",
            "tcg",
            "-m",
            "256M",
            "-M",
            "q35,memory-backend=ram",
        ])
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
        .args(["-device", "vhost-user-blk-pci,chardev=disk"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", cmdline]);
    command
}

#[test]
fn outboard_blk_serves_linux_under_qemu_and_removes_its_socket() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let mut disk = backend::outboard_blk(dir.path(), &image, &[]);
    let cmdline = "console=ttyS0 quiet panic=-1 tsc=reliable outboard.run=disk outboard.mib=16";
    let mut command = qemu(&disk, &guest.bzimage, &guest.initramfs, cmdline);
    let mut qemu = Process::start("qemu", &mut command);
    qemu.expect_exit(0, BOOT);
    assert!(
        qemu.transcript().contains("outboard-guest: disk=ok"),
        "{}",
        qemu.transcript()
    );
    disk.process.signal(libc::SIGTERM);
    disk.process.expect_exit(0, DEADLINE);
    assert!(!disk.socket.exists());
}
