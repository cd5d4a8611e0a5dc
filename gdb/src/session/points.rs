//! Breakpoints, as gdbstub asks for them.
//!
//! gdb 13 shows no reason for a refusal, whatever the answer says. The reason goes
//! to the log, to `monitor info breakpoints`, and to gdb's console as soon as the
//! protocol allows. A gdb that takes texts for errors gets it as its answer.

use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpoint, HwBreakpointOps, HwWatchpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::{TargetError, TargetResult};
use host_io::errors::chain;

use super::Session;
use super::base::errno;
use super::guest::Guest;
use super::refusal::InsertError;
use crate::address::{VcpuId, VirtAddr};
use crate::arch::cr4;
use crate::breakpoints::{Holder, Kind, Owner, Place, Rings, SlotError};
use crate::linux::modules::is_freed;
use crate::machine::AddressError;
use crate::paging::{Translation, WalkError};
use crate::target::{self, Traps};

/// Linux maps nothing below, unless it is told to (vm.mmap_min_addr's default).
const LOWEST_MAPPED: u64 = 0x1_0000;

impl Session<'_> {
    /// gdb's `Z0`, or a tracepoint: an int3 where the host traps it and the page is
    /// there, else a hardware slot.
    pub(super) fn insert_software(
        &mut self,
        addr: VirtAddr,
        owner: Owner,
    ) -> Result<(), InsertError> {
        let focus = self.selection.focus();
        self.check_whole(addr)?;
        if let Some(there) = self.guest.breakpoints.software(addr) {
            // The guest may have rewritten the byte, or mapped the page: place it again.
            let Guest {
                breakpoints,
                machine,
                ..
            } = &mut self.guest;
            let taken_out = breakpoints.take_out(machine, addr, there.placement);
            self.note_removal(addr, taken_out);
        }
        let translation = self.guest.translate_code(focus, addr)?;
        self.warn_of_no_section(addr, translation);
        let rings = self.guest.rings_executing(focus, addr, translation);
        let traps = self.guest.machine.host_traps();
        let Guest {
            breakpoints,
            machine,
            ..
        } = &mut self.guest;
        if let Some(translation) = translation
            && rings.all_trap_int3(&traps)
        {
            match breakpoints.plant(machine, addr, translation.phys, owner) {
                Ok(()) => return Ok(()),
                // ROM or device memory: a slot traps there too.
                Err(error) => tracing::debug!("no int3 at {:#x}: {error}", addr.0),
            }
        }
        if !rings.any_traps(&traps, |ring| ring.hw_breakpoint) {
            let what = "breakpoint";
            return Err(InsertError::HostCannot { what, rings });
        }
        if let Err(slots) = breakpoints.take_slot(addr, owner) {
            return match translation {
                None if rings.all_trap_int3(&traps) && breakpoints.wait(addr, owner) => {
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

    /// Refuses an address that gdb has cut in half.
    pub(super) fn check_whole(&self, addr: VirtAddr) -> Result<(), InsertError> {
        let known = self.described.now().architecture;
        Ok(self.guest.check_whole(addr, known)?)
    }

    /// Tells the user, once for an address, that it waits.
    fn warn_of_pending(&mut self, addr: VirtAddr, slots: &SlotError) {
        if self.console.warns_first(addr) {
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
            || self.guest.linux.kernel(&self.guest.machine).is_err()
            || !self.console.warns_first(addr)
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
        let machine = &mut self.guest.machine;
        let armed = machine.armed_slots().iter().any(Option::is_some);
        if armed && !self.console.is_warned_of_own() && machine.has_own_breakpoints(vcpu) {
            self.console.set_warned_of_own();
            self.notice(format!(
                "{vcpu} has breakpoints of its own in its debug registers: while gdb has some \
                 there, those that the guest sets do not fire before the next stop"
            ));
        }
    }

    /// Whether a running guest has to be looked at now and then: a breakpoint waits for
    /// its page, and nothing tells when the guest maps it, or a step takes long.
    pub(crate) fn has_pending(&self) -> bool {
        self.is_running() && !self.guest.breakpoints.pending().is_empty() || self.has_pending_step()
    }

    /// Plants the breakpoints whose pages have come since.
    pub(super) fn plant_pending(&mut self) {
        for addr in self.guest.breakpoints.pending() {
            let focus = self.selection.focus();
            if !matches!(self.guest.translate_code(focus, addr), Ok(Some(_))) {
                continue;
            }
            let owner = match self.guest.breakpoints.software(addr) {
                Some(it) if it.gdb => Owner::Gdb,
                Some(it) if it.trace => Owner::Trace,
                _ => Owner::Modules,
            };
            if let Err(error) = self.insert_software(addr, owner) {
                self.notice(format!(
                    "breakpoint at {:#x} is lost now that its page is mapped: {}",
                    addr.0,
                    chain(&error)
                ));
                for owner in [Owner::Gdb, Owner::Trace, Owner::Modules] {
                    self.remove_software(addr, owner);
                }
            }
        }
    }

    pub(super) fn remove_software(&mut self, addr: VirtAddr, owner: Owner) {
        let Guest {
            breakpoints,
            machine,
            ..
        } = &mut self.guest;
        let removed = breakpoints.remove_software(machine, addr, owner);
        self.note_removal(addr, removed);
    }

    /// gdb's `z0` and `z1`.
    pub(super) fn remove_of_gdb(&mut self, Place { addr, kind }: Place) {
        self.remove_program(addr, kind);
        match kind {
            Kind::Software => self.remove_software(addr, Owner::Gdb),
            Kind::Hardware => {
                let holder = Holder::Hardware(addr);
                self.guest.breakpoints.slots.remove(holder);
            }
        }
    }

    fn note_removal(&mut self, addr: VirtAddr, result: target::Result<()>) {
        if let Err(error) = result {
            let error = chain(&error);
            self.notice(format!(
                "breakpoint {:#x} could not be taken out: {error}",
                addr.0
            ));
        }
    }

    /// gdb's `Z1`.
    fn insert_hardware(&mut self, addr: VirtAddr) -> Result<(), InsertError> {
        self.check_whole(addr)?;
        let focus = self.selection.focus();
        let translation = self.guest.translate_code(focus, addr)?;
        self.warn_of_no_section(addr, translation);
        let rings = self.guest.rings_executing(focus, addr, translation);
        let traps = self.guest.machine.host_traps();
        if !rings.any_traps(&traps, |ring| ring.hw_breakpoint) {
            let what = "hardware breakpoint";
            return Err(InsertError::HostCannot { what, rings });
        }
        let holder = Holder::Hardware(addr);
        let slots = &mut self.guest.breakpoints.slots;
        slots.add(holder).map_err(InsertError::Slots)?;
        self.warn_of_one_ring("hardware breakpoint", addr, rings, |ring| {
            ring.hw_breakpoint
        });
        Ok(())
    }

    /// Tells the user, once for an address, that the host has the facility for
    /// only one of the rings that may use it.
    pub(super) fn warn_of_one_ring(
        &mut self,
        what: &str,
        addr: VirtAddr,
        rings: Rings,
        facility: impl Fn(&Traps) -> bool,
    ) {
        let only = rings.only(&self.guest.machine.host_traps(), facility);
        if let Some(only) = only
            && self.console.warns_first(addr)
        {
            let only = only.name();
            self.notice(format!(
                "{what} at {:#x}: this host traps it in {only} only",
                addr.0
            ));
        }
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
                self.refuse_point(what, addr, &chain(&error));
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

impl Guest<'_> {
    /// Where code at `addr` lies; `None` when the page is not there (yet).
    fn translate_code(
        &self,
        focus: VcpuId,
        addr: VirtAddr,
    ) -> Result<Option<Translation>, InsertError> {
        match self.translate_for_any(focus, addr) {
            Ok(translation) => Ok(Some(translation)),
            // The vCPU may enter another paging mode, but the address can never become valid.
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

    fn rings_executing(
        &self,
        focus: VcpuId,
        addr: VirtAddr,
        translation: Option<Translation>,
    ) -> Rings {
        let registers = self.machine.registers(focus);
        let smep = registers.is_ok_and(|registers| registers.cr4 & cr4::SMEP != 0);
        Rings::executing(
            addr,
            translation.map(|translation| translation.rights),
            smep,
        )
    }
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
        if result.is_err() {
            self.remove_program(VirtAddr(addr), Kind::Software);
        }
        self.answer("breakpoint", addr, result)
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        let addr = VirtAddr(addr);
        self.remove_of_gdb(Place {
            addr,
            kind: Kind::Software,
        });
        Ok(true)
    }
}

impl HwBreakpoint for Session<'_> {
    fn add_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        let result = self.insert_hardware(VirtAddr(addr));
        if result.is_err() {
            self.remove_program(VirtAddr(addr), Kind::Hardware);
        }
        self.answer("hardware breakpoint", addr, result)
    }

    fn remove_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        let addr = VirtAddr(addr);
        self.remove_of_gdb(Place {
            addr,
            kind: Kind::Hardware,
        });
        Ok(true)
    }
}
