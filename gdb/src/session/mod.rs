//! One guest under the debugger: what gdb is told and what it has asked for.
//!
//! [`Session`] is gdbstub's target. It outlives its clients: the server attaches
//! and detaches them. gdbstub calls it for every packet (`base`, `points`,
//! `resume`); the server calls it for the guest's events (`events`); what happens
//! between a resume and a stop is in `run`.
//!
//! # All-stop
//!
//! gdb sees a stopped guest or a running one, nothing between. Several vCPUs may
//! have stopped by the time all are paused, and gdb is told of one: of the vCPU
//! that was passed over most often, so that none starves. What becomes of the
//! others:
//!
//! - A breakpoint, either kind: nothing is remembered. The instruction has not
//!   run, so that the vCPU meets the breakpoint again when it goes on, if it is
//!   still there by then, and reports it then.
//! - An int3 that is not for gdb (the guest's own, or planted for another virtual
//!   address of the byte): kept, and dealt with at the vCPU's next resume. Left to
//!   be met again it could starve the vCPU, were it to lose each time.
//! - A finished single step: gdb's request ended with the stop it was told of.
//! - A watchpoint or a trapped access: it is done and will not come again, so that it is kept
//!   and reported at the vCPU's next resume, if gdb still watches.
//! - A crash: kept likewise.
//! - A vCPU that is to write to a protected page: nothing is remembered, as for a
//!   breakpoint.
//!
//! # Writing to a protected page
//!
//! The vCPU steps alone, with all pages open, as one does that leaves a breakpoint.
//! Each lone step has the pages open, for it may write too, and is compared with
//! what was there before.
//!
//! # Leaving a breakpoint
//!
//! A vCPU goes on from a breakpoint at its RIP without hitting it exactly when
//! gdb has been told of a stop of *this* vCPU at *this* RIP and it has not run
//! since (`reported`). Then the breakpoint is lifted, the vCPU steps alone while
//! the others are held, and the breakpoint is put back. In every other case the
//! breakpoint is hit: a vCPU that gdb was not told about must not skip one, and
//! neither must one whose RIP gdb has moved to one. That a breakpoint is newly
//! planted means nothing, because gdb takes all of them out at every stop and
//! plants them again at every resume. (gdb itself steps off breakpoints by taking
//! them out; the rule is for clients that do not, and agrees with those that do.)

mod base;
mod clients;
mod described;
mod disconnected;
mod events;
mod files;
mod halved;
mod int3;
mod memory;
mod place;
mod points;
mod queries;
mod resume;
mod run;
mod steps;
mod trace_requests;
mod tracepoints;
mod translate;
mod watch;
mod while_stepping;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;

use crate::arch::{Arch, Description};
use crate::breakpoints::{Breakpoints, WatchKind};
use crate::error::chain;
use crate::inspect::Trap;
use crate::linux::Linux;
use crate::machine::Machine;
use crate::target::{Target, VcpuId, VirtAddr};
use crate::trace::{FileCopy, Trace};

use self::described::Described;
use self::int3::Unserved;
use self::place::Place;
use self::resume::Request;
use self::run::Run;
use self::tracepoints::TraceError;

/// Notices kept for the user until they can be shown.
const MAX_NOTICES: usize = 32;

/// The guest and the client's view of it.
pub(crate) struct Session<'t> {
    pub(crate) machine: Machine<'t>,
    pub(crate) breakpoints: Breakpoints,
    pub(crate) linux: Linux,
    place: Place,
    attached: bool,
    described: Cell<Described>,
    /// The vCPU that gdb looks at: the one that stopped last.
    focus: VcpuId,
    /// The vCPU whose state gdb last asked for since the guest stopped: the one
    /// that the user has selected, for `thread N` reads where it stands.
    asked_for: Cell<Option<VcpuId>>,
    /// gdb's memory accesses are by physical address, until the guest goes on:
    /// gdb itself would take what it then reads for the stack.
    pub(crate) physical: bool,
    /// Whether devices stand still while the guest is stopped.
    pub(crate) devices: Devices,
    /// The devices of which it is noted what they write, by number.
    noted: BTreeSet<usize>,
    /// Accesses to devices that stop the guest.
    pub(crate) traps: Vec<Trap>,
    /// `None` while the guest is stopped.
    run: Option<Run>,
    request: Request,
    /// For each vCPU the RIP of the stop that gdb was told of, until it runs.
    reported: Vec<Option<u64>>,
    /// For each vCPU the RIP of a tracepoint that it has collected for and not
    /// executed yet.
    collected: Vec<Option<u64>>,
    trace: Trace,
    /// What gdb knew when it defined the tracepoints: their expressions name
    /// registers by number.
    traced: Description,
    /// What becomes of the packet that gdbstub is given next.
    trace_answer: Result<(), TraceError>,
    /// What gdb reads of its trace piece by piece: the rest.
    trace_uploads: VecDeque<String>,
    /// Where gdb is in its copy of the frames.
    trace_copy: FileCopy,
    /// Stops that gdb was not told of and that will not come again.
    pending: Vec<Option<Reason>>,
    /// How many times in a row the hit of a vCPU was passed over for another's.
    missed: Vec<u32>,
    /// Int3s that are not for gdb, of vCPUs that have yet to be let past them.
    unserved: Vec<Option<Unserved>>,
    /// Why a vCPU cannot go on.
    crashes: Vec<Option<String>>,
    /// A stop that gdb must be told of next.
    stop: Option<Stop>,
    /// The guest is gone, with this exit status.
    exited: Option<u8>,
    /// Where the user knows that one ring only can hit a breakpoint.
    warned: BTreeSet<VirtAddr>,
    /// The user knows that the guest has breakpoints of its own.
    warned_of_own: bool,
    /// Text for the user, shown as soon as the protocol allows.
    notices: Vec<String>,
}

