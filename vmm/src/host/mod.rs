//! The abilities of this host's KVM, found out by tiny probe VMs.
//!
//! KVM's capability bits do not tell hosts apart: KVM_CAP_SET_GUEST_DEBUG is
//! there on every kind, whatever traps. Each probe runs a few instructions in
//! ring 0 or ring 3 with one debug facility armed, and looks at the exit.

mod kind;
mod probe;
mod report;

use std::io;
use std::sync::OnceLock;

use gdb::target::{HW_SLOTS, HostTraps, HwBreakpoint, HwKind, HwSlots, Int3, Traps, VirtAddr};

pub use kind::can_run_linux;
pub use report::print;

use crate::kvm::{Error, failed};
use crate::kvm_device;
use crate::vcpu::debug_events::control::{Facilities, HostDebug, Int3Delivery};
use crate::vcpu::debug_events::slots::DebugSlots;
use crate::vcpu::x86_64::tsc;
use probe::{Outcome, Probe, Ring};

/// The effect of a debug facility in a probe VM.
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

/// The effect of the facilities at one privilege level.
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
            step: probe_debug(
                ring,
                &Facilities {
                    trap: true,
                    ..Default::default()
                },
            ),
            int3: probe_debug(ring, &INT3),
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

/// Int3 intercepted.
const INT3: Facilities = Facilities {
    slots: DebugSlots::NONE,
    int3: true,
    trap: false,
    block_interrupts: false,
};

fn slot(addr: u64, len: u8, kind: HwKind) -> Facilities {
    let breakpoint = HwBreakpoint {
        addr: VirtAddr(addr),
        len,
        kind,
    };
    let mut slots: HwSlots = [None; HW_SLOTS];
    slots[0] = Some(breakpoint);
    Facilities {
        slots: DebugSlots::of(&slots),
        ..Default::default()
    }
}

/// The facts about this host that a debugger needs.
#[derive(Clone, Copy, Debug)]
pub struct Debugging {
    pub traps: HostTraps,
    pub events: HostDebug,
}

/// Probes the host for them.
pub fn debugging() -> Debugging {
    let [ring0, ring3] = [Ring::Kernel, Ring::User].map(|ring| Findings::of(ring).traps());
    Debugging {
        traps: HostTraps { ring0, ring3 },
        events: HostDebug {
            breaks: [ring0.hw_breakpoint, ring3.hw_breakpoint],
            honours_rf: honours_rf(),
            delivery: int3_delivery(),
        },
    }
}

/// Whether RF keeps an instruction breakpoint from firing. If KVM cannot be asked, it is
/// trusted.
fn honours_rf() -> bool {
    let breakpoint = slot(probe::START, 1, HwKind::Execute);
    let outcome = Probe::with_rf().and_then(|probe| probe.run(&breakpoint));
    !matches!(outcome, Ok(Outcome::Debug))
}

/// How the guest's own int3 gets to its handler when it is intercepted. If KVM cannot be
/// asked, it is trusted.
fn int3_delivery() -> Int3Delivery {
    let is_right = |delivery| saved_rip(delivery).map(|rip| rip == probe::BEHIND_INT3);
    for delivery in [Int3Delivery::Inject, Int3Delivery::Events] {
        match is_right(delivery) {
            Ok(true) => return delivery,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!("no probe of int3 delivery: {error}: {}", error.source);
                return Int3Delivery::default();
            }
        }
    }
    Int3Delivery::Wrong
}

/// The RIP that the handler finds saved. 0 where int3 is not intercepted.
fn saved_rip(delivery: Int3Delivery) -> Result<u64, Error> {
    Probe::new(Ring::Kernel, true)?.deliver_int3(&INT3, delivery)
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

fn probe_debug(ring: Ring, facilities: &Facilities) -> Finding {
    let result = Probe::new(ring, facilities.int3).and_then(|probe| probe.run(facilities));
    match result {
        Ok(Outcome::Debug) => Finding::Traps,
        Ok(Outcome::EmulationFailure) => Finding::FailsToEmulate,
        Ok(Outcome::RanOn) => Finding::Missed,
        Ok(Outcome::Hung) => Finding::Failed("the probe VM hung".into()),
        Err(error) => Finding::Failed(format!("{error}: {}", error.source)),
    }
}
