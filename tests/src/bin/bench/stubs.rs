//! The machines whose stubs are compared.

use std::path::{Path, PathBuf};

use tests::process::Process;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, qemu};

use super::stub::wait_for_socket;

/// A running guest that serves gdb on a Unix socket.
pub trait Stub {
    /// The bare-metal guest `name`, which runs for ever.
    fn start(dir: &Path, name: &str, cpus: usize) -> Self;
    fn socket(&self) -> &Path;
}

/// What the guest prints before its endless work.
fn ready(name: &str) -> &'static str {
    match name {
        "smp" => "smp: starting",
        _ => "debug: ready",
    }
}

fn cmdline(name: &str) -> &'static str {
    match name {
        "smp" => "forever",
        _ => "",
    }
}

pub struct Outboard {
    vmm: Running,
}

impl Stub for Outboard {
    fn start(dir: &Path, name: &str, cpus: usize) -> Self {
        let vmm = Vmm::new(guest::bare(name))
            .arg("--memory", "512M")
            .cmdline(cmdline(name))
            .cpus(cpus)
            .gdb(dir)
            .start();
        vmm.process.wait_for(ready(name), DEADLINE);
        Self { vmm }
    }

    fn socket(&self) -> &Path {
        self.vmm.gdb_socket()
    }
}

pub struct Qemu {
    _process: Process,
    socket: PathBuf,
}

impl Stub for Qemu {
    fn start(dir: &Path, name: &str, cpus: usize) -> Self {
        let socket = dir.join("qemu-gdb");
        let chardev = format!("socket,id=gdb,server=on,wait=off,path={}", socket.display());
        let mut command = qemu::command(&guest::bare(name), cmdline(name));
        command.args(["-smp", &cpus.to_string()]).args([
            "-chardev",
            &chardev,
            "-gdb",
            "chardev:gdb",
        ]);
        let process = Process::start("qemu", &mut command);
        process.wait_for(ready(name), 2 * DEADLINE);
        wait_for_socket(&socket);
        Self {
            _process: process,
            socket,
        }
    }

    fn socket(&self) -> &Path {
        &self.socket
    }
}
