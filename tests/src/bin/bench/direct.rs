//! Reads of a Linux guest past its page cache, one after the other, beside QEMU's microvm, whose
//! disk is in its own process: the same kernel, initramfs and image.

use std::path::Path;

use anyhow::{Context, Result};
use tests::process::Process;
use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, qemu, scratch};

use super::{median, median_ratio};

const ROUNDS: usize = 5;
const CMDLINE: &str =
    "console=ttyS0 quiet panic=-1 outboard.run=direct,poweroff outboard.reads=1000";
/// What the guest prints behind it: nanoseconds a read.
const RESULT: &str = "outboard-guest: direct-ns=";

pub fn compare() -> Result<()> {
    let linux = guest::linux();
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 64);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(outboard(&linux, &image)?);
        theirs.push(microvm(&linux, &image)?);
    }
    let ratio = median_ratio(&theirs, &ours);
    println!(
        "a guest's O_DIRECT read of 4 KiB at depth 1: {:.1} µs, QEMU microvm with its own disk \
         {:.1} µs, {ratio:.2} times as long (goal: 1.3)",
        median(&mut ours),
        median(&mut theirs)
    );
    Ok(())
}

/// Microseconds for each read.
fn outboard(linux: &guest::Linux, image: &Path) -> Result<f64> {
    let dir = scratch();
    let disk = backend::outboard_blk(dir.path(), image, &[]);
    let mut vmm = Vmm::new(&linux.bzimage)
        .arg("--initrd", &linux.initramfs)
        .arg("--memory", "512M")
        .cmdline(CMDLINE)
        .device("blk", &disk.socket)
        .start();
    result(&mut vmm.process)
}

fn microvm(linux: &guest::Linux, image: &Path) -> Result<f64> {
    let drive = format!("id=disk,if=none,format=raw,file={}", image.display());
    let mut command = qemu::command(&linux.bzimage, CMDLINE);
    command.arg("-initrd").arg(&linux.initramfs);
    command.args(["-drive", &drive, "-device", "virtio-blk-device,drive=disk"]);
    result(&mut Process::start("qemu", &mut command))
}

fn result(process: &mut Process) -> Result<f64> {
    let line = process.wait_for(RESULT, 4 * DEADLINE).text.clone();
    process.expect_exit(0, 4 * DEADLINE);
    let (_, number) = line.split_once(RESULT).context("no result")?;
    Ok(number.trim().parse::<f64>()? / 1e3)
}
