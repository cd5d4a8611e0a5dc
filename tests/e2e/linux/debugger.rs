//! The real gdb on a running Linux kernel.

use tests::vmm::{Running, Vmm};
use tests::{gdb, guest, scratch};

use crate::machine::{BOOT, linux};

/// A guest that makes system calls until told to stop, with its gdb socket.
fn ticking(dir: &std::path::Path, cpus: usize) -> (Running, std::path::PathBuf) {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let vmm: Vmm = linux(&vmlinux, &guest, "outboard.run=tick")
        .cpus(cpus)
        .gdb(dir);
    let running = vmm.start();
    running.process.wait_for("tick=started", BOOT);
    (running, vmlinux)
}

/// Lets the guest end and checks that it was unharmed.
fn finish(mut vmm: Running) {
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("tick"), "ok");
    assert!(
        !vmm.console().contains("lockup"),
        "{}",
        vmm.process.transcript()
    );
}

fn assert_all(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(
            output.contains(part),
            "no {part:?} in gdb's output:\n{output}"
        );
    }
}

#[test]
fn attaches_to_the_running_kernel_and_detaches() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let commands = ["info threads", "print linux_banner", "detach"];
    for _ in 0..3 {
        let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
        assert_all(
            &output,
            &[
                "Thread 1.1 (CPU 0",
                "Thread 1.2 (CPU 1",
                "Linux version",
                "detached",
            ],
        );
    }
    finish(vmm);
}

#[test]
fn stops_at_a_kernel_function_with_a_source_level_backtrace() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let commands = [
        "break uptime_proc_show",
        "continue",
        "backtrace",
        "print *m->op",
        "print current_task",
        "stepi",
        "next",
        "next",
        "finish",
        "delete",
        "detach",
    ];
    let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
    assert_all(
        &output,
        &[
            "hit Breakpoint 1, uptime_proc_show (m=",
            "seq_read_iter",
            "do_syscall_64",
            "fs/proc/uptime.c",
            "show = 0x",
            "detached",
        ],
    );
    finish(vmm);
}

#[test]
fn hardware_breakpoint_stops_on_whichever_vcpu_gets_there() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let commands = [
        "hbreak uptime_proc_show",
        "continue",
        "info breakpoints",
        "delete",
        "detach",
    ];
    let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
    assert_all(
        &output,
        &["hit Breakpoint 1, uptime_proc_show", "hw breakpoint"],
    );
    finish(vmm);
}

#[test]
fn waits_before_the_first_instruction_and_stops_at_start_kernel() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let dir = scratch();
    let mut vmm = linux(&vmlinux, &guest, "outboard.run=smp")
        .gdb(dir.path())
        .gdb_wait()
        .start();
    tests::process::wait_until("the gdb socket", BOOT, || vmm.gdb_socket().exists());
    let commands = [
        "hbreak start_kernel",
        "continue",
        "backtrace 1",
        "delete",
        "detach",
    ];
    let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
    assert_all(&output, &["Breakpoint 1, start_kernel ()", "init/main.c"]);
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("smp"), "ok");
}

#[test]
fn killed_gdb_leaves_the_guest_running() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    for _ in 0..3 {
        let commands = ["break uptime_proc_show", "continue", "echo stopped\\n"];
        let stopped = gdb::open(vmm.gdb_socket(), &vmlinux, &commands);
        stopped.wait_for("stopped", BOOT);
        stopped.signal(libc::SIGKILL);
        let commands = ["echo running\\n", "continue"];
        let running = gdb::open(vmm.gdb_socket(), &vmlinux, &commands);
        running.wait_for("running", BOOT);
        running.signal(libc::SIGKILL);
    }
    finish(vmm);
}
