//! What the debugger shows and changes of a machine.

use std::sync::Arc;

use crate::boot;
use crate::kvm::Vm;
use crate::power::PowerSwitch;
use crate::transports::SharedTransport;
use crate::vcpu::dispatch::Buses;
use crate::vcpu::traps::Traps;
use crate::vcpu::watched::WatchedRam;

/// The parts of a machine besides vCPUs and memory.
pub struct MachineHandles {
    pub vm: Arc<Vm>,
    pub buses: Arc<Buses>,
    pub traps: Arc<Traps>,
    pub watched: Arc<WatchedRam>,
    pub transports: Vec<SharedTransport>,
    pub power: Arc<PowerSwitch>,
    pub boot: Arc<boot::Source>,
}
