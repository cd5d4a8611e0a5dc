//! What the debugger knows of Linux by itself: the real gdb on kernels that KASLR
//! has moved, with symbols from `outboard` alone.

use std::path::Path;

use tests::gdb::{self, Sysroot};
use tests::guest::Linux;
use tests::process::{Stream, wait_until};
use tests::vmm::{Running, Vmm};
use tests::{guest, scratch};

use crate::machine::{BOOT, linux};

/// Where a kernel begins that KASLR did not move.
const UNMOVED: &str = "0xffffffff81000000";

/// A bzImage under KASLR.
pub fn moving(dir: &Path, guest: &Linux, what: &str, symbols: Option<&Path>) -> Vmm {
    let vmm = linux(&guest.bzimage, guest, "")
        .cmdline(&format!("console=ttyS0 quiet loglevel=4 panic=-1 {what}"))
        .cpus(2)
        .gdb(dir);
    match symbols {
        Some(symbols) => vmm.arg("--symbols", symbols),
        None => vmm,
    }
}

/// A bzImage under KASLR that makes system calls until told to stop.
pub fn ticking(dir: &Path, guest: &Linux, symbols: Option<&Path>) -> Running {
    let vmm = moving(dir, guest, "outboard.run=tick", symbols);
    let running = vmm.start();
    running.process.wait_for("tick=started", BOOT);
    running
}

pub fn finish(mut vmm: Running) {
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("tick"), "ok");
}

pub fn assert_all(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(
            output.contains(part),
            "no {part:?} in gdb's output:\n{output}"
        );
    }
}

/// Boots until KASLR has really chosen another place; one in some hundred times
/// it does not.
fn until_moved(mut boot: impl FnMut() -> String) {
    let moved = (0..2).any(|_| !boot().contains(&format!("_text is {UNMOVED}")));
    assert!(moved, "KASLR is not at work");
}

const TEXT: &str = "printf \"_text is %p\\n\", &_text";

#[test]
fn moved_kernel_has_its_symbols_from_outboard_alone() {
    let guest = guest::linux();
    until_moved(|| {
        let dir = scratch();
        let vmm = ticking(dir.path(), &guest, guest.vmlinux.as_deref());
        let commands = [
            TEXT,
            "print linux_banner",
            "break uptime_proc_show",
            "continue",
            "backtrace",
            "info threads",
            "delete",
            "detach",
        ];
        // Through the connection gdb takes minutes for all of it in the bed.
        let output = gdb::run_alone(vmm.gdb_socket(), Sysroot::Host, &commands);
        assert_all(
            &output,
            &[
                "Linux version",
                "hit Breakpoint 1, uptime_proc_show (m=",
                "fs/proc/uptime.c",
                "do_syscall_64",
                "CPL 0, cat[",
            ],
        );
        finish(vmm);
        output
    });
}

#[test]
fn per_cpu_symbols_of_a_moved_kernel_stay_offsets() {
    let guest = guest::linux();
    let dir = scratch();
    let symbols = dir.path().join("vmlinux");
    let mut strip = std::process::Command::new(tests::program::system("strip"));
    strip.arg("--strip-debug").arg("-o").arg(&symbols);
    let status = strip.arg(guest.vmlinux.as_deref().unwrap()).status();
    assert!(status.unwrap().success());
    until_moved(|| {
        let vmm = ticking(dir.path(), &guest, Some(&symbols));
        let commands = [
            TEXT,
            "printf \"current_task is %p\\n\", &current_task",
            "break uptime_proc_show",
            "continue",
            "set $area = ((unsigned long *)&__per_cpu_offset)[$_thread - 1]",
            "set $task = *(unsigned long *)($area + (unsigned long)&current_task)",
            "x/1xb $task",
            "printf \"gs base is %d\\n\", $gs_base == $area",
            "monitor lx version",
            "delete",
            "detach",
        ];
        let output = gdb::run_alone(vmm.gdb_socket(), Sysroot::Guest, &commands);
        assert_all(
            &output,
            &["current_task is 0x1", "gs base is 1", ", moved by 0x"],
        );
        assert!(!output.contains("Cannot access"), "{output}");
        assert!(!output.contains("warning: Loadable section"), "{output}");
        finish(vmm);
        output
    });
}

#[test]
fn moved_kernel_has_its_symbols_relocated_in_a_file_of_the_user() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    until_moved(|| {
        let dir = scratch();
        // outboard has no file: it finds the place by the kernel's own symbols.
        let vmm = ticking(dir.path(), &guest, None);
        let commands = [
            TEXT,
            "print linux_banner",
            "hbreak uptime_proc_show",
            "continue",
            "backtrace",
            "delete",
            "detach",
        ];
        let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
        assert_all(
            &output,
            &["Linux version", "uptime_proc_show (m=", "do_syscall_64"],
        );
        finish(vmm);
        output
    });
}

