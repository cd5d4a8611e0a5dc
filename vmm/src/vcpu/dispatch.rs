//! Exit in, entry out: routing and nothing else.

use devices::bus::{AccessError, Bus};
use gdb::target::{Change, StopReason};

use super::exit::{self, Exit, InternalError, MsrAccess};

/// The action of the vCPU thread after an exit.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// Enter the guest again.
    Enter,
    /// Access the register for the guest, then enter it again.
    Msr(MsrAccess),
    /// KVM_RUN ended early: look for requests.
    CheckRequests,
    /// Stop for gdb, when the access is done. Made by the vCPU thread, which knows
    /// the traps.
    Trapped(StopReason),
    /// Stop for gdb, when the access is done: it has changed watched RAM. Made by
    /// the vCPU thread, as above.
    Changed(Change),
    /// A debug facility fired.
    Debug(exit::Debug),
    /// The guest has crashed.
    Crash(Crash),
}

/// Why a guest has crashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crash {
    #[error("triple fault")]
    TripleFault,
    #[error("the processor refused to enter the guest (reason {reason:#x} on CPU {cpu})")]
    FailEntry { reason: u64, cpu: u32 },
    #[error("KVM internal error, sub-reason {} ({})", .0.suberror, suberror_name(.0.suberror))]
    Internal(InternalError),
    #[error("system event {kind} ({})", system_event_name(*.kind))]
    SystemEvent { kind: u32 },
    #[error("HLT outside the in-kernel interrupt controller")]
    Halt,
    #[error("unexpected exit, reason {reason} ({})", exit::unexpected_name(*.reason))]
    Unexpected { reason: u32 },
}

fn suberror_name(suberror: u32) -> &'static str {
    match suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "KVM cannot emulate the instruction",
        kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "two exceptions at once",
        kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "exit while delivering an event",
        kvm_bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "unexpected hardware exit",
        _ => "unknown",
    }
}

fn system_event_name(kind: u32) -> &'static str {
    match kind {
        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => "shutdown",
        kvm_bindings::KVM_SYSTEM_EVENT_RESET => "reset",
        kvm_bindings::KVM_SYSTEM_EVENT_CRASH => "crash",
        _ => "unknown",
    }
}

/// The two address spaces of devices.
#[derive(Debug, Default)]
pub struct Buses {
    pub pio: Bus,
    pub mmio: Bus,
}

/// Answers one exit. An access that no device takes reads as all-ones and
/// writes to nothing, as on a PC.
pub fn dispatch(exit: Exit<'_>, buses: &Buses) -> Entry {
    match exit {
        Exit::PioIn { port, width, data } => {
            for element in data.chunks_mut(width.max(1)) {
                answer_read(
                    buses.pio.read(port.into(), element),
                    "port",
                    port.into(),
                    element,
                );
            }
        }
        Exit::PioOut { port, width, data } => {
            for element in data.chunks(width.max(1)) {
                answer_write(
                    buses.pio.write(port.into(), element),
                    "port",
                    port.into(),
                    element,
                );
            }
        }
        Exit::MmioRead { addr, data } => {
            answer_read(buses.mmio.read(addr, data), "address", addr, data);
        }
        Exit::MmioWrite { addr, data } => {
            answer_write(buses.mmio.write(addr, data), "address", addr, data);
        }
        Exit::Msr(access) => return Entry::Msr(access),
        Exit::IrqWindowOpen | Exit::Again => {}
        Exit::Interrupted => return Entry::CheckRequests,
        Exit::Debug(debug) => return Entry::Debug(debug),
        Exit::Shutdown => return Entry::Crash(Crash::TripleFault),
        Exit::Hlt => return Entry::Crash(Crash::Halt),
        Exit::FailEntry { reason, cpu } => return Entry::Crash(Crash::FailEntry { reason, cpu }),
        Exit::InternalError(error) => return Entry::Crash(Crash::Internal(error)),
        Exit::SystemEvent { kind } => return Entry::Crash(Crash::SystemEvent { kind }),
        Exit::Unexpected { reason } => return Entry::Crash(Crash::Unexpected { reason }),
    }
    Entry::Enter
}

fn answer_read(result: Result<(), AccessError>, space: &str, addr: u64, data: &mut [u8]) {
    if let Err(error) = result {
        // Probing absent hardware is what every kernel does at boot: not worth
        // a line unless asked for, which also bounds what a guest can log.
        tracing::trace!(
            "guest read of {} bytes at {space} {addr:#x}: {error}",
            data.len()
        );
        data.fill(0xff);
    }
}

fn answer_write(result: Result<(), AccessError>, space: &str, addr: u64, data: &[u8]) {
    if let Err(error) = result {
        tracing::trace!("guest write of {data:02x?} at {space} {addr:#x}: {error}");
    }
}

#[cfg(test)]
#[path = "dispatch_test.rs"]
mod tests;
