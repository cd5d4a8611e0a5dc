//! Crash dumps of Linux under KASLR, and what others' programs read in them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::guest::{self, Linux};
use tests::process::{Process, Stream};
use tests::vmm::Running;
use tests::{gdb, program, scratch};

use crate::debugger_linux::{assert_all, finish, moving};
use crate::machine::{BOOT, linux};

/// What a program prints that ends with status 0.
fn output(name: &str, command: &mut Command) -> String {
    let mut process = Process::start(name, command);
    process.close_stdin();
    process.expect_exit(0, BOOT);
    process.printed(Stream::Out)
}

/// Dumps a guest with two vCPUs that runs on, and compressed as `kdump` beside that.
fn dump(dir: &Path, guest: &Linux) -> PathBuf {
    let api = dir.join("api");
    let vmm: Running = moving(dir, guest, "outboard.run=tick", None)
        .arg("--api", &api)
        .start();
    vmm.process.wait_for("tick=started", BOOT);
    let dump = dir.join("vmcore");
    let said = ctl(&api, &[dump.as_os_str()]);
    assert_all(&said, &["512 MiB of RAM", "with Linux's VMCOREINFO"]);
    // The guest still runs.
    ctl(&api, &["-z".as_ref(), dir.join("kdump").as_os_str()]);
    finish(vmm);
    dump
}

/// Has the machine write a dump, and returns what is said of it.
fn ctl(api: &Path, words: &[&OsStr]) -> String {
    let mut ctl = Command::new(program::own("outboard"));
    ctl.arg("ctl").arg("--api").arg(api).arg("dump").args(words);
    let said = output("ctl", &mut ctl);
    println!("{said}");
    said
}

/// The value of a line of VMCOREINFO, which is among the first bytes of a dump.
fn vmcoreinfo(dump: &Path, name: &str) -> String {
    let mut head = vec![0; 64 << 10];
    let file = fs::File::open(dump).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0).unwrap();
    let text = String::from_utf8_lossy(&head);
    let (_, value) = text.split_once(&format!("\n{name}=")).unwrap();
    value.lines().next().unwrap().to_owned()
}

fn reduce(dir: &Path, dump: &Path) {
    let small = dir.join("small");
    let mut makedumpfile = Command::new(program::system("makedumpfile"));
    makedumpfile.args(["-d", "31"]).args([dump, &small]);
    let said = output("makedumpfile", &mut makedumpfile);
    assert!(said.contains("makedumpfile Completed"), "{said}");
    let size = fs::metadata(&small).unwrap().len();
    assert!((1 << 20..100 << 20).contains(&size), "{size} bytes");
    fs::remove_file(&small).unwrap();
}

const DRGN: &str = r#"
from drgn.helpers.linux import *
print("release", prog["init_uts_ns"].name.release.string_().decode())
print("tasks", {t.comm.string_().decode() for t in for_each_task(prog)})
print("log", get_dmesg(prog).splitlines()[0].decode())
for cpu in for_each_online_cpu(prog):
    print("cpu", prog.stack_trace(cpu_curr(prog, cpu)))
"#;

#[test]
fn a_dump_under_kaslr_is_read_by_others() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let dir = scratch();
    let dump = dump(dir.path(), &guest);
    reduce(dir.path(), &dump);

    drgn_reads(&dump, &vmlinux);

    let offset = vmcoreinfo(&dump, "KERNELOFFSET");
    let symbols = format!("symbol-file {} -o 0x{offset}", vmlinux.display());
    let core = format!("core-file {}", dump.display());
    let said = gdb::run_offline(&[
        &symbols,
        &core,
        "thread apply all backtrace",
        "print init_task.comm",
    ]);
    assert_all(
        &said,
        &[
            "Thread 2 (LWP 2):",
            "Thread 1 (LWP 1):",
            "\n#1  0x",
            "\"swapper/0\\000",
        ],
    );

    crash_reads(dir.path(), &dump, &vmlinux);

    // gdb does not know the compressed format, everybody else does.
    let kdump = dir.path().join("kdump");
    let size = fs::metadata(&kdump).unwrap().len();
    assert!((1 << 20..100 << 20).contains(&size), "{size} bytes");
    reduce(dir.path(), &kdump);
    let log = dmesg(dir.path(), &kdump);
    assert!(log.contains("] Linux version 6.1."), "{log}");
    drgn_reads(&kdump, &vmlinux);
    crash_reads(dir.path(), &kdump, &vmlinux);
}

