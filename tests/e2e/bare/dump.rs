//! Crash dumps of bare-metal guests, and what a guest's panic does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tests::process::{Process, Stream};
use tests::vmm::Vmm;
use tests::{DEADLINE, gdb, guest, program, scratch};

use crate::control::{ctl, socket};

fn misbehave(case: &str) -> Vmm {
    Vmm::new(guest::bare("misbehave")).cmdline(&format!("case={case}"))
}

/// What gdb prints of a dump with the guest's symbols.
fn core(dump: &Path, name: &str, commands: &[&str]) -> String {
    let file = format!("file {}", guest::bare(name).display());
    let core = format!("core-file {}", dump.display());
    gdb::run_offline(&[&[&*file, &*core], commands].concat())
}

#[test]
fn a_running_guest_is_dumped_and_runs_on() {
    let dir = scratch();
    let mut vmm = Vmm::new(guest::bare("debug"))
        .cpus(2)
        .arg("--api", socket(dir.path()))
        .start();
    vmm.process.wait_for("debug: ready", DEADLINE);
    let dump = dir.path().join("vmcore");
    let said = ctl(dir.path(), &["dump", dump.to_str().unwrap()], 0);
    assert!(said.contains("no Linux kernel was found in it"), "{said}");
    let meta = fs::metadata(&dump).unwrap();
    assert!(meta.len() > 64 << 20 && meta.blocks() * 512 < 16 << 20);
    let output = core(
        &dump,
        "debug",
        &["info threads", "print greeting", "backtrace"],
    );
    // Where it was just then, and whether there is a way back to main(), is open.
    for part in ["LWP 2", "\n#0  ", "= \"hello gdb\""] {
        assert!(output.contains(part), "no {part:?} in\n{output}");
    }
    let kdump = dir.path().join("kdump");
    ctl(dir.path(), &["dump", "-z", kdump.to_str().unwrap()], 0);
    let compressed = fs::read(&kdump).unwrap();
    assert!(compressed.starts_with(b"KDUMP   ") && compressed.len() < 4 << 20);
    let status = crate::control::status(dir.path());
    assert_eq!(status["state"], "running");
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn a_dump_that_cannot_be_written_is_refused_and_the_guest_runs_on() {
    let dir = scratch();
    let mut vmm = misbehave("halt-forever")
        .arg("--api", socket(dir.path()))
        .start();
    vmm.process.wait_for("halt-forever", DEADLINE);
    for (path, why) in [
        ("/dev/null", "it is there, but is not a regular file"),
        ("/nowhere/vmcore", "No such file or directory"),
    ] {
        let said = ctl(dir.path(), &["dump", path], 1);
        assert!(said.contains(path) && said.contains(why), "{said}");
    }
    // What every user gets who may write to nothing.
    let full = ctl(dir.path(), &["dump", "/dev/full"], 1);
    assert!(full.contains("not a regular file"), "{full}");
    assert_eq!(crate::control::status(dir.path())["state"], "running");
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn a_crash_is_dumped_before_the_end() {
    let dir = scratch();
    let dump = dir.path().join("vmcore");
    let vmm = misbehave("triple-fault")
        .arg("--on-panic", format!("exit,dump={}", dump.display()))
        .run(3);
    let said = format!("outboard: dumped to {}: 64 MiB of RAM", dump.display());
    assert!(vmm.messages().contains(&said), "{}", vmm.messages());
    let output = core(&dump, "misbehave", &["info threads"]);
    assert!(output.contains("LWP 1"), "{output}");

    let compressed = format!("exit,format=kdump,dump={}", dump.display());
    misbehave("pvpanic").arg("--on-panic", compressed).run(3);
    assert!(fs::read(&dump).unwrap().starts_with(b"KDUMP   "));
}

/// What is compressed by half, which takes its time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        Some((state >> 60) as u8)
    };
    std::iter::from_fn(next).take(len).collect()
}

#[test]
fn a_machine_that_is_dumped_tells_its_status_and_ends_with_a_whole_dump() {
    let dir = scratch();
    let [dump, initrd] = ["vmcore", "initrd"].map(|name| dir.path().join(name));
    fs::write(&initrd, noise(256 << 20)).unwrap();
    let on_panic = format!("stop,format=kdump,dump={}", dump.display());
    let mut vmm = misbehave("pvpanic")
        .arg("--memory", "512M")
        .arg("--initrd", &initrd)
        .arg("--on-panic", on_panic)
        .start();
    let panicked = "outboard: the guest's kernel panicked";
    vmm.process.wait_for(panicked, DEADLINE);
    vmm.process.signal(libc::SIGUSR1);
    vmm.process.wait_for("outboard: status", DEADLINE);
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
    let messages = vmm.process.printed(Stream::Err);
    let status = messages.find("outboard: status");
    let dumped = messages.find("outboard: dumped to");
    assert!(dumped.is_some() && status < dumped, "{messages}");
    assert!(!messages.contains("it is stopped"), "{messages}");
    assert!(fs::metadata(&dump).unwrap().len() > 100 << 20);
}

#[test]
fn a_panic_ends_the_machine_stops_it_or_resets_it() {
    let dir = scratch();
    let vmm = misbehave("pvpanic").arg("--on-panic", "exit").run(3);
    assert!(!vmm.console().contains("survived"), "{}", vmm.console());

    let mut vmm = misbehave("pvpanic")
        .arg("--on-panic", "stop")
        .arg("--api", socket(dir.path()))
        .start();
    let stopped = "outboard: it is stopped, as --on-panic asks";
    vmm.process.wait_for(stopped, DEADLINE);
    assert_eq!(crate::control::status(dir.path())["state"], "paused");
    assert!(!vmm.console().contains("survived"), "{}", vmm.console());
    let dump = dir.path().join("vmcore");
    ctl(dir.path(), &["dump", dump.to_str().unwrap()], 0);
    let output = core(&dump, "misbehave", &["backtrace"]);
    assert!(output.contains("pvpanic ()"), "{output}");
    ctl(dir.path(), &["resume"], 0);
    vmm.process.expect_exit(0, DEADLINE);
    assert!(vmm.console().contains("survived"), "{}", vmm.console());

    let mut vmm = misbehave("pvpanic").arg("--on-panic", "reset").start();
    let mut line = 0;
    for _ in 0..3 {
        let next = vmm
            .process
            .wait_for_after(line, "misbehave: pvpanic", DEADLINE);
        line = next.0;
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn without_the_option_a_panic_is_the_guests_own_affair() {
    let vmm = misbehave("pvpanic").run(0);
    assert!(vmm.console().contains("survived"), "{}", vmm.console());
    let messages = vmm.messages();
    assert!(messages.contains("the guest's kernel panics"), "{messages}");
}

#[test]
fn wrong_options_say_what_is_right() {
    let mut command = Command::new(program::own("outboard"));
    command.args(["run", "--kernel", "x", "--on-panic", "dump=x"]);
    let mut outboard = Process::start("outboard", &mut command);
    outboard.expect_exit(2, DEADLINE);
    let said = outboard.printed(Stream::Err);
    assert!(said.contains("is not stop, reset or exit"), "{said}");
}
