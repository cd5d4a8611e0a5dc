//! Modules of a stock kernel that come, go and move while gdb is attached.

use std::path::Path;

use tests::process::Process;
use tests::vmm::Running;
use tests::{gdb, guest, scratch};

use crate::debugger_types::with_types;
use crate::machine::{BOOT, linux};

/// A gdb whose output is read line by line.
struct Gdb {
    process: Process,
    at: usize,
}

impl Gdb {
    fn new(open: impl FnOnce(&Path, &[&str]) -> Process, vmm: &Running) -> Self {
        let commands = ["set breakpoint pending on", "echo attached\\n"];
        let mut gdb = Self {
            process: open(vmm.gdb_socket(), &commands),
            at: 0,
        };
        gdb.line("attached");
        gdb
    }

    fn send(&mut self, commands: &str) {
        self.process.send(commands.as_bytes());
    }

    /// The next line that has this text.
    fn line(&mut self, text: &str) -> String {
        let (at, line) = self.process.wait_for_after(self.at, text, BOOT);
        self.at = at;
        line.text
    }

    /// Has gdb break in a function that there is none of yet, and the guest run.
    fn awaits(&mut self, function: &str) {
        let commands = format!("break {function}\necho awaiting\\n\ncontinue\n");
        self.send(&commands);
        self.line("pending");
        self.line("awaiting");
    }

    fn address_of(&mut self, function: &str) -> String {
        let command = format!("printf \"{function} is %p\\n\", {function}\n");
        self.send(&command);
        let line = self.line(&format!("{function} is 0x"));
        line.rsplit(' ').next().unwrap().to_owned()
    }
}

fn follows(open: impl FnOnce(&Path, &[&str]) -> Process) {
    let guest = guest::stock_linux();
    let dir = scratch();
    let mut vmm = linux(&guest.bzimage, &guest, "outboard.run=shell")
        .gdb(dir.path())
        .start();
    vmm.process.wait_for("This is the guest", BOOT);
    vmm.process
        .send(b"rmmod msr virtio_rng; echo un\"\"loaded\n");
    vmm.process.wait_for("unloaded", BOOT);
    with_types(&vmm, &["detach"]);
    let mut gdb = Gdb::new(open, &vmm);

    // Before its first instruction.
    gdb.awaits("virtio_rng_driver_init");
    vmm.process
        .send(b"insmod /modules/virtio-rng.ko; insmod /modules/msr.ko; echo ins\"\"erted\n");
    gdb.line("Breakpoint 1, ");
    gdb.send("backtrace\ninfo sharedlibrary rng\n");
    gdb.line("#0 ");
    for frame in [
        " do_one_initcall (",
        " do_init_module (",
        " __do_sys_finit_module (",
        " do_syscall_64 (",
        "<signal handler called>",
        "-init/virtio_rng.ko",
    ] {
        gdb.line(frame);
    }

    // In the module that has been initialised, with types of its own.
    gdb.send("delete\nbreak msr_open\ncontinue\n");
    vmm.process.wait_for("inserted", BOOT);
    vmm.process.send(b"head -c 8 /dev/cpu/0/msr >/dev/null\n");
    gdb.line("Breakpoint 2, ");
    gdb.send("backtrace\nwhatis msr_open\nprint file->f_op->open\n");
    gdb.line(" in msr_open (inode=0x");
    for frame in [
        " chrdev_open (",
        " do_sys_openat2 (",
        "<signal handler called>",
        "type = int (struct inode *, struct file *)",
        " <msr_open>",
    ] {
        gdb.line(frame);
    }
    let first = gdb.address_of("msr_open");

    // Elsewhere, with the breakpoint that gdb has kept.
    gdb.send("continue\n");
    vmm.process.send(
        b"rmmod msr virtio_rng; insmod /modules/msr.ko; insmod /modules/virtio-rng.ko\n\
          head -c 8 /dev/cpu/0/msr >/dev/null; echo do\"\"ne\n",
    );
    gdb.line("Breakpoint 2, ");
    let second = gdb.address_of("msr_open");
    assert_ne!(first, second, "the module has not moved");
    gdb.send("info symbol msr_open\ncontinue\n");
    gdb.line("msr_open in section .text of ");
    vmm.process.wait_for("done", BOOT);

    // Gone.
    vmm.process.send(b"rmmod msr; echo go\"\"ne\n");
    vmm.process.wait_for("gone", BOOT);
    gdb.process.signal(libc::SIGINT);
    gdb.line("SIGINT");
    gdb.send("delete\nbreak uptime_proc_show\ncontinue\n");
    vmm.process.send(b"head -c 1 /proc/uptime\n");
    gdb.line("Breakpoint 3, ");
    gdb.send("info sharedlibrary msr\ndetach\nquit\n");
    gdb.line("No shared libraries matched");
    gdb.process.expect_exit(0, BOOT);
    vmm.process.send(b"poweroff\n");
    vmm.process.expect_exit(0, BOOT);
}

#[test]
fn modules_come_go_and_move_in_gdb_as_in_the_guest() {
    follows(gdb::open_alone);
}

#[test]
fn and_in_a_newer_gdb() {
    follows(gdb::open_newer);
}
