//! QEMU's microvm, the machine of its that is most like ours.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tests::backend::Backend;
use tests::process::{Process, Stream};
use tests::{DEADLINE, guest, program};

/// Where the bare-metal guests find the microvm's devices.
const DEVICES: &str = "virtio=0xfeb00000 stride=0x200 gsi=16";

/// Runs a bare-metal guest and returns what it printed.
pub fn run(kernel: &Path, cmdline: &str, devices: &[&str]) -> Result<String> {
    let mut command = command(kernel, cmdline);
    let mut process = Process::start("qemu", command.args(devices));
    process.expect_exit(0, DEADLINE);
    Ok(process.printed(Stream::Out))
}

/// Runs the guest that drives virtio devices.
pub fn drive(cmdline: &str, devices: &[&str]) -> Result<String> {
    run(
        &guest::bare("virtio"),
        &format!("{cmdline} {DEVICES}"),
        devices,
    )
}

/// The same with `backend` as its vhost-user backend, which `devices` call `backend`.
pub fn drive_with(backend: &Backend, cmdline: &str, devices: &[&str]) -> Result<String> {
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
