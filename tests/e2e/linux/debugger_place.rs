//! Kernels that KASLR moves while gdb is there already, or is to come: the real gdb,
//! with its default settings.

use std::path::{Path, PathBuf};

use tests::gdb::{self, Sysroot};
use tests::guest::Linux;
use tests::vmm::Vmm;
use tests::{guest, scratch};

use crate::machine::{BOOT, linux};

/// A bzImage under KASLR.
fn moving(dir: &Path, guest: &Linux, what: &str) -> Vmm {
    linux(&guest.bzimage, guest, "")
        .cmdline(&format!("console=ttyS0 quiet loglevel=4 panic=-1 {what}"))
        .gdb(dir)
}

/// The kernel's symbols without its debug information, which gdb takes minutes to
/// read through the connection in the bed.
fn symbols(dir: &Path, guest: &Linux) -> PathBuf {
    let symbols = dir.join("vmlinux");
    let mut strip = std::process::Command::new(tests::program::system("strip"));
    strip.arg("--strip-debug").arg("-o").arg(&symbols);
    let status = strip.arg(guest.vmlinux.as_deref().unwrap()).status();
    assert!(status.unwrap().success());
    symbols
}

/// Runs gdb's `commands`, with those that have it attach again in place of each "again".
fn run(socket: &Path, commands: &[&str]) -> String {
    let attach = format!("target remote {}", socket.display());
    let commands: Vec<&str> = commands
        .iter()
        .flat_map(|command| match *command {
            "again" => vec!["disconnect", &attach],
            command => vec![command],
        })
        .collect();
    gdb::run_alone(socket, Sysroot::Guest, &commands)
}

/// Each of `parts` in its turn, one behind the other.
fn assert_in_turn(output: &str, parts: &[&str]) {
    let mut rest = output;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            panic!("no {part:?} where it is due:\n{output}");
        };
        rest = behind;
    }
}

const TOLD: &str = "which gdb does not know: have it attach again";
const HIT: &str = " in start_kernel ()";

#[test]
fn the_guest_waits_where_the_kernel_has_found_its_place() {
    let guest = guest::linux();
    let dir = scratch();
    let symbols = symbols(dir.path(), &guest);
    let mut vmm = moving(dir.path(), &guest, "outboard.run=smp")
        .arg("--symbols", &symbols)
        .gdb_wait_for_kernel()
        .start();
    vmm.process
        .wait_for("the guest waits for gdb to attach", BOOT);
    let commands = [
        "monitor lx version",
        "break start_kernel",
        "continue",
        "delete",
        "detach",
    ];
    let output = run(vmm.gdb_socket(), &commands);
    assert_in_turn(
        &output,
        &["Linux version 6.", "Breakpoint 1, ", HIT, "detached"],
    );
    assert!(!output.contains(TOLD), "{output}");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("smp"), "ok");
}

#[test]
fn a_stock_kernel_is_waited_for_too() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let vmm = moving(dir.path(), &guest, "outboard.run=tick").gdb_wait();
    let vmm = vmm.start();
    tests::process::wait_until("the gdb socket", BOOT, || vmm.gdb_socket().exists());
    let commands = [
        "monitor lx wait",
        "continue",
        "again",
        "hbreak start_kernel",
        "continue",
        "monitor lx wait",
        "delete",
        "detach",
    ];
    let output = run(vmm.gdb_socket(), &commands);
    let parts = [
        "the guest stops where Linux has found its place: continue",
        "vCPU 0: Linux is at 0xffffffff",
        TOLD,
        "Reading symbols from target:/outboard/kallsyms.elf",
        "Breakpoint 1, ",
        HIT,
        "Linux has its place already",
        "detached",
    ];
    assert_in_turn(&output, &parts);
    vmm.process.wait_for("tick=started", BOOT);
}

/// A breakpoint that gdb has by symbol, before the kernel has a place, and when a reset
/// and a reboot have given it another.
#[test]
fn breakpoints_are_hit_wherever_the_kernel_moves() {
    let guest = guest::linux();
    let dir = scratch();
    let symbols = symbols(dir.path(), &guest);
    let vmm = moving(dir.path(), &guest, "outboard.run=reboot")
        .arg("--on-reboot", "reset")
        .arg("--symbols", &symbols)
        .gdb_wait()
        .start();
    tests::process::wait_until("the gdb socket", BOOT, || vmm.gdb_socket().exists());
    let commands = [
        "hbreak start_kernel",
        "echo first boot\\n",
        "continue",
        "again",
        "continue",
        "echo reset\\n",
        "monitor reset",
        "maintenance flush register-cache",
        "continue",
        "again",
        "continue",
        "echo reboot\\n",
        "continue",
        "continue",
        "again",
        "continue",
        "info symbol $pc",
        "delete",
        "detach",
    ];
    let output = run(vmm.gdb_socket(), &commands);
    let boot = [TOLD, "Breakpoint 1, ", HIT];
    let parts = [
        &["first boot"][..],
        &boot,
        &["reset"],
        &boot,
        &["reboot", "the guest was reset"],
        &boot,
        &["start_kernel in section .init.text", "detached"],
    ];
    assert_in_turn(&output, &parts.concat());
    // Three times.
    vmm.process.wait_for("init: reached", BOOT);
}
