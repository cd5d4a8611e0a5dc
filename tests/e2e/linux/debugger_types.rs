//! What gdb knows of a stock kernel's types, arguments and frames, out of the running
//! guest alone.

use tests::gdb;
use tests::vmm::Running;
use tests::{guest, scratch};

use crate::debugger_linux::{assert_all, finish, ticking};

fn with_types(vmm: &Running, commands: &[&str]) -> String {
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
