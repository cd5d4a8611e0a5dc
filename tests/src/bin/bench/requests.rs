//! What a request of a guest's costs: disk reads and network frames.

use std::path::Path;

use anyhow::{Context, Result};
use tests::backend::{self, Backend};
use tests::vmm::{Running, Vmm};
use tests::{guest, network, qemu, scratch};

use crate::turns::{Turns, number_behind};

const ROUNDS: usize = 5;
const READS: u64 = 4000;
const DEPTH: u64 = 16;
const FRAMES: u64 = 2000;

pub fn compare() -> Result<()> {
    exits_per_request()?;
    for depth in [1, DEPTH] {
        block_reads(depth)?;
    }
    frames()
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

/// 4 KiB random reads by a guest.
fn block_reads(depth: u64) -> Result<()> {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 64);
    let cmdline = format!("mode=bench n={READS} depth={depth}");
    let cycles = |console: &str| number_behind(console, "per_read=");
    let read = |disk: &Backend, options| cycles(&ours(&cmdline, "blk", disk, options));
    let mut turns = Turns::default();
    for _ in 0..ROUNDS {
        let disk = backend::outboard_blk(dir.path(), &image, &[]);
        turns.add("outboard-blk", read(&disk, "")?);
        turns.add(
            "outboard-blk on split queues",
            read(&disk, ",features=-packed")?,
        );
        let device = ["-device", "vhost-user-blk,chardev=backend"];
        let console = qemu::drive_with(&disk, &cmdline, &device);
        turns.add("QEMU microvm with outboard-blk", cycles(&console)?);
        drop(disk);
        let disk = backend::qemu_storage_daemon(dir.path(), &image);
        turns.add("qemu-storage-daemon", read(&disk, "")?);
        drop(disk);
        turns.add(
            "QEMU microvm with its own disk",
            cycles(&qemu_disk(&cmdline, &image))?,
        );
    }
    turns.print(&format!("4 KiB read at depth {depth}"));
    Ok(())
}

fn qemu_disk(cmdline: &str, image: &Path) -> String {
    let drive = format!("file={},format=raw,if=none,id=disk", image.display());
    let devices = ["-drive", &drive, "-device", "virtio-blk-device,drive=disk"];
    qemu::drive(cmdline, &devices)
}

/// Frames of 1000 bytes to a peer that sends each back, one behind the other.
fn frames() -> Result<()> {
    let dir = scratch();
    let peer = network::echo_peer(dir.path());
    let peer = peer.to_str().context("no UTF-8")?;
    let cmdline = format!("net=send count={FRAMES} size=1000");
    let cycles = |console: &str| number_behind(console, "per_frame=");
    let mut turns = Turns::default();
    for _ in 0..ROUNDS {
        let net = backend::outboard_net(dir.path(), &["--peer-connect", peer]);
        turns.add("outboard-net", cycles(&ours(&cmdline, "net", &net, ""))?);
        let split = ours(&cmdline, "net", &net, ",features=-packed");
        turns.add("outboard-net on split queues", cycles(&split)?);
        let link = ["-netdev", "vhost-user,id=link,chardev=backend"];
        let device = ["-device", "virtio-net-device,netdev=link"];
        let console = qemu::drive_with(&net, &cmdline, &[link, device].concat());
        turns.add("QEMU microvm with outboard-net", cycles(&console)?);
        drop(net);
        let link = format!("stream,id=link,server=off,addr.type=unix,addr.path={peer}");
        let devices = ["-netdev", &link, "-device", "virtio-net-device,netdev=link"];
        let console = qemu::drive(&cmdline, &devices);
        turns.add("QEMU microvm with its own network", cycles(&console)?);
    }
    turns.print("frame of 1000 bytes and its echo");
    Ok(())
}

/// What the guest that drives virtio devices prints under Outboard.
fn ours(cmdline: &str, device_type: &str, backend: &Backend, options: &str) -> String {
    let socket = backend.socket.display();
    Vmm::new(guest::bare("virtio"))
        .cmdline(cmdline)
        .arg(
            "--device",
            format!("{device_type},socket={socket}{options}"),
        )
        .run(0)
        .console()
}
