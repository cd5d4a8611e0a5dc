//! The demo's guest with an interactive console. Started by `make shell`.

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
    let linux = guest::linux();
    let gdb = dir.path().join("gdb.sock");
    // A bed's files cannot be reached from outside it.
    if std::env::var_os("OUTBOARD_IN_BED").is_none() {
        println!("gdb socket: {}", gdb.display());
    }
    let cmdline = format!(
        "console=ttyS0 quiet nokaslr outboard.run=shell outboard.ip={}",
        guest_address()
    );
    let status = Command::new(program::own("outboard"))
        .arg("run")
        .arg("--kernel")
        .arg(linux.vmlinux.context("the guest kernel has no vmlinux")?)
        .arg("--initrd")
        .arg(&linux.initramfs)
        .args(["--memory", "512M", "--cpus", "2"])
        .args(["--cmdline", &cmdline])
        .arg("--device")
        .arg(format!("blk,socket={}", disk.socket.display()))
        .arg("--device")
        .arg(format!("net,socket={}", net.socket.display()))
        .arg("--gdb")
        .arg(format!("unix:{}", gdb.display()))
        .status()
        .context("cannot start outboard")?;
    Ok(status.code().unwrap_or(1))
}
