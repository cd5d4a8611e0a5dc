//! What this host traps, by `outboard doctor`.

use std::process::Command;
use std::sync::OnceLock;

use tests::{program, unmet};

/// What one privilege level's code can be debugged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    pub step: bool,
    /// An int3 that gdb plants is recognised, in whichever way.
    pub int3: bool,
    pub hardware: bool,
    pub watch: bool,
}

impl Ring {
    /// Any kind of breakpoint works.
    pub fn breaks(self) -> bool {
        self.int3 || self.hardware
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    pub ring0: Ring,
    pub ring3: Ring,
    /// A triple fault leaves the registers as they were. AMD's processors leave
    /// them undefined (APM volume 2, 15.14.3), so that KVM resets the vCPU.
    pub keeps_registers_of_crash: bool,
    /// Page tables outside of RAM are a triple fault. kvm_amd tries the walk
    /// again and again instead, and the guest stands still.
    pub faults_without_page_tables: bool,
    /// Real-mode code can be debugged. QEMU, as the bed's emulated AMD machine, dies
    /// of it.
    pub debugs_real_mode: bool,
    /// The TSC stands still while the guest is stopped, in both rings.
    pub holds_tsc: bool,
    /// A guest can turn paging on without long mode. PVM refuses it.
    pub pages_in_32_bits: bool,
    /// `int`, `int3` and `int1` can be executed in ring 0. PVM emulates ring 0 without
    /// them.
    pub interrupts_itself: bool,
    /// Debug registers are the guest's in ring 3 too. PVM keeps them from it.
    pub has_debug_registers_in_ring_3: bool,
}

impl Host {
    /// Breakpoints in pages that both rings may execute are int3s.
    pub fn plants_in_shared_pages(self) -> bool {
        self.ring0.int3 && self.ring3.int3
    }
}

/// This host; asked once.
pub fn host() -> Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    *HOST.get_or_init(|| {
        let output = Command::new(program::own("outboard"))
            .arg("doctor")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        parse(&text).unwrap_or_else(|what| panic!("no {what} in outboard doctor's report:\n{text}"))
    })
}

/// Reads the table; the error is the name of the row that is missing.
fn parse(report: &str) -> Result<Host, &'static str> {
    let row = |name: &'static str| {
        let cells = report
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        let mut cells = cells
            .ok_or(name)?
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty());
        Ok([cells.next().ok_or(name)?, cells.next().ok_or(name)?])
    };
    let (step, int3) = (row("single-step")?, row("int3")?);
    let (hardware, watch) = (row("hardware breakpoint")?, row("write watchpoint")?);
    let tsc = row("TSC while stopped")?;
    let ring = |n: usize| Ring {
        step: step[n] == "traps",
        int3: int3[n] == "traps" || int3[n] == "fails to emulate",
        hardware: hardware[n] == "traps",
        watch: watch[n] == "traps",
    };
    let kind = report.lines().find_map(|line| line.strip_prefix("Host: "));
    let kind = kind.ok_or("Host")?;
    let (amd, pvm) = (kind.contains("kvm_amd"), kind.contains("kvm_pvm"));
    Ok(Host {
        ring0: ring(0),
        ring3: ring(1),
        keeps_registers_of_crash: !amd,
        faults_without_page_tables: !amd,
        debugs_real_mode: !amd,
        holds_tsc: tsc == ["stands still"; 2],
        pages_in_32_bits: !pvm,
        interrupts_itself: !pvm,
        has_debug_registers_in_ring_3: !pvm,
    })
}

/// Passes `can` on; where it is false, notes for the end of the run that `what`
/// could not be shown.
pub fn shown(can: bool, what: &str) -> bool {
    if !can {
        unmet::note(what);
    }
    can
}

/// Whether a test can have `program`; where the machine is not meant to have it, notes
/// that what is tested with it could not be shown.
pub fn provides(program: &str) -> bool {
    shown(
        program::is_provided(program),
        &format!("what is tested with {program}"),
    )
}

#[test]
fn the_report_is_understood() {
    let report = "\
Host: kvm_pvm

Guest debugging          ring 0                ring 3
  single-step            traps                 not trapped
  int3                   fails to emulate      not trapped
  hardware breakpoint    traps                 not trapped
  write watchpoint       not trapped           failed: KVM_RUN: no  memory
  TSC while stopped      stands still          keeps counting

What gdb can do
";
    let ring = |works| Ring {
        step: works,
        int3: works,
        hardware: works,
        watch: false,
    };
    let expected = Host {
        ring0: ring(true),
        ring3: ring(false),
        keeps_registers_of_crash: true,
        faults_without_page_tables: true,
        debugs_real_mode: true,
        holds_tsc: false,
        pages_in_32_bits: false,
        interrupts_itself: false,
        has_debug_registers_in_ring_3: false,
    };
    assert_eq!(parse(report), Ok(expected));
    assert_eq!(parse("single-step  traps"), Err("single-step"));
    host();
}
