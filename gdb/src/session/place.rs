//! Where the kernel is, and where gdb takes it to be.
//!
//! Under KASLR a kernel has no place until it has unpacked and moved itself, and has
//! another one after each reset. gdb asks for the place when it attaches (`qOffsets`)
//! and never again: breakpoints that it sets by symbol too early, or keeps over a
//! reset, are where the kernel is not. It has to attach again, for which the guest
//! waits, stopped, where the kernel has just found its place.
//!
//! That point is met without looking for it: among its first instructions in its own
//! mapping Linux sets GS_BASE, in every version (arch/x86/kernel/head_64.S). The write
//! is trapped until then.

use std::cell::Cell;

use super::events::Verdict;
use super::{Reason, Session, chain};
use crate::linux::{Kernel, is_in_image_area};
use crate::target::{Attachment, Result, VcpuId};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Where gdb was told that the kernel begins, since it attached.
    told: Cell<Option<u64>>,
    /// A gdb was, in the life of this guest: it may come again with that.
    was_told: Cell<bool>,
    /// It is not known yet whether gdb is right.
    unsettled: Cell<bool>,
    /// Somebody waits for the kernel to find its place.
    awaited: bool,
    /// GS_BASE is trapped for that.
    trapped: bool,
    /// The user knows that the host cannot do that.
    told_cannot: bool,
    /// gdb was told to attach again, and the guest has not run since.
    again: bool,
    /// It has gone to do so.
    kept: bool,
}

impl Place {
    /// A gdb attaches. What the last one believed does not count.
    pub fn on_attach(&mut self) {
        self.told = Cell::default();
        self.unsettled = Cell::new(true);
        self.told_cannot = false;
        self.kept = false;
    }

    /// The kernel is gone, and a new one will be elsewhere.
    pub fn on_reset(&mut self) {
        self.unsettled = Cell::new(true);
        self.again = false;
        self.kept = false;
    }

    /// Nobody waits for anything any more.
    pub fn on_leave(&mut self) {
        self.awaited = false;
        self.again = false;
    }

    pub fn on_resume(&mut self) {
        self.again = false;
    }
}

