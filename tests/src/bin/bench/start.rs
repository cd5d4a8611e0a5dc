//! From the start of the process to Linux's init, beside QEMU's microvm: the same kernel,
//! initramfs and disk.
//!
//! In a bed whose clock counts instructions (OUTBOARD_BED_ICOUNT) the figures are the same
//! however busy the machine is.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use tests::process::Process;
use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, qemu, scratch};

use super::{host_kind, median};

const ROUNDS: usize = 5;
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 outboard.run=poweroff";
const MEMORY: &str = "512M";
/// In milliseconds.
const INIT_GOAL: u32 = 260;
const FIRST_GOAL: u32 = 30;

pub fn compare() -> Result<()> {
    println!("host: {}", host_kind()?);
    let (mut first, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let linux = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 16);
    // The first round reads all files, and does not count.
    for round in 0..=ROUNDS {
        let (entry, init) = outboard(&linux, &image);
        let other = microvm(&linux, &image);
        if round > 0 {
            first.push(entry);
            ours.push(init);
            theirs.push(other);
        }
    }
    println!(
        "start to first guest instruction: {:.1} ms (goal: {FIRST_GOAL}); to init: {:.0} ms \
         (goal: {INIT_GOAL}), QEMU microvm {:.0} ms",
        median(&mut first),
        median(&mut ours),
        median(&mut theirs)
    );
    Ok(())
}

/// Milliseconds to the first guest instruction and to init.
fn outboard(linux: &guest::Linux, image: &Path) -> (f64, f64) {
    let dir = scratch();
    let disk = backend::outboard_blk(dir.path(), image, &[]);
    let vmm = Vmm::new(vmlinux(linux))
        .arg("--initrd", &linux.initramfs)
        .arg("--memory", MEMORY)
        .cmdline(CMDLINE)
        .device("blk", &disk.socket);
    let begin = Instant::now();
    let mut vmm = vmm.start();
    let init = to_init(&mut vmm.process, begin);
    (vmm.first_instruction_ms(), init)
}

fn microvm(linux: &guest::Linux, image: &Path) -> f64 {
    let drive = format!("id=disk,if=none,format=raw,file={}", image.display());
    let mut command: Command = qemu::command(vmlinux(linux), CMDLINE);
    command.arg("-initrd").arg(&linux.initramfs);
    command.args(["-drive", &drive, "-device", "virtio-blk-device,drive=disk"]);
    let begin = Instant::now();
    to_init(&mut Process::start("qemu", &mut command), begin)
}

fn vmlinux(linux: &guest::Linux) -> &Path {
    linux.vmlinux.as_deref().unwrap_or(&linux.bzimage)
}

fn to_init(process: &mut Process, begin: Instant) -> f64 {
    let reached = process.wait_for("init: reached", 4 * DEADLINE).at;
    process.expect_exit(0, 4 * DEADLINE);
    (reached - begin).as_secs_f64() * 1e3
}
