//! QEMU's microvm, the machine of its that is most like ours.

use std::path::Path;
use std::process::Command;

use crate::backend::Backend;
use crate::process::{Process, Stream};
use crate::{DEADLINE, guest, program};

/// Where the bare-metal guests find the microvm's devices.
const DEVICES: &str = "virtio=0xfeb00000 stride=0x200 gsi=16";

/// Runs a bare-metal guest and returns what it printed.
///
/// # Panics
/// It fails, or does not end in time.
pub fn run(kernel: &Path, cmdline: &str, devices: &[&str]) -> String {
    let mut command = command(kernel, cmdline);
    let mut process = Process::start("qemu", command.args(devices));
    process.expect_exit(0, DEADLINE);
    process.printed(Stream::Out)
}

/// Runs the guest that drives virtio devices.
pub fn drive(cmdline: &str, devices: &[&str]) -> String {
    run(
        &guest::bare("virtio"),
        &format!("{cmdline} {DEVICES}"),
        devices,
    )
}

/// The same with `backend` as its vhost-user backend, which `devices` call `backend`.
pub fn drive_with(backend: &Backend, cmdline: &str, devices: &[&str]) -> String {
    let socket = format!("socket,id=backend,path={}", backend.socket.display());
    let shared = "memory-backend-memfd,id=ram,size=512M,share=on";
    let machine = [
        "-M",
        "memory-backend=ram",
        "-object",
        shared,
        "-chardev",
        &socket,
    ];
    drive(cmdline, &[&machine, devices].concat())
}

/// QEMU's microvm with that kernel, and as good as no devices.
pub fn command(kernel: &Path, cmdline: &str) -> Command {
    let mut command = Command::new(program::system("qemu-system-x86_64"));
    command
        .args([
            "-M",
            "microvm,acpi=on,ioapic2=off",
            "-accel",
            "kvm",
            // Some hosts give that MSR's value and take it from nobody.
            "-cpu",
            "host,-arch-capabilities",
            "-m",
            "512M",
        ])
        .args([
            "-global",
            "virtio-mmio.force-legacy=off",
            "-nodefaults",
            "-no-reboot",
        ])
        .args(["-display", "none", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .args(["-append", cmdline]);
    command
}
