//! Notices to the user beside gdb's own answers.

use std::collections::BTreeSet;

use crate::address::VirtAddr;

/// Notices kept for the user until they can be shown.
const MAX_NOTICES: usize = 32;

/// Most bytes of printed text that are kept for the user.
const MAX_PRINTED: usize = 256 << 10;

/// Addresses that are remembered as warned of.
const MAX_WARNED: usize = 1024;

/// gdb's console, if a gdb is attached, and what its user knows already.
#[derive(Debug, Default)]
pub(in crate::session) struct Console {
    attached: bool,
    /// Text for the user, shown as soon as the protocol allows.
    notices: Vec<String>,
    /// Text that the user's commands have printed, shown likewise.
    printed: String,
    /// Texts for which there was no room.
    lost: u64,
    /// Addresses of breakpoints that something was said of.
    warned: BTreeSet<VirtAddr>,
    /// The user knows that the guest has breakpoints of its own.
    warned_of_own: bool,
    /// It is read by a program that has asked whether this is QEMU's stub.
    reads_as_qemu: bool,
}

impl Console {
    pub fn attach(&mut self) {
        self.attached = true;
    }

    /// gdb has left: the next user knows nothing of earlier notices.
    pub fn detach(&mut self) {
        *self = Self::default();
    }

    pub fn is_attached(&self) -> bool {
        self.attached
    }

    pub fn reads_as_qemu(&self) -> bool {
        self.reads_as_qemu
    }

    pub fn set_reads_as_qemu(&mut self) {
        self.reads_as_qemu = true;
    }

    /// Keeps text for the user; the last one is not repeated.
    pub fn add(&mut self, text: String) {
        if self.attached && self.notices.len() < MAX_NOTICES && self.notices.last() != Some(&text) {
            self.notices.push(text);
        }
    }

    /// The last text kept, if it is `text`, is not shown: the user has it otherwise.
    pub fn retract(&mut self, text: &str) {
        if self.notices.last().is_some_and(|last| last == text) {
            self.notices.pop();
        }
    }

    /// Keeps text as it is. The guest may print faster than gdb reads: then some is
    /// lost, because the guest must not wait for gdb.
    pub fn print(&mut self, text: String) {
        if self.attached && self.printed.len() + text.len() <= MAX_PRINTED {
            self.printed.push_str(&text);
        } else {
            self.lost += 1;
        }
    }

    /// The printed text, once.
    pub fn take_printed(&mut self) -> String {
        let mut printed = std::mem::take(&mut self.printed);
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            printed.push_str(&format!(
                "{lost} texts are lost: gdb reads them too slowly\n"
            ));
        }
        printed
    }

    /// The text to show, once.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Whether nothing was said of the breakpoint at `addr` yet; something now is.
    pub fn warns_first(&mut self, addr: VirtAddr) -> bool {
        self.warned.len() < MAX_WARNED && self.warned.insert(addr)
    }

    /// Whether the user knows that the guest has breakpoints of its own.
    pub fn is_warned_of_own(&self) -> bool {
        self.warned_of_own
    }

    pub fn set_warned_of_own(&mut self) {
        self.warned_of_own = true;
    }
}