impl Session<'_> {
    /// Where gdb is to have the kernel's first segment; `None` where it has it.
    pub(super) fn text_segment(&self) -> Option<u64> {
        if self.is_running() {
            return None;
        }
        let kernel = self.linux.kernel(&self.machine);
        if kernel.is_ok() {
            self.place.unsettled.set(false);
        }
        match kernel {
            Ok(kernel) if kernel.has_moved() => Some(kernel.base),
            // A gdb that comes again has it where it was.
            _ if self.place.was_told.get() => self.linux.linked_base(),
            _ => None,
        }
    }

    /// gdb has been told of this place.
    pub(super) fn note_told(&self, base: u64) {
        self.place.told.set(Some(base));
        self.place.was_told.set(true);
    }

    /// Has the guest stop where the kernel has found its place: `false` if it has.
    ///
    /// # Errors
    /// The host cannot tell.
    pub(crate) fn await_kernel(&mut self) -> Result<bool> {
        if self.linux.kernel(&self.machine).is_ok() {
            return Ok(false);
        }
        self.trap_gs_base(true)?;
        self.place.awaited = true;
        Ok(true)
    }

    /// Lets the guest run to where the kernel has found its place, with nobody there.
    pub(crate) fn run_to_kernel(&mut self) {
        match self.await_kernel() {
            Ok(_) => {
                self.machine.attachment(Attachment::Tracing);
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
        self.place.awaited && self.is_running() && !self.attached
    }

    /// Breakpoints that gdb has in a kernel without a place are where that was linked
    /// to. If it will be elsewhere, gdb must be told.
    pub(super) fn watch_for_kernel(&mut self) {
        self.place.on_resume();
        let wants = self.attached && self.breakpoints.any(|addr| is_in_image_area(addr.0));
        if self.place.trapped || !wants || !self.is_too_early() {
            return;
        }
        if let Err(error) = self.trap_gs_base(true)
            && !std::mem::replace(&mut self.place.told_cannot, true)
        {
            let error = chain(&error);
            self.notice(format!(
                "breakpoints in a kernel that moves itself are not hit, and this host cannot tell \
                 when it has: {error}"
            ));
        }
    }

    fn is_too_early(&self) -> bool {
        let kernel = self.linux.kernel(&self.machine);
        kernel.is_err_and(|why| why.may_change())
    }

    /// A vCPU has set GS_BASE.
    pub(super) fn judge_gs_base(&mut self, vcpu: VcpuId) -> Verdict {
        let registers = self.machine.registers(vcpu);
        let in_kernel = |rip: u64| is_in_image_area(rip);
        if !registers.is_ok_and(|registers| in_kernel(registers.linear_rip().0)) {
            // A boot loader, or the kernel's own code before it has its mapping.
            return self.judge_step(vcpu);
        }
        self.untrap();
        let awaited = std::mem::take(&mut self.place.awaited);
        match self.linux.kernel(&self.machine) {
            Ok(kernel) if awaited => self.tell(format!("{vcpu}: {}", describe(&kernel))),
            Ok(kernel) if self.is_elsewhere(&kernel) => {}
            Err(why) if awaited => self.tell(format!("{vcpu}: a kernel has begun, but {why}")),
            _ => return self.judge_step(vcpu),
        }
        Verdict::Report(Reason::Trap)
    }

    /// At a stop: whether gdb has the kernel where it is, if that is known only now.
    pub(super) fn settle_place(&mut self) {
        if !self.attached || !self.place.unsettled.get() {
            return;
        }
        let Ok(kernel) = self.linux.kernel(&self.machine) else {
            return;
        };
        self.place.unsettled.set(false);
        if self.is_elsewhere(&kernel) {
            self.place.again = true;
            self.notice(format!(
                "{}, which gdb does not know: have it attach again (\"disconnect\", then \
                 \"target remote\"). The guest waits for it",
                describe(&kernel)
            ));
        }
    }

    /// Whether gdb has the kernel's symbols in another place, or could have them now.
    fn is_elsewhere(&self, kernel: &Kernel) -> bool {
        let believed = self.place.told.get().unwrap_or(kernel.linked());
        believed != kernel.base || !self.linux.has_symbols_of(kernel)
    }

    /// A notice, or a line of the log if nobody is there.
    fn tell(&mut self, text: String) {
        match self.attached {
            true => self.notice(text),
            false => tracing::info!("gdb: {text}"),
        }
    }

    /// Keeps the guest stopped where it is, for gdb to attach.
    pub(super) fn hold_for_gdb(&mut self) {
        self.run = None;
        self.untrap();
        self.machine.attachment(Attachment::Left { crashed: false });
        tracing::info!("gdb: the guest waits for gdb to attach");
    }

    /// gdb is gone without a word. If it was told to attach again the guest stays as it
    /// is, with nothing planted, until it does or [`Session::give_up_gdb`].
    pub(crate) fn keep_for_gdb(&mut self) -> bool {
        let crashed = self.crashes.iter().any(Option::is_some);
        let busy = self.is_running() || self.trace_outlives_gdb() || self.exited.is_some();
        if !self.place.again || crashed || busy {
            return false;
        }
        self.take_all_out();
        self.machine.attachment(Attachment::Left { crashed: false });
        self.forget_client();
        self.place.kept = true;
        true
    }

    /// Whether the guest stays for a gdb that was told to attach again.
    pub(crate) fn is_kept_for_gdb(&self) -> bool {
        self.place.kept
    }

    /// gdb has not come.
    pub(crate) fn give_up_gdb(&mut self) {
        if std::mem::take(&mut self.place.kept) {
            self.release_guest();
        }
    }

    fn untrap(&mut self) {
        if let Err(error) = self.trap_gs_base(false) {
            tracing::error!("gdb: GS_BASE stays trapped: {}", chain(&error));
        }
    }

    pub(super) fn trap_gs_base(&mut self, wanted: bool) -> Result<()> {
        if wanted != self.place.trapped {
            self.machine.inspect().trap_gs_base(wanted)?;
            self.place.trapped = wanted;
        }
        Ok(())
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
