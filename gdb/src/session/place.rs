//! The kernel's place, and the place that gdb believes it to have.
//!
//! Under KASLR a kernel has no place until it has unpacked and moved itself, and has
//! another one after each reset. gdb asks for the place when it attaches (`qOffsets`)
//! and never again: breakpoints that it sets by symbol too early, or keeps over a
//! reset, are at wrong addresses. It has to attach again, and the guest waits for
//! that, stopped, where the kernel has just found its place.
//!
//! That point is found without a search: among its first instructions in its own
//! mapping Linux sets GS_BASE, in every version (arch/x86/kernel/head_64.S). The write
//! is trapped until then.

use host_io::errors::chain;

use super::Session;
use super::events::Verdict;
use super::stop::Reason;
use crate::address::VcpuId;
use crate::linux::{Kernel, is_in_image_area};
use crate::target::{Attachment, Result};

impl Session<'_> {
    /// Where gdb is to have the kernel's first segment; `None` where it has it.
    pub(super) fn text_segment(&self) -> Option<u64> {
        if self.is_running() {
            return None;
        }
        let kernel = self.guest.linux.kernel(&self.guest.machine);
        if kernel.is_ok() {
            self.place.settle();
        }
        match kernel {
            Ok(kernel) if kernel.has_moved() => Some(kernel.base),
            // A gdb that comes again has it where it was.
            _ if self.place.was_told() => self.guest.linux.linked_base(),
            _ => None,
        }
    }

    /// Makes the guest stop where the kernel has found its place: `false` if it has already.
    ///
    /// # Errors
    /// The host cannot tell.
    pub(crate) fn await_kernel(&mut self) -> Result<bool> {
        if self.guest.linux.kernel(&self.guest.machine).is_ok() {
            return Ok(false);
        }
        self.trap_gs_base(true)?;
        self.place.wait();
        Ok(true)
    }

    /// Lets the guest run to where the kernel has found its place, with nobody there.
    pub(crate) fn run_to_kernel(&mut self) {
        match self.await_kernel() {
            Ok(_) => {
                self.guest.machine.attachment(Attachment::Tracing);
                self.run_unattended();
            }
            Err(error) => tracing::warn!(
                "gdb: this host cannot tell when the kernel has found its place: {}; \
                 the guest waits before its first instruction",
                chain(&error)
            ),
        }
    }

    /// Whether it is on its way there.
    pub(crate) fn runs_to_kernel(&self) -> bool {
        self.place.is_awaited() && self.is_running() && !self.console.is_attached()
    }

    /// Breakpoints that gdb has in a kernel without a place are where that was linked
    /// to. If it will be elsewhere, gdb must be told.
    pub(super) fn watch_for_kernel(&mut self) {
        self.place.on_resume();
        let wants = self.console.is_attached()
            && self.guest.breakpoints.any(|addr| is_in_image_area(addr.0));
        if self.place.is_trapped() || !wants || !self.is_too_early() {
            return;
        }
        if let Err(error) = self.trap_gs_base(true)
            && self.place.warns_first()
        {
            let error = chain(&error);
            self.notice(format!(
                "breakpoints in a kernel that moves itself are not hit, and this host cannot tell \
                 when it has: {error}"
            ));
        }
    }

    fn is_too_early(&self) -> bool {
        let kernel = self.guest.linux.kernel(&self.guest.machine);
        kernel.is_err_and(|why| why.may_change())
    }

    /// A vCPU has set GS_BASE.
    pub(super) fn judge_gs_base(&mut self, vcpu: VcpuId) -> Verdict {
        let registers = self.guest.machine.registers(vcpu);
        let in_kernel = |rip: u64| is_in_image_area(rip);
        if !registers.is_ok_and(|registers| in_kernel(registers.linear_rip().0)) {
            // A boot loader, or the kernel's own code before it has its mapping.
            return self.judge_step(vcpu);
        }
        self.untrap();
        let awaited = self.place.end_wait();
        match self.guest.linux.kernel(&self.guest.machine) {
            Ok(kernel) if awaited => self.tell(format!("{vcpu}: {}", describe(&kernel))),
            Ok(kernel) if self.is_elsewhere(&kernel) => {}
            Err(why) if awaited => self.tell(format!("{vcpu}: a kernel has begun, but {why}")),
            _ => return self.judge_step(vcpu),
        }
        Verdict::Report(Reason::Trap)
    }

    /// At a stop: whether gdb has the kernel where it is, if that is known only now.
    pub(super) fn settle_place(&mut self) {
        if !self.console.is_attached() || !self.place.is_unsettled() {
            return;
        }
        let Ok(kernel) = self.guest.linux.kernel(&self.guest.machine) else {
            return;
        };
        self.place.settle();
        if self.is_elsewhere(&kernel) {
            self.place.ask_again();
            self.notice(format!(
                "{}, which gdb does not know: have it attach again (\"disconnect\", then \
                 \"target remote\"). The guest waits for it",
                describe(&kernel)
            ));
        }
    }

    /// Whether gdb has the kernel's symbols in another place, or could have them now.
    fn is_elsewhere(&self, kernel: &Kernel) -> bool {
        let believed = self.place.believed(kernel.linked());
        believed != kernel.base || !self.guest.linux.has_symbols_of(kernel)
    }

    /// A notice, or a line of the log if nobody is there.
    fn tell(&mut self, text: String) {
        match self.console.is_attached() {
            true => self.notice(text),
            false => tracing::info!("gdb: {text}"),
        }
    }

    /// Keeps the guest stopped where it is, for gdb to attach.
    pub(super) fn hold_for_gdb(&mut self) {
        self.run = None;
        self.untrap();
        self.guest
            .machine
            .attachment(Attachment::Left { crashed: false });
        tracing::info!("gdb: the guest waits for gdb to attach");
    }

    /// gdb is gone without a detach. If it was told to attach again the guest stays as
    /// it is, with nothing planted, until it does or [`Session::give_up_gdb`].
    pub(crate) fn keep_for_gdb(&mut self) -> bool {
        let crashed = self.vcpus.crashed().is_some();
        let busy = self.is_running() || self.trace_outlives_gdb() || self.exited.is_some();
        if !self.place.is_asked_again() || crashed || busy {
            return false;
        }
        self.take_all_out();
        self.guest
            .machine
            .attachment(Attachment::Left { crashed: false });
        self.forget_client();
        self.place.keep();
        true
    }

    /// Whether the guest stays for a gdb that was told to attach again.
    pub(crate) fn is_kept_for_gdb(&self) -> bool {
        self.place.is_kept()
    }

    /// gdb has not come.
    pub(crate) fn give_up_gdb(&mut self) {
        if self.place.end_keeping() {
            self.release_guest();
        }
    }

    fn untrap(&mut self) {
        if let Err(error) = self.trap_gs_base(false) {
            tracing::error!("gdb: GS_BASE stays trapped: {}", chain(&error));
        }
    }

    fn trap_gs_base(&mut self, wanted: bool) -> Result<()> {
        self.place.trap_gs_base(&mut self.guest.machine, wanted)
    }
}

fn describe(kernel: &Kernel) -> String {
    let slide = kernel.base.wrapping_sub(kernel.linked());
    match slide {
        0 => format!("Linux is at {:#x}, where it was linked to", kernel.base),
        _ => format!("Linux is at {:#x}, moved by {slide:#x}", kernel.base),
    }
}

#[cfg(test)]
#[path = "place_test.rs"]
mod tests;
