//! No time passes for a guest that is stopped, by whichever clock it goes.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use tests::process::Process;
use tests::vmm::Running;
use tests::{DEADLINE, gdb, guest, program, repetitions, scratch};

use crate::machine::{BOOT, linux};

/// How many seconds the guest is stopped where that must not be noticed: longer than the
/// guest's watchdog allows a CPU to be busy. `make soak` asks for more.
const STOPPED: u64 = 6;
const STOPPED_VARIABLE: &str = "OUTBOARD_STOPPED";
/// In milliseconds, less than that in any case.
const LONGEST_STEP: i64 = 4000;
/// How far the TSC and the kernel's clock may come apart, in milliseconds.
const APART: i64 = 100;

fn ctl(dir: &Path, word: &str) {
    let mut command = Command::new(program::own("outboard"));
    command.arg("ctl").arg("--api").arg(dir.join("api.sock"));
    Process::start("ctl", command.arg(word)).expect_exit(0, DEADLINE);
}

/// Not a wait for anything: the time is what is tested.
fn let_time_pass() {
    sleep(Duration::from_secs(repetitions(STOPPED_VARIABLE, STOPPED)));
}

fn stop_by_control(dir: &Path) {
    ctl(dir, "pause");
    let_time_pass();
    ctl(dir, "resume");
}

fn stop_at_a_breakpoint(vmm: &Running, vmlinux: &Path) {
    let commands = ["break do_sys_poll", "continue", "echo stopped\\n"];
    let stopped = gdb::open(vmm.gdb_socket(), vmlinux, &commands);
    stopped.wait_for("stopped", BOOT);
    let_time_pass();
    stopped.signal(libc::SIGKILL);
}

/// Each step is a stop as well.
fn step(vmm: &Running, vmlinux: &Path) {
    let commands = ["tbreak do_sys_poll", "continue", "stepi 200", "detach"];
    gdb::run(vmm.gdb_socket(), vmlinux, &commands);
}

/// Stops a guest in every way and asks it what it has noticed. It looks at the TSC as
/// well as at the kernel's clock source, which `parameters` choose.
fn stop_in_every_way(parameters: &str, source: &str) {
    let dir = scratch();
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let mut vmm = linux(
        &vmlinux,
        &guest,
        &format!("{parameters} outboard.run=clock"),
    )
    .cpus(2)
    .arg("--api", dir.path().join("api.sock"))
    .gdb(dir.path())
    .start();
    vmm.process.wait_for("clock=started", BOOT);
    stop_by_control(dir.path());
    stop_at_a_breakpoint(&vmm, &vmlinux);
    step(&vmm, &vmlinux);
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("clocksource"), source);
    let console = vmm.console();
    for complaint in ["lockup", "WARNING", "unstable"] {
        assert!(!console.contains(complaint), "{console}");
    }
    let ms = |key| vmm.guest_value(key).parse::<i64>().unwrap();
    let (longest, tsc, apart) = (ms("longest"), ms("tsc-longest"), ms("apart"));
    eprintln!("longest step: {source} {longest} ms, TSC {tsc} ms; apart: {apart} ms");
    assert!(longest < LONGEST_STEP && tsc < LONGEST_STEP, "{console}");
    assert!(apart.abs() < APART, "{console}");
    assert_eq!(vmm.guest_value("backwards"), "0");
}

#[test]
fn no_time_passes_for_a_stopped_kernel_by_kvm_clock() {
    stop_in_every_way("clocksource=kvm-clock", "kvm-clock");
}

#[test]
fn no_time_passes_for_a_stopped_kernel_by_the_tsc() {
    stop_in_every_way("clocksource=tsc tsc=reliable", "tsc");
}