#[test]
fn stock_kernel_has_symbols_without_any_file() {
    let guest = guest::stock_linux();
    until_moved(|| {
        let dir = scratch();
        let vmm = ticking(dir.path(), &guest, None);
        let commands = [
            TEXT,
            "info symbol $pc",
            "x/s &linux_banner",
            "break do_sys_openat2",
            "continue",
            "info symbol $pc",
            "backtrace 2",
            "delete",
            "info threads",
            "monitor lx version",
            "monitor lx ps",
            "monitor lx modules",
            "monitor lx dmesg",
            "detach",
        ];
        let output = gdb::run_alone(vmm.gdb_socket(), Sysroot::Guest, &commands);
        assert_all(
            &output,
            &[
                "Linux version 6.",
                "Breakpoint 1, 0x",
                " in do_sys_openat2 (",
                "do_sys_openat2 in section .text",
                "#1  0x",
                // What init did, in its log, processes and modules.
                "symbols from the guest's own symbol table (kallsyms)",
                "    1     1 S 0xff",
                " init\n",
                "kthreadd",
                " virtio_blk\n",
                "add-symbol-file virtio_blk.ko 0xffffffffc0",
                "Run /init as init process",
            ],
        );
        let opens = ["CPL 0, sh[", "CPL 0, cat["];
        assert!(opens.iter().any(|task| output.contains(task)), "{output}");
        finish(vmm);
        output
    });
}

/// The host's CPU needs no isolation, so that the kernel is told to isolate.
#[test]
fn kernel_is_seen_whole_from_user_mode_under_page_table_isolation() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let what = "pti=on outboard.run=busy outboard.seconds=3600";
    let vmm = moving(dir.path(), &guest, what, None).start();
    vmm.process.wait_for("busy=started", BOOT);
    let commands = [
        "info threads",
        "x/s &linux_banner",
        "x/2i update_process_times",
        "set {int}&panic_timeout = 7777",
        "x/dw &panic_timeout",
        "eval \"monitor translate %#lx\", &linux_banner",
        "eval \"monitor pagewalk %#lx\", &linux_banner",
        "break update_process_times",
        "continue",
        "info symbol $pc",
        "delete",
        "detach",
    ];
    // A timer interrupt may be just what is stopped in.
    let attach = || gdb::run_alone(vmm.gdb_socket(), Sysroot::Guest, &commands);
    let output = (0..10).map(|_| attach()).find(|output| {
        let all = output.matches(", CPL ").count();
        output.matches(", CPL 3").count() == all
    });
    let output = output.expect("the guest is busy in user mode");
    assert_all(
        &output,
        &[
            "\"Linux version 6.",
            "<update_process_times+",
            ":\t7777\n",
            " is not mapped: the level-",
            "\nthe kernel's own page tables, at 0x",
            "PML4E[511] at 0x",
            " page, r",
            " hit Breakpoint 1, ",
            "update_process_times in section .text",
            "detached",
        ],
    );
    assert!(!output.contains("Cannot "), "{output}");
}

#[test]
fn a_kernel_that_has_yet_to_move_is_found_later() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let vmm = moving(dir.path(), &guest, "outboard.run=tick", None).gdb_wait();
    let vmm = vmm.start();
    wait_until("the gdb socket", BOOT, || vmm.gdb_socket().exists());
    let output = gdb::run_alone(
        vmm.gdb_socket(),
        Sysroot::Guest,
        &["monitor lx version", "info threads", "detach"],
    );
    assert_all(
        &output,
        &[
            "no Linux kernel is mapped yet: the guest is still in its boot loader, or is not Linux",
            "(CPU 0, running, CPL 0)",
        ],
    );
    vmm.process.wait_for("tick=started", BOOT);
    let commands = ["info symbol do_sys_openat2", "detach"];
    let output = gdb::run_alone(vmm.gdb_socket(), Sysroot::Guest, &commands);
    assert_all(&output, &["do_sys_openat2 in section .text"]);
    finish(vmm);
}

#[test]
fn a_file_of_another_kernel_is_not_believed() {
    let (stock, own) = (guest::stock_linux(), guest::linux());
    let dir = scratch();
    let vmm = ticking(dir.path(), &stock, own.vmlinux.as_deref());
    let commands = [
        "monitor lx version",
        "info symbol virtqueue_add_split",
        "detach",
    ];
    let output = gdb::run_alone(vmm.gdb_socket(), Sysroot::Guest, &commands);
    assert_all(
        &output,
        &[
            "Reading symbols from target:/outboard/kallsyms.elf",
            "symbols from the guest's own symbol table (kallsyms)",
        ],
    );
    let message = "vmlinux is not the kernel that runs: it says \"Linux version 6.";
    assert!(vmm.messages().contains(message), "{}", vmm.messages());
    finish(vmm);
}

#[test]
fn the_kernels_own_scripts_work() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let dir = scratch();
    let vmm = linux(&vmlinux, &guest, "outboard.run=loaded,tick")
        .cpus(2)
        .gdb(dir.path())
        .start();
    vmm.process.wait_for("tick=started", BOOT);
    assert_eq!(vmm.guest_value("loaded").trim(), "dummy");
    let scripts = vmlinux.with_file_name("vmlinux-gdb.py");
    let modules = vmlinux.with_file_name("modules");
    let source = format!("source {}", scripts.display());
    let symbols = format!("lx-symbols {}", modules.display());
    let mut scripts = gdb::start_merged(
        vmm.gdb_socket(),
        &vmlinux,
        &[
            &source,
            "lx-version",
            "lx-ps",
            "lx-dmesg",
            &symbols,
            "info symbol dummy_xmit",
            "print $lx_per_cpu(\"current_task\", 0).comm",
            "monitor lx modules",
            "detach",
        ],
    );
    scripts.expect_exit(0, BOOT);
    let output = scripts.printed(Stream::Out);
    assert_all(
        &output,
        &[
            "Linux version 6.",
            "kthreadd",
            "Run /init as init process",
            "loading @0xffffffff",
            "modules/dummy.ko",
            "dummy_xmit in section .text of ",
            "$1 = \"",
            "add-symbol-file dummy.ko 0xffffffff",
        ],
    );
    finish(vmm);
}
