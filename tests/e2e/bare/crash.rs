//! A guest that dies is reported with its registers, and status 3.

use tests::vmm::Vmm;
use tests::{DEADLINE, guest};

use crate::host::{host, shown};

#[test]
fn triple_fault_is_reported_as_one_with_registers_and_instruction() {
    let vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=triple-fault")
        .run(3);
    let messages = vmm.messages();
    let kept = shown(
        host().keeps_registers_of_crash,
        "the registers of a triple fault",
    );
    let found: &[_] = if kept {
        &["ud2   [0f 0b]", "rip 0000000000", "cs 0008"]
    } else {
        &["the registers of the fault are lost"]
    };
    for expected in ["vCPU 0: triple fault", "cr3 "].iter().chain(found) {
        assert!(messages.contains(expected), "no {expected:?}\n{messages}");
    }
}

#[test]
fn crash_of_a_second_vcpu_names_it() {
    let vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=ap-triple-fault")
        .cpus(2)
        .run(3);
    assert!(
        vmm.messages().contains("vCPU 1: triple fault"),
        "{}",
        vmm.messages()
    );
}

#[test]
fn wild_guests_end_with_a_report_and_not_with_a_hang() {
    for case in ["jump-mmio", "jump-unmapped", "no-stack", "idt-nowhere"] {
        let mut vmm = Vmm::new(guest::bare("misbehave"))
            .cmdline(&format!("case={case}"))
            .start();
        vmm.process.expect_exit(3, DEADLINE);
        let messages = vmm.messages();
        assert!(
            messages.contains("outboard: the guest crashed"),
            "{case}: {messages}"
        );
        assert!(messages.contains("rip "), "{case}: {messages}");
    }
}

#[test]
fn guest_without_page_tables_crashes_or_can_be_ended() {
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=page-tables-nowhere")
        .start();
    vmm.process.wait_for("misbehave: page-tables", DEADLINE);
    let crashes = host().faults_without_page_tables;
    if shown(
        crashes,
        "the crash of a guest with page tables outside of RAM",
    ) {
        vmm.process.expect_exit(3, DEADLINE);
        assert!(vmm.messages().contains("outboard: the guest crashed"));
    } else {
        vmm.process.signal(libc::SIGTERM);
        vmm.process.expect_exit(0, DEADLINE);
    }
}

#[test]
fn accesses_that_nobody_claims_harm_nothing() {
    let vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=bus")
        .run(0);
    assert!(
        vmm.console().contains("misbehave: survived"),
        "{}",
        vmm.process.transcript()
    );
    assert!(
        vmm.messages().len() < 4096,
        "a guest must not flood the log:\n{}",
        vmm.messages()
    );
}
