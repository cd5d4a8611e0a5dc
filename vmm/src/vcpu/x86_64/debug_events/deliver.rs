//! Giving the guest the exceptions that are its own.

use kvm_bindings::{KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_INJECT_DB};

use super::control::Int3Delivery;
use super::place::Place;
use super::verdict::dr6;
use crate::kvm::{Error, failed};

/// Vector of #BP.
const BREAKPOINT: u8 = 3;
/// Length of int3 in bytes.
const INT3_LEN: u64 = 1;

/// An exception that the guest gets when it resumes. KVM does not keep one
/// while registers are written, so it is kept here until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// #DB, with these bits set in DR6.
    Debug { dr6: u64 },
    /// #BP of the int3 at RIP.
    Breakpoint,
}

/// Prepares the delivery; returns the additional flags for KVM_SET_GUEST_DEBUG.
pub fn prepare(place: Place<'_>, owed: Owed, delivery: Int3Delivery) -> Result<u32, Error> {
    match (owed, delivery) {
        (Owed::Debug { dr6 }, _) => set_dr6(place, dr6).map(|()| KVM_GUESTDBG_INJECT_DB),
        (Owed::Breakpoint, Int3Delivery::Inject | Int3Delivery::Wrong) => {
            Ok(KVM_GUESTDBG_INJECT_BP)
        }
        (Owed::Breakpoint, Int3Delivery::Events) => set_breakpoint_event(place).map(|()| 0),
    }
}

/// A debug exception sets its bits in DR6 and leaves the others, but for those of the
/// slots (SDM volume 3, 19.2.3).
fn set_dr6(place: Place<'_>, bits: u64) -> Result<(), Error> {
    let fd = place.fd;
    let mut registers = fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?;
    registers.dr6 = registers.dr6 & !dr6::SLOTS | bits;
    fd.set_debug_regs(&registers)
        .map_err(failed("KVM_SET_DEBUGREGS"))
}

fn set_breakpoint_event(place: Place<'_>) -> Result<(), Error> {
    place.skip(INT3_LEN)?;
    let fd = place.fd;
    let mut events = fd
        .get_vcpu_events()
        .map_err(failed("KVM_GET_VCPU_EVENTS"))?;
    events.exception.injected = 1;
    events.exception.nr = BREAKPOINT;
    events.exception.has_error_code = 0;
    fd.set_vcpu_events(&events)
        .map_err(failed("KVM_SET_VCPU_EVENTS"))
}
