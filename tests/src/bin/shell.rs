//! The demo's guest with an interactive console. Started by `make shell`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tests::network::{self, guest_address};
use tests::{backend, guest, program, scratch};

fn main() -> Result<()> {
    // Exits only when the backends have been ended.
    let status = run()?;
    std::process::exit(status);
}

fn run() -> Result<i32> {
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 128);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let net = network::outboard_net(dir.path(), "otap0", &[]);
    let linux = guest::stock_linux();
    let gdb = Gdb::new(dir.path());
    println!("gdb, at any time, from another terminal of this machine:");
    println!("  gdb -ex 'target remote {}'", gdb.target);
    let cmdline = format!(
        "console=ttyS0 quiet outboard.run=shell outboard.ip={}",
        guest_address()
    );
    let status = Command::new(program::own("outboard"))
        .arg("run")
        .arg("--kernel")
        .arg(&linux.bzimage)
        .arg("--initrd")
        .arg(&linux.initramfs)
        .args(["--memory", "512M", "--cpus", "2"])
        .args(["--cmdline", &cmdline])
        .arg("--device")
        .arg(format!("blk,socket={}", disk.socket.display()))
        .arg("--device")
        .arg(format!("net,socket={}", net.socket.display()))
        .args(["--gdb", &gdb.listen])
        .status()
        .context("cannot start outboard")?;
    Ok(status.code().unwrap_or(1))
}

/// Where outboard waits for gdb, and what gdb is told to find it.
struct Gdb {
    listen: String,
    target: String,
}

impl Gdb {
    /// A bed's files cannot be reached from outside it; `tests/bed/run` makes a socket there
    /// that leads to an address in the bed.
    fn new(dir: &Path) -> Self {
        let forwarded = std::env::var("OUTBOARD_BED_FORWARD").ok();
        if let Some((socket, address)) = forwarded.as_deref().and_then(|it| it.split_once('=')) {
            return Self {
                listen: address.to_owned(),
                target: socket.to_owned(),
            };
        }
        let socket = dir.join("gdb.sock").display().to_string();
        Self {
            listen: format!("unix:{socket}"),
            target: socket,
        }
    }
}
