//! All vCPUs of a machine: they stop and go on together, and the guest's clock
//! with them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::kvm_clock_data;

use crate::kvm::{self, Vm};
use crate::vcpu::exit::Reason;
use crate::vcpu::{self, DebugControl, Handle};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
}

/// The vCPU threads. Used by the event loop and the debugger, each call whole.
pub struct Vcpus {
    vm: Arc<Vm>,
    handles: Vec<Handle>,
    /// The guest's clock when all vCPUs stopped; `None` while one may run.
    stopped: Mutex<Option<kvm_clock_data>>,
}

impl Vcpus {
    /// Takes over paused vCPUs.
    pub fn new(vm: Arc<Vm>, handles: Vec<Handle>) -> Result<Self, Error> {
        let stopped = Mutex::new(Some(vm.clock()?));
        Ok(Self {
            vm,
            handles,
            stopped,
        })
    }

    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Stops every vCPU and the guest's clock; returns once all have stopped.
    pub fn pause(&self) -> Result<(), Error> {
        let mut stopped = self.lock();
        vcpu::pause_all(&self.handles)?;
        if stopped.is_none() {
            *stopped = Some(self.vm.clock()?);
        }
        Ok(())
    }

    /// Lets vCPU n go on with `controls[n]`; `None` keeps it stopped. The clock
    /// goes on from where it was.
    pub fn resume(&self, controls: &[Option<DebugControl>]) -> Result<(), Error> {
        let mut stopped = self.lock();
        if let Some(clock) = stopped.take() {
            self.vm.set_clock(clock)?;
        }
        for (handle, control) in self.handles.iter().zip(controls) {
            if let Some(control) = control {
                handle.resume(*control)?;
            }
        }
        Ok(())
    }

    /// Lets all vCPUs run with nothing armed.
    pub fn resume_all(&self) -> Result<(), Error> {
        self.resume(&vec![Some(DebugControl::default()); self.handles.len()])
    }

    /// Exits so far by [`Reason::NAMES`], of all vCPUs together.
    pub fn exits(&self) -> [u64; Reason::NAMES.len()] {
        let mut total = [0; Reason::NAMES.len()];
        for handle in &self.handles {
            for (total, exits) in total.iter_mut().zip(handle.counters().exits()) {
                *total += exits;
            }
        }
        total
    }

    fn lock(&self) -> MutexGuard<'_, Option<kvm_clock_data>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
