//! What this host's KVM can do, found out by tiny probe VMs.
//!
//! KVM's capability bits do not tell hosts apart: KVM_CAP_SET_GUEST_DEBUG is
//! there on every kind, whatever traps. Each probe runs a few instructions in
//! ring 0 or ring 3 with one debug facility armed, and looks at what comes back.

mod probe;
mod report;

use std::io;
use std::sync::OnceLock;

use gdb::target::{Activity, HW_SLOTS, HostTraps, HwBreakpoint, HwKind, Int3, Traps, VirtAddr};

pub use report::print;

use crate::kvm::{Error, failed};
use crate::kvm_device;
use crate::vcpu::DebugControl;
use crate::vcpu::exit::Exit;
use crate::vcpu::x86_64::tsc;
use probe::{Outcome, Probe, Ring};

const STEP: DebugControl = DebugControl {
    slots: [None; HW_SLOTS],
    int3: false,
    step: true,
    hlt_by_hand: false,
};

/// What a debug facility did in a probe VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A debug exit, as documented.
    Traps,
    /// KVM failed to emulate the instruction; the VMM can take that as the hit.
    FailsToEmulate,
    /// The guest ran on, or took the exception itself.
    Missed,
    /// KVM or the probe itself failed.
    Failed(String),
}

/// What the facilities do at one privilege level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    pub step: Finding,
    pub int3: Finding,
    pub hw_breakpoint: Finding,
    pub watchpoint: Finding,
}

impl Findings {
    fn of(ring: Ring) -> Self {
        Self {
            step: probe_debug(ring, &STEP),
            int3: probe_debug(
                ring,
                &DebugControl {
                    int3: true,
                    ..Default::default()
                },
            ),
            hw_breakpoint: probe_debug(ring, &slot(probe::NOP, 1, HwKind::Execute)),
            watchpoint: probe_debug(ring, &slot(probe::DATA, 4, HwKind::Write)),
        }
    }

    fn traps(&self) -> Traps {
        Traps {
            step: self.step == Finding::Traps,
            int3: match self.int3 {
                Finding::Traps | Finding::FailsToEmulate => Int3::Trapped,
                Finding::Missed | Finding::Failed(_) => Int3::GoesToGuest,
            },
            hw_breakpoint: self.hw_breakpoint == Finding::Traps,
            watchpoint: self.watchpoint == Finding::Traps,
        }
    }
}

fn slot(addr: u64, len: u8, kind: HwKind) -> DebugControl {
    let breakpoint = HwBreakpoint {
        addr: VirtAddr(addr),
        len,
        kind,
    };
    DebugControl {
        slots: [Some(breakpoint), None, None, None],
        ..Default::default()
    }
}

/// What traps in ring 0 and ring 3.
pub fn traps() -> HostTraps {
    HostTraps {
        ring0: Findings::of(Ring::Kernel).traps(),
        ring3: Findings::of(Ring::User).traps(),
    }
}

/// Whether a vCPU that is single-stepped over `hlt` is halted. If KVM cannot be asked,
/// it is trusted.
pub fn keeps_hlt() -> bool {
    let end = Probe::at_hlt().and_then(|probe| probe.run(&STEP));
    end.map_or(true, |end| end.activity == Activity::Halted)
}

/// Whether the guest's TSC can be held while the guest is stopped. Asked once.
pub fn holds_tsc() -> bool {
    static HELD: OnceLock<bool> = OnceLock::new();
    // Ring 3 is where guests read the time.
    *HELD.get_or_init(|| tsc_follows_its_offset(Ring::User).unwrap_or(false))
}

fn tsc_follows_its_offset(ring: Ring) -> Result<bool, Error> {
    /// Years ahead of any host's TSC.
    const AHEAD: u64 = 1 << 60;
    let kvm = kvm_device::open()
        .map_err(io::Error::other)
        .map_err(failed("opening /dev/kvm"))?;
    Ok(tsc::has_offset(&kvm) && Probe::tsc_ahead(ring, AHEAD)? >= AHEAD)
}

fn probe_debug(ring: Ring, control: &DebugControl) -> Finding {
    let result = Probe::new(ring, control.int3).and_then(|probe| probe.run(control));
    match result.map(|end| end.outcome) {
        Ok(Outcome::Debug) => Finding::Traps,
        Ok(Outcome::EmulationFailure) => Finding::FailsToEmulate,
        Ok(Outcome::RanOn) => Finding::Missed,
        Ok(Outcome::Hung) => Finding::Failed("the probe VM hung".into()),
        Err(error) => Finding::Failed(format!("{error}: {}", error.source)),
    }
}

/// What an exit of a probe means.
fn judge(exit: &Exit<'_>) -> Option<Outcome> {
    match exit {
        Exit::Debug(_) => Some(Outcome::Debug),
        Exit::InternalError(error) if error.is_emulation() => Some(Outcome::EmulationFailure),
        Exit::Interrupted => Some(Outcome::Hung),
        Exit::Again => None,
        // The guest reached its end, or died of an exception it had no handler for.
        _ => Some(Outcome::RanOn),
    }
}
