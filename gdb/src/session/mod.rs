//! One guest under the debugger: gdb's requests and the answers to them.
//!
//! [`Session`] is gdbstub's target. It outlives its clients: the server attaches
//! and detaches them. gdbstub calls it for every packet (`base`, `points`,
//! `resume`); the server calls it for the guest's events (`events`); `run` has
//! the time between a resume and a stop.
//!
//! Three layers, each of which knows those below it alone:
//!
//! | layer | what it does |
//! |---|---|
//! | the session's methods, a file a topic | decide what the parts do together |
//! | [`state`] | the parts of its state, each with its rules, among them what is remembered of each vCPU |
//! | [`guest`] | the machine, what is planted in it and what is known of its kernel; `memory`, `translate`, `halved` work on that alone |
//!
//! # All-stop
//!
//! gdb sees a stopped guest or a running one, nothing between. Several vCPUs may
//! have stopped by the time all are paused, and gdb is told of one: of the vCPU
//! that was passed over most often, so that none starves. The others are treated
//! as follows:
//!
//! - A breakpoint, either kind: nothing is remembered. The instruction has not
//!   run, so the vCPU hits the breakpoint again when it resumes, if it is still
//!   there by then, and reports it then.
//! - An int3 that is not for gdb (the guest's own, or planted for another virtual
//!   address of the byte): kept, and handled at the vCPU's next resume. If it had
//!   to be hit again, the vCPU could starve by losing each time.
//! - A finished single step: gdb's request ended with the stop it was told of.
//! - A watchpoint or a trapped access: it is done and will not come again, so it is kept and
//!   reported at the vCPU's next resume, if gdb still watches.
//! - A crash: kept likewise.
//! - A vCPU that is to write to a protected page: nothing is remembered, as for a
//!   breakpoint.
//!
//! # Writing to a protected page
//!
//! The vCPU steps alone, with all pages open, as one does that leaves a breakpoint.
//! Each lone step has the pages open, for it may write too, and memory is compared
//! before and after it.
//!
//! # Leaving a breakpoint
//!
//! A vCPU resumes from a breakpoint at its RIP without hitting it exactly when
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
mod extensions;
mod files;
mod guest;
mod halved;
mod inquiries;
mod int3;
mod libraries;
mod memory;
mod place;
mod points;
mod programs;
mod queries;
mod reads;
mod refusal;
mod resume;
mod run;
mod state;
mod steps;
mod stop;
mod trace_requests;
mod tracepoints;
mod translate;
mod view;
mod watch;
mod while_stepping;

pub(crate) use self::stop::Stop;

use self::guest::Guest;
use self::state::{
    Console, Described, DeviceControl, Place, Request, Run, Selection, TraceDialog, Vcpus,
};
use crate::address::VcpuId;
use crate::target::Target;
use crate::trace::Trace;

/// The guest and the client's view of it.
///
/// Each part keeps its own rules ([`state`]); the methods here decide what they
/// do together.
pub(crate) struct Session<'t> {
    pub(crate) guest: Guest<'t>,
    vcpus: Vcpus,
    console: Console,
    pub(crate) selection: Selection,
    described: Described,
    place: Place,
    /// The settings of gdb's user for the devices.
    pub(crate) devices: DeviceControl,
    trace: Trace,
    trace_dialog: TraceDialog,
    request: Request,
    /// `None` while the guest is stopped.
    run: Option<Run>,
    /// A stop that gdb must be told of next.
    stop: Option<Stop>,
    /// Why the breakpoint that gdb has just asked for is refused.
    refusal: Option<String>,
    /// The guest is gone, with this exit status.
    exited: Option<u8>,
}

impl<'t> Session<'t> {
    pub fn new(target: &'t mut dyn Target) -> Self {
        let guest = Guest::new(target);
        let vcpus = Vcpus::new(guest.machine.vcpu_count());
        Self {
            guest,
            vcpus,
            console: Console::default(),
            selection: Selection::default(),
            described: Described::default(),
            place: Place::default(),
            devices: DeviceControl::default(),
            trace: Trace::default(),
            trace_dialog: TraceDialog::default(),
            request: Request::default(),
            run: None,
            stop: None,
            refusal: None,
            exited: None,
        }
    }

    /// The exit status, once the guest is gone.
    pub fn exited(&self) -> Option<u8> {
        self.exited
    }

    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// The stop that gdb is to be told of, once.
    pub fn take_stop(&mut self) -> Option<Stop> {
        self.stop.take()
    }

    /// Text for gdb's console, once. Only to be shown while gdb waits for the
    /// guest or for a monitor command: at other times it takes it for an answer.
    pub fn take_notices(&mut self) -> Vec<String> {
        self.console.take()
    }

    /// Text that the user's commands have printed, once; to be shown likewise.
    pub fn take_printed(&mut self) -> String {
        self.console.take_printed()
    }

    /// Whether the client expects of `monitor` what QEMU's says.
    pub fn reads_as_qemu(&self) -> bool {
        self.console.reads_as_qemu()
    }

    /// Tells the user, and the log for those who do not see gdb's console.
    fn notice(&mut self, text: String) {
        if self.console.is_attached() || self.is_running() {
            tracing::warn!("gdb: {text}");
        }
        self.console.add(text);
    }

    /// Refuses a breakpoint, and keeps the reason for the answer.
    fn refuse_point(&mut self, what: &str, addr: u64, why: &str) {
        let text = format!("{what} at {addr:#x} refused: {why}");
        self.refusal = Some(text.clone());
        self.notice(text);
    }

    /// Why the packet that was just answered is refused, if the user sees it in the answer:
    /// then no notice says it again.
    pub fn take_refusal(&mut self, shown: bool) -> Option<String> {
        let refusal = self.refusal.take().filter(|_| shown)?;
        self.console.retract(&refusal);
        Some(refusal)
    }

    /// Notes that gdb knows where `vcpu` stands.
    fn mark_reported(&mut self, vcpu: VcpuId) {
        let rip = self.guest.rip(vcpu);
        if let Some(state) = self.vcpus.get_mut(vcpu) {
            state.mark_reported(rip);
        }
    }

    /// The vCPU that gdb means.
    fn vcpu(&self, tid: gdbstub::common::Tid) -> Option<VcpuId> {
        let index = tid.get() - 1;
        (index < self.guest.machine.vcpu_count()).then_some(VcpuId(index))
    }

    /// Why `vcpu` cannot resume, if it cannot.
    pub(crate) fn crash(&self, vcpu: VcpuId) -> Option<&str> {
        self.vcpus.get(vcpu)?.crash()
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
