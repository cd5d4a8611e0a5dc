//! gdb's belief about the kernel's place, and who waits for it.

use std::cell::Cell;

use crate::machine::Machine;
use crate::target::Result;

/// The facts about it.
#[derive(Debug, Default)]
pub(in crate::session) struct Place {
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

    /// gdb has been told that the kernel begins at `base`.
    pub fn note_told(&self, base: u64) {
        self.told.set(Some(base));
        self.was_told.set(true);
    }

    /// Whether any gdb was told of a place.
    pub fn was_told(&self) -> bool {
        self.was_told.get()
    }

    /// Where gdb has a kernel that was linked to `linked`.
    pub fn believed(&self, linked: u64) -> u64 {
        self.told.get().unwrap_or(linked)
    }

    /// It is known now whether gdb is right.
    pub fn settle(&self) {
        self.unsettled.set(false);
    }

    pub fn is_unsettled(&self) -> bool {
        self.unsettled.get()
    }

    /// Somebody waits for the kernel to find its place.
    pub fn wait(&mut self) {
        self.awaited = true;
    }

    pub fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// Whether somebody has waited for it. The wait is over.
    pub fn end_wait(&mut self) -> bool {
        std::mem::take(&mut self.awaited)
    }

    /// Whether the user has yet to be told that the host cannot trap GS_BASE; now it
    /// is.
    pub fn warns_first(&mut self) -> bool {
        !std::mem::replace(&mut self.told_cannot, true)
    }

    /// gdb has been told to attach again.
    pub fn ask_again(&mut self) {
        self.again = true;
    }

    pub fn is_asked_again(&self) -> bool {
        self.again
    }

    /// The guest is kept stopped for gdb to attach again.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Whether the guest was kept. It no longer is.
    pub fn end_keeping(&mut self) -> bool {
        std::mem::take(&mut self.kept)
    }

    pub fn is_trapped(&self) -> bool {
        self.trapped
    }

    /// Has writes to GS_BASE stop the guest, or no longer.
    pub fn trap_gs_base(&mut self, machine: &mut Machine<'_>, wanted: bool) -> Result<()> {
        if wanted != self.trapped {
            machine.inspect().trap_gs_base(wanted)?;
            self.trapped = wanted;
        }
        Ok(())
    }
}
