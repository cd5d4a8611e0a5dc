//! A trace that continues without its gdb (`set disconnected-tracing on`).
//!
//! The guest is then run as for gdb, with nothing but the tracepoints planted, and
//! an event that would be a stop for gdb is none. The end of the trace releases
//! the guest, as the departure of gdb does otherwise; the frames are kept for the
//! next gdb.

use super::Session;
use super::clients::log_failure;
use super::guest::Guest;
use super::state::Action;
use super::stop::{Reason, Stop};
use crate::target::Attachment;
use crate::trace::Status;

impl Session<'_> {
    /// Whether the trace continues when gdb leaves.
    pub(super) fn trace_outlives_gdb(&self) -> bool {
        self.trace.disconnected && self.trace.is_running()
    }

    /// Stops the guest where nobody is to be told. Events until then are handled:
    /// the trace misses nothing.
    pub(super) fn halt_unnoticed(&mut self) {
        self.interrupt();
        if matches!(self.stop, Some(Stop::At(..))) {
            self.stop = None;
        }
    }

    /// Lets the guest run, and the trace continue, without gdb and all that it has
    /// planted.
    pub(super) fn leave_tracing(&mut self) {
        self.guest.machine.attachment(Attachment::Tracing);
        let Guest {
            breakpoints,
            machine,
            ..
        } = &mut self.guest;
        log_failure("restore the guest's code", breakpoints.keep_traced(machine));
        self.release_devices();
        self.forget_all_but_vcpus();
        self.vcpus.forget_all_but_tracing();
        self.run_unattended();
    }

    pub(super) fn run_unattended(&mut self) {
        self.start(vec![Action::Continue; self.guest.machine.vcpu_count()]);
        self.after_unattended();
    }

    /// Continues after the guest's events while the trace has nobody attached.
    pub(super) fn after_unattended(&mut self) {
        match self.stop.take() {
            None if self.trace.is_running() || self.runs_to_kernel() => {}
            None => self.let_go(),
            Some(stop @ Stop::Exited(_)) => self.stop = Some(stop),
            Some(Stop::At(vcpu, reason)) => {
                if !self.trace.is_running() {
                    return self.after_run_to_kernel(reason);
                }
                let why = match reason {
                    Reason::Reset => "the guest was reset",
                    Reason::Crash => "the guest crashed",
                    Reason::Refused => "the guest could not be resumed",
                    // The vCPU hit it before gdb left: it is past it.
                    _ => return self.run_unattended(),
                };
                tracing::warn!("gdb's trace ends at {vcpu}: {why}");
                self.end_trace(Status::Error(why.to_owned(), 0));
                self.let_go();
            }
        }
    }

    /// Continues after a stop of a guest that was to run to where the kernel has found its
    /// place.
    fn after_run_to_kernel(&mut self, reason: Reason) {
        match reason {
            Reason::Reset => self.run_unattended(),
            Reason::Refused => self.let_go(),
            _ => self.hold_for_gdb(),
        }
    }

    /// Ends a trace that has nobody attached, for the server ends too.
    pub(crate) fn abandon_trace(&mut self) {
        if self.is_running() && self.exited.is_none() {
            self.halt_unnoticed();
            self.end_trace(Status::Stopped);
            self.let_go();
        }
    }

    /// The guest runs on as if there had never been a debugger.
    fn let_go(&mut self) {
        self.halt_and_note();
        self.run = None;
        self.guest
            .machine
            .attachment(Attachment::Left { crashed: false });
        if self.exited.is_none() {
            self.release_guest();
        }
    }
}

#[cfg(test)]
#[path = "disconnected_test.rs"]
mod tests;
