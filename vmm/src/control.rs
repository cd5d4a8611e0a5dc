//! The machine as those control it who are outside: the control API and QMP.

use std::sync::Arc;

use devices::virtio::GuestMemory;
use gdb::server::Detacher;

use crate::boot;
use crate::machine::Machine;
use crate::machine_events::{MachineEvent, MachineEvents};
use crate::power::PowerSwitch;
use crate::transports::SharedTransport;
use crate::vcpu::dispatch::Buses;
use crate::vcpus::{self, Group, Vcpus};

/// The parts of the machine that commands act on.
pub struct Control {
    vcpus: Arc<Vcpus>,
    power: Arc<PowerSwitch>,
    boot: Arc<boot::Source>,
    buses: Arc<Buses>,
    transports: Vec<SharedTransport>,
    memory: Arc<GuestMemory>,
    debugger: Option<Detacher>,
    events: Arc<MachineEvents>,
}

/// The guest is not stopped, or not resumed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("a debugger is attached, or its trace runs: stop the guest, or resume it, there")]
    Debugged,
    #[error(transparent)]
    Vcpus(#[from] vcpus::Error),
}

impl Control {
    pub fn new(machine: &Machine, debugger: Option<Detacher>, events: Arc<MachineEvents>) -> Self {
        Self {
            vcpus: machine.vcpus().clone(),
            power: machine.power().clone(),
            boot: machine.boot().clone(),
            buses: machine.buses().clone(),
            transports: machine.transports().to_vec(),
            memory: machine.memory().clone(),
            debugger,
            events,
        }
    }

    /// Stops every vCPU and the guest's clock, or none.
    pub fn pause(&self) -> Result<(), RunError> {
        let mut group = self.undebugged()?;
        if group.is_stopped() {
            return Ok(());
        }
        group.try_pause()?;
        self.events.tell(MachineEvent::Paused);
        Ok(())
    }

    /// Resumes the guest after [`pause`](Self::pause), or starts it under `--gdb-wait`.
    pub fn resume(&self) -> Result<(), RunError> {
        let mut group = self.undebugged()?;
        if !group.is_stopped() {
            return Ok(());
        }
        group.resume_all()?;
        self.events.tell(MachineEvent::Resumed);
        Ok(())
    }

    /// The right to change whether vCPUs run, which a debugger must not miss.
    fn undebugged(&self) -> Result<Group<'_>, RunError> {
        let group = self.vcpus.group();
        match group.is_debugged() {
            true => Err(RunError::Debugged),
            false => Ok(group),
        }
    }

    /// What happens to the machine.
    pub fn events(&self) -> &MachineEvents {
        &self.events
    }

    pub fn vcpus(&self) -> &Vcpus {
        &self.vcpus
    }

    pub fn power(&self) -> &PowerSwitch {
        &self.power
    }

    pub fn boot(&self) -> &boot::Source {
        &self.boot
    }

    pub fn buses(&self) -> &Buses {
        &self.buses
    }

    pub fn transports(&self) -> &[SharedTransport] {
        &self.transports
    }

    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Where the machine serves gdb.
    pub fn debugger(&self) -> Option<&Detacher> {
        self.debugger.as_ref()
    }
}
