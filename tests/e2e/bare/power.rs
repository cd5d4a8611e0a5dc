//! Power off, reboot, and being told to end.

use tests::vmm::Vmm;
use tests::{DEADLINE, guest};

fn rebooting() -> Vmm {
    Vmm::new(guest::bare("misbehave")).cmdline("case=reboot")
}

#[test]
fn reboot_starts_the_guest_again_in_the_same_process() {
    let mut vmm = rebooting().start();
    let mut line = 0;
    for _ in 0..5 {
        line = vmm
            .process
            .wait_for_after(line, "misbehave: reboot", DEADLINE)
            .0;
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn every_vcpu_starts_again_after_a_reboot() {
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=reboot")
        .cpus(4)
        .start();
    let mut line = 0;
    for _ in 0..3 {
        line = vmm
            .process
            .wait_for_after(line, "misbehave: reboot", DEADLINE)
            .0;
    }
    vmm.process.signal(libc::SIGINT);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn reboot_ends_the_machine_if_told_so() {
    let vmm = rebooting().arg("--on-reboot", "exit").run(0);
    assert_eq!(vmm.console().matches("misbehave: reboot").count(), 1);
}

#[test]
fn signals_end_a_halted_and_a_spinning_guest() {
    for case in ["halt-forever", "spin-forever"] {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let mut vmm = Vmm::new(guest::bare("misbehave"))
                .cmdline(&format!("case={case}"))
                .start();
            vmm.process.wait_for(case, DEADLINE);
            vmm.process.signal(signal);
            vmm.process.expect_exit(0, DEADLINE);
        }
    }
}
