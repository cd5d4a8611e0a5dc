//! Breakpoints, as gdbstub asks for them.
//!
//! gdb 13 shows no reason for a refusal, whatever the answer says. The reason goes
//! to the log, to `monitor info breakpoints`, and to gdb's console as soon as the
//! protocol allows.

use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpoint, HwBreakpointOps, HwWatchpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::{TargetError, TargetResult};

use super::Session;
use super::base::errno;
use super::halved::Halved;
use super::watch::PageError;
use crate::arch::cr4;
use crate::breakpoints::{Holder, Owner, Rings, SlotError};
use crate::linux::modules::is_freed;
use crate::machine::AddressError;
use crate::paging::{Translation, WalkError};
use crate::target::{self, Traps, VcpuId, VirtAddr};

/// Linux maps nothing below, unless it is told to (vm.mmap_min_addr's default).
const LOWEST_MAPPED: u64 = 0x1_0000;

/// Addresses that are remembered as warned of.
const MAX_WARNED: usize = 1024;

/// The breakpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum InsertError {
    #[error(transparent)]
    Halved(#[from] Halved),
    #[error(transparent)]
    Address(AddressError),
    #[error("this host traps no {what} in {}", .rings.name())]
    HostCannot { what: &'static str, rings: Rings },
    #[error("this host does not trap int3 in {}, and {slots}", .rings.name())]
    NeedsSlot { rings: Rings, slots: SlotError },
    #[error("its page is not mapped yet, and {0}")]
    Unmapped(SlotError),
    #[error("it is in a module's section that Linux freed when the module was initialised")]
    Freed,
    #[error(transparent)]
    Slots(SlotError),
    #[error("{slots}, and {pages}")]
    Watch {
        slots: Box<InsertError>,
        pages: PageError,
    },
}

impl Session<'_> {
    /// gdb's `Z0`, or a tracepoint: an int3 where the host traps it and the page is
    /// there, else a hardware slot.
    pub(super) fn insert_software(
        &mut self,
        addr: VirtAddr,
        owner: Owner,
    ) -> Result<(), InsertError> {
        self.check_whole(addr)?;
        if let Some(there) = self.breakpoints.software(addr) {
            // The guest may have rewritten the byte, or mapped the page: afresh.
            let taken_out = self
                .breakpoints
                .take_out(&mut self.machine, addr, there.placement);
            self.note_removal(addr, taken_out);
        }
        let translation = self.translate_code(addr)?;
        self.warn_of_no_section(addr, translation);
        let rings = self.rings_executing(addr, translation);
        let traps = self.machine.host_traps();
        if let Some(translation) = translation
            && rings.all_trap_int3(&traps)
        {
            match self
                .breakpoints
                .plant(&mut self.machine, addr, translation.phys, owner)
            {
                Ok(()) => return Ok(()),
                // ROM or device memory: a slot traps there too.
                Err(error) => tracing::debug!("no int3 at {:#x}: {error}", addr.0),
            }
        }
        if !rings.any_traps(&traps, |ring| ring.hw_breakpoint) {
            let what = "breakpoint";
            return Err(InsertError::HostCannot { what, rings });
        }
        if let Err(slots) = self.breakpoints.take_slot(addr, owner) {
            return match translation {
                None if rings.all_trap_int3(&traps) && self.breakpoints.wait(addr, owner) => {
                    self.warn_of_pending(addr, &slots);
                    Ok(())
                }
                None => Err(InsertError::Unmapped(slots)),
                Some(_) if rings.all_trap_int3(&traps) => Err(InsertError::Slots(slots)),
                Some(_) => Err(InsertError::NeedsSlot { rings, slots }),
            };
        }
        self.warn_of_one_ring("breakpoint", addr, rings, |ring| ring.hw_breakpoint);
        Ok(())
    }

    /// Tells the user, once for an address, that it waits.
    fn warn_of_pending(&mut self, addr: VirtAddr, slots: &SlotError) {
        if self.warned.len() < MAX_WARNED && self.warned.insert(addr) {
            self.notice(format!(
                "breakpoint at {:#x} waits for its page to be mapped, and {slots}",
                addr.0
            ));
        }
    }

    /// Tells the user, once for an address, of a breakpoint where Linux has nothing:
    /// that is where gdb puts the symbols of a section whose address it was not given.
    fn warn_of_no_section(&mut self, addr: VirtAddr, translation: Option<Translation>) {
        if translation.is_some()
            || addr.0 >= LOWEST_MAPPED
            || self.linux.kernel(&self.machine).is_err()
            || self.warned.len() >= MAX_WARNED
            || !self.warned.insert(addr)
        {
            return;
        }
        self.notice(format!(
            "breakpoint at {:#x}: Linux has nothing there. If it is a module's, gdb does not know \
             where that section is; \"monitor lx modules\" tells",
            addr.0
        ));
    }

    /// Tells the user, once, that the guest and gdb want the same slots.
    pub(super) fn warn_of_own_breakpoints(&mut self, vcpu: VcpuId) {
        let armed = self.machine.armed_slots().iter().any(Option::is_some);
        if armed && !self.warned_of_own && self.machine.has_own_breakpoints(vcpu) {
            self.warned_of_own = true;
            self.notice(format!(
                "{vcpu} has breakpoints of its own in its debug registers: while gdb has some \
                 there, those that the guest sets do not fire before the next stop"
            ));
        }
    }

    /// Whether a running guest has to be looked at now and then: a breakpoint waits for
    /// its page, and nothing tells when the guest maps it, or a step takes long.
    pub(crate) fn needs_look(&self) -> bool {
        self.is_running() && !self.breakpoints.pending().is_empty() || self.has_pending_step()
    }

    /// Plants the breakpoints whose pages have come since.
    pub(super) fn plant_pending(&mut self) {
        for addr in self.breakpoints.pending() {
            if !matches!(self.translate_code(addr), Ok(Some(_))) {
                continue;
            }
            let for_gdb = self.breakpoints.software(addr).is_some_and(|it| it.gdb);
            let owner = if for_gdb { Owner::Gdb } else { Owner::Trace };
            if let Err(error) = self.insert_software(addr, owner) {
                self.notice(format!(
                    "breakpoint at {:#x} is lost now that its page is mapped: {}",
                    addr.0,
                    describe(&error)
                ));
                self.remove_software(addr, Owner::Gdb);
                self.remove_software(addr, Owner::Trace);
            }
        }
    }

    pub(super) fn remove_software(&mut self, addr: VirtAddr, owner: Owner) {
        let removed = self
            .breakpoints
            .remove_software(&mut self.machine, addr, owner);
        self.note_removal(addr, removed);
    }

    fn note_removal(&mut self, addr: VirtAddr, result: target::Result<()>) {
        if let Err(error) = result {
            let error = super::chain(&error);
            self.notice(format!(
                "breakpoint {:#x} could not be taken out: {error}",
                addr.0
            ));
        }
    }

    /// gdb's `Z1`.
    fn insert_hardware(&mut self, addr: VirtAddr) -> Result<(), InsertError> {
        self.check_whole(addr)?;
        let translation = self.translate_code(addr)?;
        self.warn_of_no_section(addr, translation);
        let rings = self.rings_executing(addr, translation);
        if !rings.any_traps(&self.machine.host_traps(), |ring| ring.hw_breakpoint) {
            let what = "hardware breakpoint";
            return Err(InsertError::HostCannot { what, rings });
        }
        let holder = Holder::Hardware(addr);
        self.breakpoints
            .slots
            .add(holder)
            .map_err(InsertError::Slots)?;
        self.warn_of_one_ring("hardware breakpoint", addr, rings, |ring| {
            ring.hw_breakpoint
        });
        Ok(())
    }

    /// Tells the user, once for an address, that the host has the facility for one
    /// of the rings only that may use what is there.
    pub(super) fn warn_of_one_ring(
        &mut self,
        what: &str,
        addr: VirtAddr,
        rings: Rings,
        facility: impl Fn(&Traps) -> bool,
    ) {
        let only = rings.only(&self.machine.host_traps(), facility);
        if let Some(only) = only.filter(|_| self.warned.len() < MAX_WARNED)
            && self.warned.insert(addr)
        {
            let only = only.name();
            self.notice(format!(
                "{what} at {:#x}: this host traps it in {only} only",
                addr.0
            ));
        }
    }

    /// Where code at `addr` lies; `None` when the page is not there (yet).
    fn translate_code(&self, addr: VirtAddr) -> Result<Option<Translation>, InsertError> {
        match self.translate_for_any(addr) {
            Ok(translation) => Ok(Some(translation)),
            // The vCPU may enter another paging mode, but never make this good.
            Err(AddressError::Walk(WalkError::NotCanonical(_)))
                if is_freed(addr.0) && self.linux.kernel(&self.machine).is_ok() =>
            {
                Err(InsertError::Freed)
            }
            Err(error @ AddressError::Walk(WalkError::NotCanonical(_))) => {
                Err(InsertError::Address(error))
            }
            Err(_) => Ok(None),
        }
    }

    fn rings_executing(&self, addr: VirtAddr, translation: Option<Translation>) -> Rings {
        let registers = self.machine.registers(self.focus);
        let smep = registers.is_ok_and(|registers| registers.cr4 & cr4::SMEP != 0);
        Rings::executing(
            addr,
            translation.map(|translation| translation.rights),
            smep,
        )
    }

    /// gdb's answer to an insertion, with the reason for the user.
    pub(super) fn answer(
        &mut self,
        what: &str,
        addr: u64,
        result: Result<(), InsertError>,
    ) -> TargetResult<bool, Self> {
        match result {
            Ok(()) => Ok(true),
            Err(error) => {
                self.notice(format!("{what} at {addr:#x} refused: {}", describe(&error)));
                Err(TargetError::Errno(errno::EINVAL))
            }
        }
    }

    pub(super) fn while_stopped(&self) -> TargetResult<(), Self> {
        if self.is_running() {
            return Err(TargetError::Errno(errno::EBUSY));
        }
        Ok(())
    }
}

fn describe(error: &InsertError) -> String {
    super::chain(error)
}

impl Breakpoints for Session<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Session<'_> {
    fn add_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        let result = self.insert_software(VirtAddr(addr), Owner::Gdb);
        self.answer("breakpoint", addr, result)
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        self.remove_software(VirtAddr(addr), Owner::Gdb);
        Ok(true)
    }
}

impl HwBreakpoint for Session<'_> {
    fn add_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        let result = self.insert_hardware(VirtAddr(addr));
        self.answer("hardware breakpoint", addr, result)
    }

    fn remove_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        self.breakpoints
            .slots
            .remove(Holder::Hardware(VirtAddr(addr)));
        Ok(true)
    }
}

impl Session<'_> {
    /// Takes the breakpoint at the RIP of a stopped vCPU out of its way.
    pub(super) fn lift_at(
        &mut self,
        vcpu: VcpuId,
    ) -> target::Result<Option<crate::breakpoints::Lifted>> {
        let addr = self.machine.registers(vcpu)?.linear_rip();
        let byte = self.translate(vcpu, addr).ok();
        let byte = byte.map(|translation| translation.phys);
        self.breakpoints.lift(&mut self.machine, addr, byte)
    }
}
