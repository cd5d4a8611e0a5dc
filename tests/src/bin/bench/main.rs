//! The measures of docs/performance.md, as medians and as ratios of runs that
//! were made in turn, because the machines these run on are shared and noisy.
//!
//! `make bench` starts it here, on whatever /dev/kvm does, and once more as
//! `bench linux` where KVM can run Linux.

mod proxy;
mod stub;
mod stubs;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::backend::{self, Backend};
use tests::process::{Process, Stream};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, program, scratch};

const ROUNDS: usize = 15;
const READS: u64 = 4000;
const DEPTH: u64 = 16;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => here(),
        Some("gdb") => stub::compare(),
        Some("linux") => linux(),
        Some(other) => bail!("{other:?} is not known; give nothing, gdb or linux"),
    }
}

/// What any /dev/kvm can run.
fn here() -> Result<()> {
    println!("host: {}", host_kind()?);
    start_up()?;
    memory()?;
    exits_per_request()?;
    block_reads()?;
    stub::compare()
}

fn host_kind() -> Result<String> {
    let output = Command::new(program::own("outboard"))
        .arg("doctor")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("Host: "));
    Ok(line
        .context("outboard doctor did not name the host")?
        .to_owned())
}

/// From the start of the process to the first guest instruction, and a whole
/// run of a guest that prints a line and powers off, beside QEMU.
fn start_up() -> Result<()> {
    let (mut first, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let vmm = Vmm::new(guest::bare("hello"))
            .arg("--memory", "512M")
            .run(0);
        ours.push(begin.elapsed().as_secs_f64() * 1e3);
        first.push(vmm.first_instruction_ms());
        let begin = Instant::now();
        qemu(&guest::bare("hello"), "", &[])?;
        theirs.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "first guest instruction after {:.1} ms (goal: 15 ms)",
        median(&mut first)
    );
    let ratio = median_ratio(&theirs, &ours);
    println!(
        "hello and power off: {:.0} ms, QEMU microvm {:.0} ms, {ratio:.1} times as long",
        median(&mut ours),
        median(&mut theirs)
    );
    Ok(())
}

/// Resident memory of the VMM that is not guest RAM.
fn memory() -> Result<()> {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 16);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let vmm = Vmm::new(guest::bare("misbehave"))
        .arg("--memory", "512M")
        .cmdline("case=halt-forever")
        .device("blk", &disk.socket)
        .start();
    vmm.process.wait_for("halt-forever", DEADLINE);
    let own = resident_kib(vmm.process.pid())?;
    let backend = resident_kib(disk.process.pid())?;
    println!("VMM resident beyond guest RAM: {own} KiB (goal: 8192); outboard-blk: {backend} KiB");
    Ok(())
}

/// Anonymous and file-backed pages; guest RAM is shared memory.
fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next());
        Ok(value
            .with_context(|| format!("no {name} in /proc/{pid}/status"))?
            .parse()?)
    };
    Ok(field("RssAnon:")? + field("RssFile:")?)
}

fn exits_per_request() -> Result<()> {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 64);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let run = |reads: u64| {
        let cmdline = format!("mode=bench n={reads} depth=1");
        Vmm::new(guest::bare("virtio"))
            .cmdline(&cmdline)
            .device("blk", &disk.socket)
            .run(0)
    };
    let mmio = |vmm: &Running| vmm.exits("MMIO_READ") + vmm.exits("MMIO_WRITE");
    let (few, many) = (run(100), run(1100));
    let more = mmio(&many) - mmio(&few);
    println!("MMIO exits to user space for 1000 more block requests: {more} (goal: 0)");
    Ok(())
}

/// 4 KiB random reads by a guest, with its own backend and beside others.
fn block_reads() -> Result<()> {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 64);
    for depth in [1, DEPTH] {
        let cmdline = format!("mode=bench n={READS} depth={depth}");
        let (mut ours, mut daemon, mut qemu_own) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            let disk = backend::outboard_blk(dir.path(), &image, &[]);
            ours.push(outboard_reads(&cmdline, &disk)?);
            drop(disk);
            let disk = backend::qemu_storage_daemon(dir.path(), &image);
            daemon.push(outboard_reads(&cmdline, &disk)?);
            drop(disk);
            qemu_own.push(qemu_reads(&cmdline, &image)?);
        }
        println!(
            "cycles per 4 KiB read, depth {depth}: {:.0}; with qemu-storage-daemon {:.2} times \
             as many; QEMU microvm with its own disk {:.2} times",
            median(&mut ours.clone()),
            median_ratio(&daemon, &ours),
            median_ratio(&qemu_own, &ours),
        );
    }
    Ok(())
}

fn outboard_reads(cmdline: &str, disk: &Backend) -> Result<f64> {
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(cmdline)
        .device("blk", &disk.socket)
        .run(0);
    cycles_per_read(&vmm.console())
}

fn qemu_reads(cmdline: &str, image: &Path) -> Result<f64> {
    let drive = format!("file={},format=raw,if=none,id=disk", image.display());
    let cmdline = format!("{cmdline} virtio=0xfeb00000 stride=0x200 gsi=16");
    let devices = ["-drive", &drive, "-device", "virtio-blk-device,drive=disk"];
    cycles_per_read(&qemu(&guest::bare("virtio"), &cmdline, &devices)?)
}

fn cycles_per_read(console: &str) -> Result<f64> {
    let (_, after) = console
        .split_once("per_read=")
        .context("the guest printed no result")?;
    Ok(after
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .parse()?)
}

/// Runs a bare-metal guest under QEMU's microvm and returns what it printed.
fn qemu(kernel: &Path, cmdline: &str, devices: &[&str]) -> Result<String> {
    let mut command = qemu_command(kernel, cmdline);
    let mut process = Process::start("qemu", command.args(devices));
    process.expect_exit(0, DEADLINE);
    Ok(process.printed(Stream::Out))
}

fn qemu_command(kernel: &Path, cmdline: &str) -> Command {
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

/// What needs a KVM that runs Linux: disk integrity on 1, 2 and 4 vCPUs, and
/// the time to init.
fn linux() -> Result<()> {
    println!("host: {}", host_kind()?);
    let linux = guest::linux();
    for cpus in [1, 2, 4] {
        let dir = scratch();
        let image = backend::ext4_image(dir.path(), 128);
        let disk = backend::outboard_blk(dir.path(), &image, &[]);
        let begin = Instant::now();
        let mut vmm = Vmm::new(&linux.bzimage)
            .arg("--initrd", &linux.initramfs)
            .arg("--memory", "512M")
            .cmdline("console=ttyS0 quiet panic=-1 outboard.run=disk outboard.mib=64")
            .cpus(cpus)
            .device("blk", &disk.socket)
            .start();
        let init = vmm.process.wait_for("init: reached", 4 * DEADLINE).at - begin;
        vmm.process.expect_exit(0, 4 * DEADLINE);
        ensure!(
            vmm.console().contains("disk=ok"),
            "{}",
            vmm.process.transcript()
        );
        println!(
            "{cpus} vCPUs: init after {}, 64 MiB written and read back: same",
            seconds(init)
        );
    }
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of `a[n] / b[n]`: both were measured one right after the other.
fn median_ratio(a: &[f64], b: &[f64]) -> f64 {
    let mut ratios: Vec<_> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    median(&mut ratios)
}