fn drgn_reads(dump: &Path, vmlinux: &Path) {
    let mut drgn = Command::new(program::cached("drgn/drgn"));
    drgn.arg("-q").arg("-c").arg(dump).arg("-s").arg(vmlinux);
    let said = output("drgn", drgn.args(["-e", DRGN]));
    assert_drgn(&said);
    // A CPU is idle just then, or at work.
    assert_eq!(said.matches("cpu #0 ").count(), 2, "{said}");
    let begins = ["cpu_startup_entry", "entry_SYSCALL_64", "asm_"];
    assert!(begins.iter().any(|name| said.contains(name)), "{said}");
}

fn crash_reads(dir: &Path, dump: &Path, vmlinux: &Path) {
    // Its allocator is one that crash does not know.
    let mut crash = Command::new(program::system("crash"));
    crash.args(["-s", "--no_modules", "--no_kmem_cache"]);
    let commands = dir.join("commands");
    fs::write(&commands, "sys\nlog\nquit\n").unwrap();
    crash.arg(vmlinux).arg(dump).arg("-i").arg(&commands);
    let said = output("crash", &mut crash);
    assert_all(&said, &["CPUS: 2", "RELEASE: 6.1.", "] Linux version 6.1."]);
}

/// The log that makedumpfile finds by itself.
fn dmesg(dir: &Path, dump: &Path) -> String {
    let log = dir.join("log");
    let mut makedumpfile = Command::new(program::system("makedumpfile"));
    makedumpfile.arg("--dump-dmesg").args([dump, &log]);
    output("makedumpfile", &mut makedumpfile);
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    text
}

/// What [`DRGN`] prints of a guest's kernel, tasks and log.
fn assert_drgn(said: &str) {
    assert_all(
        said,
        &[
            "release 6.1.",
            "'init'",
            "'kthreadd'",
            "log [    0.000000] Linux version",
        ],
    );
}

/// drgn reads a running guest as one of QEMU's.
#[test]
fn drgn_reads_a_running_guest_by_qmp() {
    let guest = guest::linux();
    let dir = scratch();
    let qmp = dir.path().join("qmp");
    let vmm = moving(dir.path(), &guest, "outboard.run=tick", None)
        .arg("--qmp", format!("unix:{}", qmp.display()))
        .start();
    vmm.process.wait_for("tick=started", BOOT);
    let mut drgn = Command::new(program::cached("drgn/drgn"));
    drgn.arg("-q").arg("--qemu").arg(&qmp);
    drgn.arg("-s").arg(guest.vmlinux.as_ref().unwrap());
    // CPUs that run have no stack to trace.
    let tasks = DRGN.split("for cpu").next().unwrap();
    assert_drgn(&output("drgn", drgn.args(["-e", tasks])));
    finish(vmm);
}

#[test]
fn a_stock_kernel_is_dumped_when_it_panics() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let dump = dir.path().join("vmcore");
    let mut vmm = linux(&guest.bzimage, &guest, "")
        .cmdline("console=ttyS0 panic=-1 outboard.run=panic")
        .cpus(2)
        .arg("--on-panic", format!("exit,dump={}", dump.display()))
        .start();
    vmm.process.expect_exit(3, BOOT);
    let messages = vmm.messages();
    assert_all(
        &messages,
        &[
            "outboard: the guest's kernel panicked",
            "with Linux's VMCOREINFO",
        ],
    );
    reduce(dir.path(), &dump);
    // The panic's last words are in the log.
    assert_all(
        &dmesg(dir.path(), &dump),
        &[
            "] Linux version ",
            "] Kernel panic - not syncing: sysrq triggered crash",
        ],
    );
}
