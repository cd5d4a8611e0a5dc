//! Modules from their first instruction on, in the real gdb.

use std::path::Path;

use tests::gdb::{self, Sysroot};
use tests::process::Process;
use tests::{guest, scratch};

use crate::machine::{BOOT, linux};

/// What gdb prints of a line that begins so.
fn line_of(gdb: &Process, after: usize, beginning: &str) -> (usize, String) {
    let (at, line) = gdb.wait_for_after(after, beginning, BOOT);
    (at, line.text)
}

/// The module is loaded when the guest gets a line, which is when gdb waits for it.
#[test]
fn a_module_has_its_sections_while_they_are_there() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let dir = scratch();
    let mut vmm = linux(&vmlinux, &guest, "outboard.run=line,loaded,tick")
        .gdb(dir.path())
        .start();
    vmm.process.wait_for("line=waiting", BOOT);
    let modules = vmlinux.with_file_name("modules");
    let cd = format!("cd {}", modules.display());
    // Without the files that gdb would get of itself.
    let alone = "set auto-solib-add off";
    let commands = [
        &cd,
        alone,
        "break do_init_module",
        "echo waiting\\n",
        "continue",
    ];
    let mut gdb = gdb::open_merged(vmm.gdb_socket(), &vmlinux, &commands);
    gdb.wait_for("waiting", BOOT);
    vmm.process.send(b"load\n");
    let (at, _) = line_of(&gdb, 0, "Breakpoint 1, do_init_module");
    gdb.send(b"monitor lx modules\n");
    let (at, _) = line_of(&gdb, at, "dummy (coming)");
    let (at, line) = line_of(&gdb, at, "add-symbol-file dummy.ko 0xffffffff");
    assert!(line.contains(" -s .init.text 0xffffffff"), "{line}");
    let load = &line[line.find("add-symbol-file").unwrap()..];
    let commands = format!("{load}\nbreak dummy_init_module\ncontinue\nbacktrace 2\n");
    gdb.send(commands.as_bytes());
    let (at, _) = line_of(&gdb, at, "Breakpoint 2, dummy_init_module");
    let (at, _) = line_of(&gdb, at, "do_one_initcall");

    // What was freed is named at no address that a breakpoint could have.
    gdb.send(b"delete\ntbreak uptime_proc_show\ncontinue\nmonitor lx modules\n");
    let (at, line) = line_of(&gdb, at, "add-symbol-file dummy.ko 0xffffffff");
    let load = &line[line.find("add-symbol-file").unwrap()..];
    assert!(load.contains(" -s .init.text 0xdead000000000000"), "{line}");
    let commands = format!(
        "remove-symbol-file -a dummy_xmit\n{load}\nbreak dummy_init_module\n\
         tbreak uptime_proc_show\ncontinue\n"
    );
    gdb.send(commands.as_bytes());
    let freed = "refused: it is in a module's section that Linux freed when the module was";
    let (at, _) = line_of(&gdb, at, freed);
    let (at, _) = line_of(&gdb, at, "Temporary breakpoint 5, uptime_proc_show");

    // gdb puts symbols of sections that it is not told of at 0.
    let text = load.split(' ').nth(2).unwrap();
    let commands = format!(
        "delete\nremove-symbol-file -a dummy_xmit\nadd-symbol-file dummy.ko {text}\n\
         break dummy_init_module\ntbreak uptime_proc_show\ncontinue\n"
    );
    gdb.send(commands.as_bytes());
    let (at, line) = line_of(&gdb, at, "Linux has nothing there");
    assert!(line.contains("\"monitor lx modules\" tells"), "{line}");
    line_of(&gdb, at, "Temporary breakpoint 7, uptime_proc_show");
    gdb.send(b"delete\ndetach\nquit\n");
    gdb.expect_exit(0, BOOT);
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("loaded").trim(), "dummy");
    assert_eq!(vmm.guest_value("tick"), "ok");
}

/// Of a stock kernel, whose modules' symbols are in the guest alone.
#[test]
fn modules_of_a_stock_kernel_have_the_names_of_their_code() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=tick")
        .gdb(dir.path())
        .gdb_wait_for_kernel()
        .start();
    let waits = "the guest waits for gdb to attach";
    vmm.process.wait_for(waits, BOOT);
    // virtio_ring, virtio, virtio_mmio, virtio_blk, in the order of their loading.
    let commands = [
        // The names alone, as for a debugger that takes no libraries.
        "set auto-solib-add off",
        "break do_init_module",
        "continue",
        "continue",
        "continue",
        "continue",
        "monitor lx modules",
        "add-symbol-file target:/outboard/modules.elf",
        "info symbol virtio_blk_init",
        "delete",
        "break virtio_blk_init",
        "continue",
        "backtrace 2",
        "break virtio_queue_rq",
        "info symbol virtio_queue_rq",
        "delete",
        "detach",
    ];
    let output = gdb::run_alone(vmm.gdb_socket(), Sysroot::Guest, &commands);
    for part in [
        " virtio_blk (coming)\n",
        " virtio_ring\n",
        "add-symbol-file virtio_blk.ko 0xffffffffc0",
        "\nadd-symbol-file target:/outboard/modules.elf\n",
        "virtio_blk_init in section virtio_blk.init.text of target:/outboard/modules.elf",
        " in virtio_blk_init ()",
        "virtio_queue_rq in section virtio_blk.text of target:/outboard/modules.elf",
        "detached",
    ] {
        assert!(output.contains(part), "no {part:?}:\n{output}");
    }
    vmm.process.wait_for("tick=started", BOOT);
    // One that attaches later has them at once.
    let output = with_names(vmm.gdb_socket());
    assert!(
        output.contains("virtio_queue_rq in section .text of"),
        "{output}"
    );
    assert!(output.contains("/virtio_blk.ko\n"), "{output}");
}

fn with_names(socket: &Path) -> String {
    let commands = ["info symbol virtio_queue_rq", "detach"];
    gdb::run_alone(socket, Sysroot::Guest, &commands)
}
