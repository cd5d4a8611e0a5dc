//! A vCPU that collects, and how it stands with the trace then.

use crate::address::VcpuId;
use crate::agent::Vcpu;
use crate::arch::Registers;

/// A vCPU where it collects.
pub(crate) struct Hit<'a> {
    pub vcpu: VcpuId,
    pub registers: &'a Registers,
    pub view: &'a dyn Vcpu,
}

/// How it stands with the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// There was none yet.
    #[default]
    NotRun,
    Running,
    /// gdb's `tstop`.
    Stopped,
    Full,
    /// This tracepoint was hit as often as was asked for.
    PassCount(usize),
    /// What went wrong, and at which tracepoint; 0 for none.
    Error(String, usize),
}