/// What the virtio devices do while the guest is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// The user wants them to stand still.
    pub wanted: bool,
    /// They do.
    paused: bool,
}

/// What gdb is told when the guest stops.
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
    /// The guest could not be resumed at all.
    Refused,
}

impl<'t> Session<'t> {
    pub fn new(target: &'t mut dyn Target) -> Self {
        let linux = Linux::new(target.symbols());
        let machine = Machine::new(target);
        let count = machine.vcpu_count();
        Self {
            machine,
            breakpoints: Breakpoints::default(),
            linux,
            place: Place::default(),
            attached: false,
            described: Cell::default(),
            focus: VcpuId(0),
            asked_for: Cell::new(None),
            physical: false,
            devices: Devices::default(),
            noted: BTreeSet::new(),
            traps: Vec::new(),
            run: None,
            request: Request::default(),
            reported: vec![None; count],
            collected: vec![None; count],
            trace: Trace::default(),
            traced: Description::default(),
            trace_answer: Ok(()),
            trace_uploads: VecDeque::new(),
            trace_copy: FileCopy::default(),
            pending: vec![None; count],
            missed: vec![0; count],
            unserved: vec![None; count],
            crashes: vec![None; count],
            stop: None,
            exited: None,
            warned: BTreeSet::new(),
            warned_of_own: false,
            notices: Vec::new(),
        }
    }

    /// The exit status, once the guest is gone.
    pub fn exited(&self) -> Option<u8> {
        self.exited
    }

    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Has the devices do what the user wants of them while the guest is stopped.
    pub(crate) fn pause_devices(&mut self, pause: bool) -> crate::target::Result<()> {
        if pause != self.devices.paused {
            self.machine.inspect().pause_devices(pause)?;
            self.devices.paused = pause;
        }
        Ok(())
    }

    /// Has what a device writes noted for as long as gdb is there.
    pub(crate) fn note_writes(&mut self, device: usize, wanted: bool) -> crate::target::Result<()> {
        self.machine.inspect().note_writes(device, wanted)?;
        match wanted {
            true => self.noted.insert(device),
            false => self.noted.remove(&device),
        };
        Ok(())
    }

    /// The stop that gdb is to be told of, once.
    pub fn take_stop(&mut self) -> Option<Stop> {
        self.stop.take()
    }

    /// Text for gdb's console, once. Only to be shown while gdb waits for the
    /// guest or for a monitor command: at other times it takes it for an answer.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Tells the user, and the log for those who do not see gdb's console.
    fn notice(&mut self, text: String) {
        if self.attached || self.is_running() {
            tracing::warn!("gdb: {text}");
        }
        if !self.attached {
            return;
        }
        if self.notices.len() < MAX_NOTICES && self.notices.last() != Some(&text) {
            self.notices.push(text);
        }
    }

    /// Where a stopped vCPU stands.
    fn rip(&self, vcpu: VcpuId) -> Option<u64> {
        Some(self.machine.registers(vcpu).ok()?.rip)
    }

    /// Notes that gdb knows where `vcpu` stands.
    fn mark_reported(&mut self, vcpu: VcpuId) {
        let rip = self.rip(vcpu);
        if let Some(reported) = self.reported.get_mut(vcpu.0) {
            *reported = rip;
        }
    }

    /// The vCPU that gdb means.
    fn vcpu(&self, tid: Tid) -> Option<VcpuId> {
        let index = tid.get() - 1;
        (index < self.machine.vcpu_count()).then_some(VcpuId(index))
    }

    /// Why `vcpu` cannot go on, if it cannot.
    pub(crate) fn crash(&self, vcpu: VcpuId) -> Option<&str> {
        self.crashes.get(vcpu.0)?.as_deref()
    }

    /// Forgets that `vcpu` crashed.
    fn mend(&mut self, vcpu: VcpuId) {
        self.crashes[vcpu.0] = None;
        if self.pending[vcpu.0] == Some(Reason::Crash) {
            self.pending[vcpu.0] = None;
        }
    }

    pub(crate) fn focus(&self) -> VcpuId {
        self.focus
    }

    /// The vCPU that the user most likely means, where nobody says which.
    pub(crate) fn looked_at(&self) -> VcpuId {
        self.asked_for.get().unwrap_or(self.focus)
    }
}

/// gdb's number for a vCPU: threads count from 1.
fn tid(vcpu: VcpuId) -> Tid {
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

impl gdbstub::target::Target for Session<'_> {
    type Arch = Arch;
    /// Nothing that goes wrong on the guest's side ends the client's session.
    type Error = Infallible;

    fn base_ops(&mut self) -> gdbstub::target::ext::base::BaseOps<'_, Self::Arch, Self::Error> {
        gdbstub::target::ext::base::BaseOps::MultiThread(self)
    }

    fn support_breakpoints(
        &mut self,
    ) -> Option<gdbstub::target::ext::breakpoints::BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_tracepoints(
        &mut self,
    ) -> Option<gdbstub::target::ext::tracepoints::TracepointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(
        &mut self,
    ) -> Option<gdbstub::target::ext::monitor_cmd::MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_exec_file(
        &mut self,
    ) -> Option<gdbstub::target::ext::exec_file::ExecFileOps<'_, Self>> {
        Some(self)
    }

    fn support_host_io(&mut self) -> Option<gdbstub::target::ext::host_io::HostIoOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<
        gdbstub::target::ext::target_description_xml_override::TargetDescriptionXmlOverrideOps<
            '_,
            Self,
        >,
    > {
        Some(self)
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
