//! The virtual machine as the debugger needs it.
//!
//! The VMM implements [`Target`]; the session calls it from the gdb thread only.
//! Nothing here names a KVM structure. Every method that touches a vCPU's
//! registers requires that vCPU to be stopped.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use crate::address::{PhysAddr, VcpuId, VirtAddr};
use crate::arch::Registers;
pub use crate::error::{Result, TargetError};
use crate::inspect::Inspect;
use crate::symbol_file::SymbolFile;

/// The event that a hardware breakpoint slot waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HwKind {
    Execute,
    Write,
    /// Read or write: x86 has no read-only watch (SDM volume 3, 18.2.4).
    Access,
}

/// One hardware breakpoint or watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwBreakpoint {
    pub addr: VirtAddr,
    /// In bytes: 1, 2, 4 or 8; 1 for `Execute`.
    pub len: u8,
    pub kind: HwKind,
}

/// Number of hardware slots (DR0 to DR3).
pub const HW_SLOTS: usize = 4;

/// The hardware slots, the same on every vCPU.
pub type HwSlots = [Option<HwBreakpoint>; HW_SLOTS];

/// How one vCPU resumes at [`Target::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    Continue,
    /// One instruction, then [`StopReason::Step`]. The handler of an exception that comes
    /// into it is run through (see [`crate::arch::step`]).
    Step,
    /// Continues the step that an earlier resume began and [`Target::pause`] interrupted.
    FinishStep,
    /// Stays stopped (scheduler locking).
    Hold,
}

/// How a host kind reports the execution of an int3 that gdb planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int3 {
    /// It exits as a debug exception, or as an emulation failure at the byte;
    /// the VMM reports both as [`StopReason::Int3`].
    Trapped,
    /// It is delivered to the guest: never plant one.
    GoesToGuest,
}

/// The facilities that this host's KVM traps at one privilege level, found by a probe VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traps {
    pub step: bool,
    pub int3: Int3,
    pub hw_breakpoint: bool,
    pub watchpoint: bool,
}

/// The probe's findings for kernel (ring 0) and user (ring 3) code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTraps {
    pub ring0: Traps,
    pub ring3: Traps,
}

/// Why a vCPU stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The single step asked for is done. A breakpoint where it ends has not fired.
    Step,
    /// An int3 is about to run at the current RIP (RIP points at the byte).
    /// The session decides whether it planted it or the guest owns it.
    Int3,
    /// Hardware slots in `hit` (bit n = slot n) fired.
    Hardware { hit: u8 },
    /// The instruction at RIP is about to write to a page that [`Target::watch`]
    /// protects, or to do something that needs the page unprotected. Nothing of
    /// the instruction has run.
    Protected,
    /// An instruction that the hypervisor emulated has changed RAM that
    /// [`Target::watch`] watches. It is done.
    Changed(Change),
    /// An access that [`Inspect::set_traps`] asked for is done. The text is for the
    /// user.
    Trap(String),
    /// The write that [`Inspect::trap_gs_base`] asked for is done.
    GsBase,
    /// The guest cannot resume: triple fault, KVM error. The text is for the user.
    Crashed(String),
}

/// Bytes of RAM that the guest has changed; the first of them differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub addr: PhysAddr,
    pub old: Vec<u8>,
    /// As many as `old`.
    pub new: Vec<u8>,
}

/// An event while the guest ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One vCPU stopped; the others may still run until [`Target::pause`].
    Stopped(VcpuId, StopReason),
    /// The guest is gone: powered off or ended by the VMM, with this exit status.
    Exited(u8),
    /// The guest was reset: memory and registers are new, nothing planted is left.
    Reset,
}

/// A gdb comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    Attached,
    /// It leaves; `crashed`: the guest has crashed, and nothing has repaired it.
    Left {
        crashed: bool,
    },
    /// It leaves, and its trace continues: the debugger still stops vCPUs and resumes
    /// them, but a crash is not kept. [`Attachment::Left`] follows.
    Tracing,
    /// It asked for the guest's end (`kill`), and may: the guest stays stopped.
    Killed,
}

/// The activity of a vCPU when it was stopped, for `info threads`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Running,
    /// In HLT, waiting for an interrupt.
    Halted,
    /// An application processor that still waits for its start-up interrupt.
    NotStarted,
}

/// RAM by guest-physical address, for any thread.
pub trait SharedMemory: Send + Sync {
    /// As [`Target::read_physical`].
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()>;
}

/// The virtual machine as the debugger drives it.
///
/// Stopping is all-or-nothing: after [`Target::pause`] returns, no vCPU runs
/// guest code and each has finished its pending I/O exit.
pub trait Target: Inspect + Send {
    /// Number of vCPUs; constant.
    fn vcpu_count(&self) -> usize;

    /// Stops every vCPU; returns once all of them are stopped. Idempotent.
    fn pause(&mut self) -> Result<()>;

    /// Resumes vCPUs, `actions[n]` for vCPU n (`actions.len() == vcpu_count()`).
    fn resume(&mut self, actions: &[Resume]) -> Result<()>;

    /// Registers of a stopped vCPU.
    fn registers(&mut self, vcpu: VcpuId) -> Result<Registers>;

    /// The activity of a stopped vCPU. A VMM that cannot tell returns `Running`.
    fn activity(&mut self, _vcpu: VcpuId) -> Result<Activity> {
        Ok(Activity::Running)
    }

    /// Writes the registers of a stopped vCPU.
    fn set_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<()>;

    /// Reads RAM at a guest-physical address; all of `buf` or an error.
    /// Device memory is never read: it can have side effects.
    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()>;

    /// RAM as any thread may read it, while the guest runs too.
    fn memory(&self) -> Arc<dyn SharedMemory>;

    /// Writes RAM at a guest-physical address; all of `data` or an error.
    fn write_physical(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()>;

    /// Arms the trapping facilities on every vCPU for the next `resume`:
    /// the hardware slots, and whether planted int3s are to be intercepted.
    /// All empty and false means no guest-debug flag is left set.
    fn arm(&mut self, slots: &HwSlots, int3: bool) -> Result<()>;

    /// Watches exactly these ranges of RAM for changes by the guest, by
    /// write-protecting their pages: a vCPU that is to write to one stops, with
    /// [`StopReason::Protected`] or [`StopReason::Changed`]. Every vCPU is stopped.
    fn watch(&mut self, ranges: &[Range<PhysAddr>]) -> Result<()> {
        match ranges {
            [] => Ok(()),
            _ => Err(TargetError::Unsupported("write-protected pages")),
        }
    }

    /// Delivers the breakpoint exception (#BP) of the guest's own int3 at RIP
    /// to the guest at the next `resume`. A step then ends in its handler.
    fn inject_int3(&mut self, vcpu: VcpuId) -> Result<()>;

    /// The host's trapping abilities; the first call may probe.
    fn host_traps(&mut self) -> HostTraps;

    /// Called when a gdb attaches and when it has left, in whatever way. While
    /// one is attached, a guest that crashes is kept for it to look at.
    fn attachment(&mut self, _attachment: Attachment) {}

    /// The file with the guest's symbols, if the VMM has one: the kernel that was
    /// booted, or the user's choice. May change with [`Event::Reset`].
    fn symbols(&self) -> Option<Arc<SymbolFile>> {
        None
    }

    /// Readable while [`Target::next_event`] has something.
    fn event_fd(&self) -> BorrowedFd<'_>;

    /// Takes the oldest event, if there is one; never waits.
    fn next_event(&mut self) -> Option<Event>;
}
