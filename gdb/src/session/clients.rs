//! How clients come and go.

use host_io::errors::chain;

use super::Session;
use super::guest::Guest;
use super::state::Request;
use crate::address::VcpuId;
use crate::target::{Attachment, Resume};
use crate::trace::{Status, Trace};

impl Session<'_> {
    /// Stops the guest for a new client.
    pub fn attach(&mut self) {
        self.console.attach();
        self.guest.machine.attachment(Attachment::Attached);
        match self.is_running() {
            true => self.halt_unnoticed(),
            false => self.halt_and_note(),
        }
        let registers = self.guest.machine.registers(VcpuId(0)).ok();
        self.described.on_attach(registers.as_ref());
        self.guest.linux.look_again(&self.guest.machine);
        self.place.on_attach();
        let focus = self.vcpus.crashed().unwrap_or(VcpuId(0));
        self.selection.on_stop(focus);
        self.mark_reported(focus);
        if let Some(text) = self.crash(focus) {
            self.notice(format!("{focus} crashed: {text}"));
        }
    }

    /// Lets the guest run as if there had never been a debugger, unless a trace is to
    /// continue. Errors are logged: there is nobody left to tell, and every step is tried.
    pub fn detach(&mut self) {
        if self.exited.is_none() && self.trace_outlives_gdb() {
            self.halt_unnoticed();
        }
        if self.exited.is_none() {
            self.halt_and_note();
        }
        let crashed = self.vcpus.crashed().is_some();
        if self.exited.is_none() && self.trace_outlives_gdb() && !crashed {
            return self.leave_tracing();
        }
        // Before the guest runs: a crash from now on is the VMM's to handle.
        self.guest.machine.attachment(Attachment::Left { crashed });
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
        self.guest.machine.attachment(Attachment::Killed);
    }

    /// Lets the guest run with nothing planted and nothing armed. A vCPU that
    /// crashed has nowhere to go.
    pub(super) fn release_guest(&mut self) {
        self.take_all_out();
        let action = |crash: Option<&str>| match crash {
            None => Resume::Continue,
            Some(_) => Resume::Hold,
        };
        let crashes = self.vcpus.iter().map(|state| state.crash());
        let actions: Vec<_> = crashes.map(action).collect();
        log_failure("resume the guest", self.guest.machine.resume(&actions));
    }

    /// Leaves nothing planted and nothing armed.
    pub(super) fn take_all_out(&mut self) {
        let Guest {
            breakpoints,
            machine,
            ..
        } = &mut self.guest;
        log_failure("restore the guest's code", breakpoints.clear(machine));
        self.end_trace(Status::Stopped);
        self.release_devices();
        let machine = &mut self.guest.machine;
        log_failure("disarm the vCPUs", machine.arm(Default::default(), false));
        log_failure("open the watched pages", machine.watch(Vec::new()));
    }

    /// Ends the settings of gdb's user for the devices.
    pub(super) fn release_devices(&mut self) {
        let machine = &mut self.guest.machine;
        self.devices.release(machine, log_failure);
        log_failure(
            "take the traps away",
            self.place.trap_gs_base(machine, false),
        );
    }

    pub(super) fn forget_client(&mut self) {
        self.forget_all_but_vcpus();
        self.vcpus.forget_all();
    }

    pub(super) fn forget_all_but_vcpus(&mut self) {
        self.console.detach();
        self.selection.clear();
        self.run = None;
        self.stop = None;
        self.request = Request::default();
        self.trace.selected = None;
        if !self.trace.disconnected {
            self.trace = Trace::default();
        }
        self.trace_dialog.forget_reads();
        self.guest.breakpoints.conditions.clear();
        self.place.on_leave();
    }
}

pub(super) fn log_failure(what: &str, result: crate::target::Result<()>) {
    if let Err(error) = result {
        tracing::error!("gdb cannot {what} at detach: {}", chain(&error));
    }
}
