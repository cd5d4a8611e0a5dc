//! The settings of gdb's user for the virtio devices, and their present state.

use std::collections::BTreeSet;

use crate::inspect::Trap;
use crate::machine::Machine;
use crate::target::Result;

/// Wishes about devices, which end when gdb leaves.
#[derive(Debug, Default)]
pub(crate) struct DeviceControl {
    /// The user wants them paused while the guest is stopped.
    pause_wanted: bool,
    /// They are.
    paused: bool,
    /// Those whose writes are logged, by number.
    logged: BTreeSet<usize>,
    /// Accesses that stop the guest.
    traps: Vec<Trap>,
}

impl DeviceControl {
    pub fn is_pause_wanted(&self) -> bool {
        self.pause_wanted
    }

    /// Has them pause, or not, whenever the guest is stopped, as it is now.
    pub fn want_pause(&mut self, machine: &mut Machine<'_>, wanted: bool) -> Result<()> {
        self.pause(machine, wanted)?;
        self.pause_wanted = wanted;
        Ok(())
    }

    /// Puts them into the state that the user wants while the guest is stopped.
    pub(in crate::session) fn on_stop(&mut self, machine: &mut Machine<'_>) -> Result<()> {
        match self.pause_wanted {
            true => self.pause(machine, true),
            false => Ok(()),
        }
    }

    /// Has them work for a guest that is about to run.
    pub(in crate::session) fn on_resume(&mut self, machine: &mut Machine<'_>) -> Result<()> {
        self.pause(machine, false)
    }

    fn pause(&mut self, machine: &mut Machine<'_>, pause: bool) -> Result<()> {
        if pause != self.paused {
            machine.inspect().pause_devices(pause)?;
            self.paused = pause;
        }
        Ok(())
    }

    /// Has a device's writes logged for as long as gdb is there, or no longer.
    pub fn set_dirty_log(
        &mut self,
        machine: &mut Machine<'_>,
        device: usize,
        wanted: bool,
    ) -> Result<()> {
        machine.inspect().set_dirty_log(device, wanted)?;
        match wanted {
            true => self.logged.insert(device),
            false => self.logged.remove(&device),
        };
        Ok(())
    }

    pub fn traps(&self) -> &[Trap] {
        &self.traps
    }

    /// Makes exactly these accesses stop the guest.
    pub fn set_traps(&mut self, machine: &mut Machine<'_>, traps: Vec<Trap>) -> Result<()> {
        machine.inspect().set_traps(&traps)?;
        self.traps = traps;
        Ok(())
    }

    /// Ends all of it. Everything is tried: `failed` gets each failure and its
    /// reason.
    pub(in crate::session) fn release(
        &mut self,
        machine: &mut Machine<'_>,
        failed: impl Fn(&str, Result<()>),
    ) {
        self.pause_wanted = false;
        failed("resume the devices", self.pause(machine, false));
        for device in std::mem::take(&mut self.logged) {
            let ended = machine.inspect().set_dirty_log(device, false);
            failed("stop the log of what a device writes", ended);
        }
        self.traps.clear();
        failed("take the traps away", machine.inspect().set_traps(&[]));
    }
}
