//! What it costs a guest that its requests are traced, or recorded.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tests::backend::{self, Backend};
use tests::recording::Recorder;
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, program, scratch};

use crate::turns::{Turns, number_behind};

const ROUNDS: usize = 5;
const READS: u64 = 20_000;
const DEPTH: u64 = 16;

pub fn compare() -> Result<()> {
    for depth in [1, DEPTH] {
        block_reads(depth)?;
    }
    Ok(())
}

/// 4 KiB random reads by a guest, of the same disk each time.
fn block_reads(depth: u64) -> Result<()> {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 64);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let mut turns = Turns::default();
    for _ in 0..ROUNDS {
        turns.add("outboard-blk", reads(depth, &disk.socket)?);
        turns.add("traced", traced(depth, &disk, &[])?);
        turns.add("traced with --rings", traced(depth, &disk, &["--rings"])?);
        turns.add("recorded", recorded(depth, &disk)?);
    }
    turns.print(&format!("4 KiB read at depth {depth}"));
    Ok(())
}

fn traced(depth: u64, disk: &Backend, options: &[&str]) -> Result<f64> {
    let dir = scratch();
    let socket = dir.path().join("traced.sock");
    let mut command = Command::new(program::own("outboard"));
    command.arg("trace").args(["--type", "blk"]).args(options);
    command.arg("--listen").arg(&socket);
    command.arg("--connect").arg(&disk.socket);
    command.arg("--output").arg(dir.path().join("trace.jsonl"));
    let mut proxy = Backend::start("trace", &mut command, socket);
    let cycles = reads(depth, &proxy.socket)?;
    proxy.process.signal(libc::SIGINT);
    proxy.process.expect_exit(0, DEADLINE);
    Ok(cycles)
}

fn recorded(depth: u64, disk: &Backend) -> Result<f64> {
    let dir = scratch();
    let recorder = Recorder::start(dir.path(), "blk", disk);
    let cycles = reads(depth, &recorder.proxy.socket)?;
    // The next run is not to wait for what this one has left to be written.
    File::open(recorder.finish())?.sync_all()?;
    Ok(cycles)
}

/// Cycles that a read took the guest.
fn reads(depth: u64, socket: &Path) -> Result<f64> {
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("mode=bench n={READS} depth={depth}"))
        .device("blk", socket)
        .run(0);
    number_behind(&vmm.console(), "per_read=")
}
