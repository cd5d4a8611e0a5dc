//! What gdb knows of a stock kernel's types, arguments and frames, out of the running
//! guest alone.

use std::time::Duration;

use tests::vmm::Running;
use tests::{gdb, guest, lldb, scratch};

use crate::debugger_linux::{assert_all, finish, ticking};

/// How long LLDB may take with a kernel's types, under emulation.
const PATIENCE: Duration = Duration::from_secs(240);

pub fn with_types(vmm: &Running, commands: &[&str]) -> String {
    gdb::run_with_types(vmm.gdb_socket(), commands).expect("gdb gets no types")
}

#[test]
fn stock_kernel_has_types_and_arguments() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let vmm = ticking(dir.path(), &guest, None);
    let output = with_types(
        &vmm,
        &[
            "print init_task.comm",
            "ptype struct request",
            "whatis vfs_read",
            "info functions ^vfs_readv$",
            "print ((struct task_struct *)&init_task)->tasks.next != 0",
            "break do_sys_openat2",
            "continue",
            "print filename",
            "print how->flags",
            "finish",
            "delete",
            "detach",
        ],
    );
    assert_all(
        &output,
        &[
            "\"swapper/0\\000",
            "    struct request_queue *q;",
            "type = ssize_t (struct file *, char *, size_t, loff_t *)",
            "ssize_t vfs_readv(struct file *, const struct iovec *,",
            "Breakpoint 1, 0x",
            " in do_sys_openat2 (dfd=",
            ", filename=0x",
            "Value returned is $",
        ],
    );
    finish(vmm);
}

/// From a timer's interrupt and from a system call to what the processor did before.
#[test]
fn backtraces_of_a_stock_kernel_go_through_interrupts_and_system_calls() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let vmm = ticking(dir.path(), &guest, None);
    let output = with_types(
        &vmm,
        &[
            "break uptime_proc_show",
            "continue",
            "backtrace",
            "delete",
            "break tick_sched_timer",
            "break tick_nohz_handler",
            "continue",
            "backtrace",
            "delete",
            "detach",
        ],
    );
    let traces: Vec<_> = output.split(" hit Breakpoint ").collect();
    let [_, call, interrupt] = traces[..] else {
        panic!("no two stops:\n{output}");
    };
    for part in [
        " in seq_read_iter (",
        " in do_syscall_64 (",
        "<signal handler called>\n",
        " in ?? ()",
    ] {
        assert!(call.contains(part), "no {part:?} in:\n{call}");
    }
    for part in [
        " in hrtimer_interrupt (",
        " in sysvec_apic_timer_interrupt (",
        "<signal handler called>\n",
    ] {
        assert!(interrupt.contains(part), "no {part:?} in:\n{interrupt}");
    }
    // Something ran before.
    let (_, before) = interrupt.rsplit_once("<signal handler called>\n").unwrap();
    assert!(before.starts_with('#'), "{interrupt}");
    assert!(!output.contains("corrupt stack"), "{output}");
    finish(vmm);
}

/// LLDB reads no file through the connection: gdb fetches it.
#[test]
fn lldb_has_the_types_and_frames_of_a_stock_kernel() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let vmm = ticking(dir.path(), &guest, None);
    let file = dir.path().join("kernel.elf");
    let get = format!("remote get /outboard/kallsyms.elf {}", file.display());
    with_types(&vmm, &[&get, "detach"]);
    let load = format!("target modules load --file {} --slide 0", file.display());
    let commands = [
        &load,
        "breakpoint set --name uptime_proc_show",
        "process continue",
        "thread backtrace",
        "print m->size",
        "print init_task.comm",
        "thread step-out",
        "breakpoint delete --force",
        "process detach",
    ];
    let output = lldb::run(vmm.gdb_socket(), &file, PATIENCE, &commands);
    let expect = |command, part| lldb::expect(&output, command, part);
    expect("process continue", "stop reason = breakpoint 1.1");
    expect("thread backtrace", "`seq_read_iter(iocb=");
    expect("thread backtrace", "`do_syscall_64(regs=");
    expect("print m->size", "(size_t) $0 = 4096");
    expect("print init_task.comm", "\"swapper/0\\0");
    expect("thread step-out", "stop reason = step out");
    expect("process detach", "detached");
    finish(vmm);
}
