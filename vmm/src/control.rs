//! The machine as those control it who are outside: the control API and QMP.

use std::sync::Arc;

use devices::virtio::GuestMemory;
use gdb::server::Detacher;

use crate::boot;
use crate::machine::Machine;
use crate::power::PowerSwitch;
use crate::transports::SharedTransport;
use crate::vcpu::dispatch::Buses;
use crate::vcpus::Vcpus;

/// The parts of the machine that commands act on.
pub struct Control {
    vcpus: Arc<Vcpus>,
    power: Arc<PowerSwitch>,
    boot: Arc<boot::Source>,
    buses: Arc<Buses>,
    transports: Vec<SharedTransport>,
    memory: Arc<GuestMemory>,
    debugger: Option<Detacher>,
}

impl Control {
    pub fn new(machine: &Machine, debugger: Option<Detacher>) -> Self {
        Self {
            vcpus: machine.vcpus().clone(),
            power: machine.power().clone(),
            boot: machine.boot().clone(),
            buses: machine.buses().clone(),
            transports: machine.transports().to_vec(),
            memory: machine.memory().clone(),
            debugger,
        }
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
