//! The measures of docs/performance.md, as medians and as ratios of runs that
//! were made in turn, because the machines these run on are shared and noisy.
//!
//! `make bench` starts it here, on whatever /dev/kvm does, and once more as `bench linux`
//! and `bench start` where KVM can run Linux.

mod direct;
mod proxy;
mod requests;
mod start;
mod stub;
mod stubs;
mod traced;
mod turns;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::backend;
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, program, qemu, scratch};

const ROUNDS: usize = 15;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => here(),
        Some("gdb") => stub::compare(),
        Some("linux") => linux(),
        Some("start") => start::compare(),
        Some("traced") => traced::compare(),
        Some(other) => bail!("{other:?} is not known; give nothing, gdb, linux, start or traced"),
    }
}

/// What any /dev/kvm can run.
fn here() -> Result<()> {
    println!("host: {}", host_kind()?);
    start_up()?;
    memory()?;
    requests::compare()?;
    traced::compare()?;
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
        qemu::run(&guest::bare("hello"), "", &[]);
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

/// Resident memory of the VMM that is not guest RAM, with a disk and with more.
fn memory() -> Result<()> {
    let (one, backend) = resident_with(1)?;
    let (many, _) = resident_with(1 + FURTHER)?;
    let each = many.saturating_sub(one) / FURTHER as u64;
    println!(
        "VMM resident beyond guest RAM, one disk: {one} KiB (goal: 5000), each further disk: \
         {each} KiB (goal: 256); outboard-blk: {backend} KiB"
    );
    Ok(())
}

const FURTHER: usize = 8;

/// In KiB, that of the VMM of a guest with so many disks, and that of the last one's backend.
fn resident_with(disks: usize) -> Result<(u64, u64)> {
    let dir = scratch();
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .arg("--memory", "512M")
        .cmdline("case=halt-forever");
    let mut backends = Vec::new();
    for n in 0..disks {
        let dir = dir.path().join(n.to_string());
        std::fs::create_dir(&dir)?;
        let disk = backend::outboard_blk(&dir, &backend::disk_image(&dir, 16), &[]);
        vmm = vmm.device("blk", &disk.socket);
        backends.push(disk);
    }
    let vmm = vmm.start();
    vmm.process.wait_for("halt-forever", DEADLINE);
    let backend = backends.last().context("no disk")?.process.pid();
    Ok((resident_kib(vmm.process.pid())?, resident_kib(backend)?))
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

/// What needs a KVM that runs Linux: disk integrity on 1, 2 and 4 vCPUs, the time to init, and
/// reads past the guest's page cache.
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
    direct::compare()
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
