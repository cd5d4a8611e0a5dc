//! What is booted: the files as they were, through whatever they came, and others when
//! the user says so.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::process::{Process, wait_until};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, program, scratch};

use crate::control::{ctl, socket, status};

/// Over what is there, as `cp` does.
fn copy(from: &Path, to: &Path) {
    fs::write(to, fs::read(from).unwrap()).unwrap();
}

/// Whether the thread is there that copies the files for reboots.
fn is_copying(vmm: &Running) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", vmm.process.pid())).unwrap();
    tasks.flatten().any(|task| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "keep")
    })
}

#[test]
fn a_reboot_is_of_what_was_booted_and_a_reload_of_what_is_there() {
    let dir = scratch();
    let [kernel, initrd] = ["kernel", "initrd"].map(|name| dir.path().join(name));
    copy(&guest::bare("misbehave"), &kernel);
    fs::write(&initrd, "contents").unwrap();
    let mut vmm = Vmm::new(&kernel)
        .cmdline("case=reboot")
        .arg("--initrd", &initrd)
        .arg("--api", socket(dir.path()))
        .start();
    let mut line = 0;
    let mut reboots = |vmm: &Running| {
        for _ in 0..3 {
            let (next, _) = vmm
                .process
                .wait_for_after(line, "misbehave: reboot", DEADLINE);
            line = next;
        }
    };
    reboots(&vmm);
    wait_until("a copy of the files", DEADLINE, || !is_copying(&vmm));
    let part = &fs::read(guest::bare("hello")).unwrap()[..5000];
    fs::write(&kernel, part).unwrap();
    fs::write(&initrd, "others").unwrap();
    reboots(&vmm);
    let refused = ctl(dir.path(), &["reset", "--reload"], 1);
    assert!(refused.contains("is truncated"), "{refused}");
    fs::remove_file(&kernel).unwrap();
    fs::remove_file(&initrd).unwrap();
    reboots(&vmm);
    let refused = ctl(dir.path(), &["reset", "--reload"], 1);
    assert!(refused.contains("No such file"), "{refused}");
    assert_eq!(status(dir.path())["state"], "running");
    reboots(&vmm);
    copy(&guest::bare("hello"), &kernel);
    fs::write(&initrd, "others").unwrap();
    ctl(dir.path(), &["reset"], 0);
    reboots(&vmm);
    ctl(dir.path(), &["reset", "--reload"], 0);
    vmm.process.wait_for("hello from bare metal", DEADLINE);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn kernel_and_initrd_may_come_through_pipes() {
    let run = format!(
        "{} run --memory 64M --kernel <(cat {}) --initrd <(echo initrd) --config <(echo cpus = 1)",
        program::own("outboard").display(),
        guest::bare("hello").display()
    );
    let mut bash = Command::new(program::system("bash"));
    let mut vmm = Process::start("bash", bash.args(["-c", &run]));
    vmm.wait_for("hello from bare metal", DEADLINE);
    vmm.expect_exit(0, DEADLINE);
}
