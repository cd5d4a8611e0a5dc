//! How clients come and go.

use super::resume::Request;
use super::{Session, chain};
use crate::target::{Attachment, Resume, VcpuId};
use crate::trace::{FileCopy, Status, Trace};

impl Session<'_> {
    /// Stops the guest for a new client.
    pub fn attach(&mut self) {
        self.attached = true;
        self.machine.attachment(Attachment::Attached);
        match self.is_running() {
            true => self.halt_unnoticed(),
            false => self.halt_and_note(),
        }
        self.forget_description();
        self.linux.look_again(&self.machine);
        self.place.on_attach();
        let crashed = self.crashes.iter().position(Option::is_some);
        self.focus = VcpuId(crashed.unwrap_or(0));
        self.mark_reported(self.focus);
        if let Some(text) = self.crash(self.focus) {
            self.notice(format!("{} crashed: {text}", self.focus));
        }
    }

    /// Lets the guest run as if there had never been a debugger, unless a trace is to
    /// go on. Errors are logged: there is nobody left to tell, and every step is tried.
    pub fn detach(&mut self) {
        if self.exited.is_none() && self.trace_outlives_gdb() {
            self.halt_unnoticed();
        }
        if self.exited.is_none() {
            self.halt_and_note();
        }
        let crashed = self.crashes.iter().any(Option::is_some);
        if self.exited.is_none() && self.trace_outlives_gdb() && !crashed {
            return self.leave_tracing();
        }
        // Before the guest runs: a crash from now on is the VMM's to handle.
        self.machine.attachment(Attachment::Left { crashed });
        if self.exited.is_none() {
            self.release_guest();
        }
        self.forget_client();
    }

    /// Stops the guest for good, at gdb's wish. The VMM is told, and ends it.
    pub fn kill(&mut self) {
        self.halt_and_note();
        self.trace = Trace::default();
        self.forget_client();
        self.machine.attachment(Attachment::Killed);
    }

    /// Lets the guest run with nothing planted and nothing armed. A vCPU that
    /// crashed has nowhere to go.
    pub(super) fn release_guest(&mut self) {
        self.take_all_out();
        let action = |crash: &Option<String>| match crash {
            None => Resume::Continue,
            Some(_) => Resume::Hold,
        };
        let actions: Vec<_> = self.crashes.iter().map(action).collect();
        log_failure("resume the guest", self.machine.resume(&actions));
    }

    /// Leaves nothing planted and nothing armed.
    pub(super) fn take_all_out(&mut self) {
        log_failure(
            "restore the guest's code",
            self.breakpoints.clear(&mut self.machine),
        );
        self.end_trace(Status::Stopped);
        self.let_devices_go();
        log_failure(
            "disarm the vCPUs",
            self.machine.arm(Default::default(), false),
        );
        log_failure("open the watched pages", self.machine.watch(Vec::new()));
    }

    /// Takes from the devices what gdb's user wanted of them.
    pub(super) fn let_devices_go(&mut self) {
        self.devices.wanted = false;
        log_failure("let the devices go on", self.pause_devices(false));
        for device in std::mem::take(&mut self.noted) {
            let ended = self.machine.inspect().note_writes(device, false);
            log_failure("no longer note what a device writes", ended);
        }
        self.traps.clear();
        log_failure("take the traps away", self.machine.inspect().set_traps(&[]));
        log_failure("take the traps away", self.trap_gs_base(false));
    }

    pub(super) fn forget_client(&mut self) {
        self.attached = false;
        self.asked_for.set(None);
        self.physical = false;
        self.run = None;
        self.stop = None;
        self.warned.clear();
        self.warned_of_own = false;
        self.notices.clear();
        self.request = Request::default();
        self.reported.fill(None);
        self.collected.fill(None);
        self.trace.selected = None;
        if !self.trace.disconnected {
            self.trace = Trace::default();
        }
        self.trace_uploads.clear();
        self.trace_copy = FileCopy::default();
        self.pending.fill(None);
        self.missed.fill(0);
        self.unserved.fill(None);
        self.crashes.fill(None);
        self.breakpoints.conditions.clear();
        self.place.on_leave();
    }
}

pub(super) fn log_failure(what: &str, result: crate::target::Result<()>) {
    if let Err(error) = result {
        tracing::error!("gdb cannot {what} at detach: {}", chain(&error));
    }
}
