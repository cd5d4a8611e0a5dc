//! Linux machines as these tests start them.

use std::path::Path;
use std::time::Duration;

use tests::guest::Linux;
use tests::vmm::{Running, Vmm};

/// How long a guest may take from start to power off. Stock kernels take tens
/// of seconds under emulation.
pub const BOOT: Duration = Duration::from_secs(120);

/// Kernel command line: quiet, panics are the end, `what` is for the guest's init.
pub fn cmdline(what: &str) -> String {
    format!("console=ttyS0 quiet loglevel=4 panic=-1 nokaslr {what}")
}

/// A machine with `kernel`, the initramfs, and what init is to do.
pub fn linux(kernel: &Path, linux: &Linux, what: &str) -> Vmm {
    Vmm::new(kernel)
        .arg("--initrd", &linux.initramfs)
        .arg("--memory", "512M")
        .arg("--on-reboot", "exit")
        .cmdline(&cmdline(what))
}

/// Runs to power off.
pub fn run(vmm: Vmm) -> Running {
    let mut running = vmm.start();
    running.process.close_stdin();
    running.process.expect_exit(0, BOOT);
    running
}
