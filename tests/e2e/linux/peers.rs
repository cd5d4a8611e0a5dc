//! Other people's backends under this VMM, and this project's backends under
//! other people's frontends.

use std::process::Command;

use tests::process::Process;
use tests::{backend, guest, program, scratch};

use crate::machine::{BOOT, cmdline, linux, run, value};

#[test]
fn storage_daemon_of_qemu_serves_a_linux_disk() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=disk outboard.mib=16")
        .cpus(2)
        .device("blk", &disk.socket);
    assert_eq!(value(&run(vmm), "disk"), "ok");
}

/// QEMU's emulator will do: the frontend is the same as with KVM.
#[test]
fn outboard_blk_serves_qemu() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let mut disk = backend::outboard_blk(dir.path(), &image, &[]);
    let mut command = Command::new(program::system("qemu-system-x86_64"));
    command
        .args([
            "-M",
            "q35,memory-backend=ram",
            "-accel",
            "kvm",
            "-accel",
            "tcg",
            "-m",
            "256M",
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
        .args(["-device", "vhost-user-blk-device,chardev=disk"])
        .arg("-kernel")
        .arg(&guest.bzimage)
        .arg("-initrd")
        .arg(&guest.initramfs)
        .arg("-append")
        .arg(cmdline("outboard.run=disk outboard.mib=16"));
    let mut qemu = Process::start("qemu", &mut command);
    qemu.expect_exit(0, BOOT);
    assert!(
        qemu.transcript().contains("outboard-guest: disk=ok"),
        "{}",
        qemu.transcript()
    );
    disk.process.signal(libc::SIGTERM);
    disk.process.expect_exit(0, tests::DEADLINE);
    assert!(!disk.socket.exists());
}
