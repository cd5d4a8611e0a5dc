//! The stop that gdb is told of.

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;

use crate::address::{VcpuId, VirtAddr};
use crate::breakpoints::WatchKind;

/// The stop that gdb is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    At(VcpuId, Reason),
    Exited(u8),
}

/// Why a vCPU stopped, as gdb sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Software,
    Hardware,
    Watch {
        addr: VirtAddr,
        kind: WatchKind,
    },
    Step,
    /// An access to a device that the user has trapped.
    Trap,
    Interrupt,
    Crash,
    Reset,
    /// There are other modules than gdb knows. It reads the list and resumes by itself.
    Library,
    /// The guest could not be resumed at all.
    Refused,
}

impl Reason {
    /// Whether it happens once: a vCPU that resumes does not stop for it again.
    pub fn comes_once(self) -> bool {
        matches!(self, Reason::Watch { .. } | Reason::Trap | Reason::Crash)
    }
}

/// gdb's number for a vCPU: threads count from 1.
pub(super) fn tid(vcpu: VcpuId) -> Tid {
    Tid::MIN.saturating_add(vcpu.0)
}

impl Stop {
    /// In gdbstub's terms; the forms that name the thread.
    pub fn to_gdb(&self) -> MultiThreadStopReason<u64> {
        use MultiThreadStopReason as Gdb;
        match *self {
            Stop::Exited(status) => Gdb::Exited(status),
            Stop::At(vcpu, reason) => {
                let tid = tid(vcpu);
                let signal = |signal| Gdb::SignalWithThread { tid, signal };
                match reason {
                    Reason::Software => Gdb::SwBreak(tid),
                    Reason::Hardware => Gdb::HwBreak(tid),
                    Reason::Library => Gdb::Library(tid),
                    Reason::Watch { addr, kind } => Gdb::Watch {
                        tid,
                        kind: kind.into(),
                        addr: addr.0,
                    },
                    Reason::Step | Reason::Trap | Reason::Reset => signal(Signal::SIGTRAP),
                    Reason::Interrupt => signal(Signal::SIGINT),
                    Reason::Crash => signal(Signal::SIGABRT),
                    // Not SIGTRAP: gdb would take it for a step and step again.
                    Reason::Refused => signal(Signal::SIGZERO),
                }
            }
        }
    }
}
