//! From the start of the process to Linux's init, beside QEMU's microvm: the same kernel,
//! initramfs and disk.
//!
//! In a bed whose clock counts instructions (OUTBOARD_BED_ICOUNT) the figures are the same
//! however busy the machine is. There Outboard is measured twice: as Linux comes, which gives
//! shared memory no huge pages, and with those that other monitors' memory has anyway.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use tests::process::Process;
use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, qemu, scratch};

use super::{host_kind, median};

const ROUNDS: usize = 5;
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 outboard.run=poweroff";
const MEMORY: &str = "512M";
/// The guest's line when its init begins.
const INIT: &str = "init: reached";
/// In milliseconds.
const INIT_GOAL: u32 = 260;
const FIRST_GOAL: u32 = 30;
/// Whether shared memory gets huge pages (Documentation/admin-guide/mm/transhuge.rst).
const SHARED_HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

pub fn compare() -> Result<()> {
    println!("host: {}", host_kind()?);
    let linux = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 16);
    ours("start", &linux, &image);
    if std::env::var_os("OUTBOARD_IN_BED").is_some() {
        std::fs::write(SHARED_HUGE_PAGES, "advise")?;
        ours("start with huge pages", &linux, &image);
    }
    theirs(&linux, &image);
    Ok(())
}

/// QEMU does not start on every host: then it has no figure.
fn theirs(linux: &guest::Linux, image: &Path) {
    let measured: Result<Vec<_>> = rounds(|| microvm(linux, image)).collect();
    match measured {
        Ok(mut init) => println!("QEMU microvm: to init: {:.0} ms", median(&mut init)),
        Err(error) => println!("QEMU microvm: not measured: {error:#}"),
    }
}

/// The first round reads all files, and does not count.
fn rounds<T>(measure: impl FnMut() -> T) -> impl Iterator<Item = T> {
    std::iter::repeat_with(measure).take(1 + ROUNDS).skip(1)
}

fn ours(what: &str, linux: &guest::Linux, image: &Path) {
    let (mut first, mut init): (Vec<_>, Vec<_>) = rounds(|| outboard(linux, image)).unzip();
    println!(
        "{what} to first guest instruction: {:.1} ms (goal: {FIRST_GOAL}); to init: {:.0} ms \
         (goal: {INIT_GOAL})",
        median(&mut first),
        median(&mut init)
    );
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

fn microvm(linux: &guest::Linux, image: &Path) -> Result<f64> {
    let drive = format!("id=disk,if=none,format=raw,file={}", image.display());
    let mut command: Command = qemu::command(vmlinux(linux), CMDLINE);
    command.arg("-initrd").arg(&linux.initramfs);
    command.args(["-drive", &drive, "-device", "virtio-blk-device,drive=disk"]);
    let begin = Instant::now();
    let mut qemu = Process::start("qemu", &mut command);
    if !qemu.says(INIT, 4 * DEADLINE) {
        let lines = qemu.lines();
        let last = lines.last().map_or("nothing", |line| &line.text);
        bail!("it ended or stayed silent before {INIT:?}; it printed last: {last}");
    }
    Ok(to_init(&mut qemu, begin))
}

fn vmlinux(linux: &guest::Linux) -> &Path {
    linux.vmlinux.as_deref().unwrap_or(&linux.bzimage)
}

fn to_init(process: &mut Process, begin: Instant) -> f64 {
    let reached = process.wait_for(INIT, 4 * DEADLINE).at;
    process.expect_exit(0, 4 * DEADLINE);
    (reached - begin).as_secs_f64() * 1e3
}
