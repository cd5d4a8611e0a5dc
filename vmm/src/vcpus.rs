//! All vCPUs of a machine: they stop and resume together, and the guest's clock
//! with them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::host;
use crate::kvm::{self, Moment, Vm};
use crate::locks::lock_within;
use crate::vcpu::exit::Reason;
use crate::vcpu::{self, DebugControl, Handle};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
}

/// The vCPU threads. Used by the event loop and the debugger: either changes
/// which of them run only while it holds the [`Group`], and keeps it for as long
/// as that must not be undone.
pub struct Vcpus {
    /// Before `vm`: dropping them ends the threads, which must not outlive the
    /// mappings of guest memory.
    handles: Vec<Handle>,
    vm: Arc<Vm>,
    state: Mutex<State>,
}

struct State {
    run: Run,
    /// Which vCPU is resumed first the next time.
    first: usize,
    /// How the vCPUs were let go last.
    controls: Vec<Option<DebugControl>>,
    /// A debugger is attached, or traces: it alone stops and resumes vCPUs.
    debugged: bool,
}

/// Whether vCPUs run.
#[derive(Clone, Copy)]
enum Run {
    /// None ever has.
    NotYet,
    /// Some may.
    Now,
    /// All have stopped, at this moment.
    StoppedAt(Moment),
}

/// The right to stop and to resume vCPUs.
pub struct Group<'a> {
    vcpus: &'a Vcpus,
    state: MutexGuard<'a, State>,
}

impl Vcpus {
    /// Takes over paused vCPUs.
    pub fn new(vm: Arc<Vm>, handles: Vec<Handle>) -> Self {
        let state = Mutex::new(State {
            run: Run::NotYet,
            first: 0,
            controls: vec![Some(DebugControl::default()); handles.len()],
            debugged: false,
        });
        Self { vm, handles, state }
    }

    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The [`Group`], unless somebody else stops or resumes vCPUs for all of this time.
    pub fn group_within(&self, patience: Duration) -> Option<Group<'_>> {
        let state = lock_within(&self.state, patience)?;
        Some(Group { vcpus: self, state })
    }

    /// Waits until nobody else stops or resumes vCPUs.
    pub fn group(&self) -> Group<'_> {
        Group {
            vcpus: self,
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Hides the time since `stopped` from the guest: from its TSCs, and from its
    /// paravirtual clock, which KVM counts from the TSCs and which is thus set last.
    fn resume_clocks(&self, stopped: Moment) -> Result<(), Error> {
        self.vm.drop_late_ticks()?;
        let holds_tsc = host::holds_tsc();
        let now = self.vm.now()?;
        for handle in self.handles.iter().filter(|_| holds_tsc) {
            handle.tsc().take_back(now.tsc.wrapping_sub(stopped.tsc))?;
        }
        Ok(self.vm.set_clock(stopped.guest, now.realtime)?)
    }

    /// Gives each vCPU a non-maskable interrupt. A stopped one takes it when it is resumed.
    pub fn inject_nmi(&self) -> Result<(), Error> {
        for handle in &self.handles {
            handle.request(|vcpu| vcpu.nmi())??;
        }
        Ok(())
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
}

impl Group<'_> {
    /// Whether all vCPUs are stopped.
    pub fn is_stopped(&self) -> bool {
        !matches!(self.state.run, Run::Now)
    }

    /// Whether a debugger is attached, or traces.
    pub fn is_debugged(&self) -> bool {
        self.state.debugged
    }

    /// A debugger comes, or has left for good.
    pub fn set_debugged(&mut self, debugged: bool) {
        self.state.debugged = debugged;
    }

    /// Stops every vCPU and the guest's clock; returns once all have stopped.
    ///
    /// One that does not answer in time is in an access to a device, and stops behind it
    /// before it runs more of the guest. So the guest counts as stopped on an error too. The
    /// caller may resume it, or use [`Group::try_pause`].
    pub fn pause(&mut self) -> Result<(), Error> {
        self.pause_within(Duration::ZERO)
    }

    /// The same with more patience than the vCPUs' own.
    pub fn pause_within(&mut self, more: Duration) -> Result<(), Error> {
        let paused = vcpu::pause_all(&self.vcpus.handles, more);
        if matches!(self.state.run, Run::Now) {
            self.state.run = Run::StoppedAt(self.vcpus.vm.now()?);
        }
        Ok(paused?)
    }

    /// Stops every vCPU, or none: on an error the guest runs if it ran before.
    pub fn try_pause(&mut self) -> Result<(), Error> {
        let was_stopped = self.is_stopped();
        let paused = self.pause();
        if paused.is_err() && !was_stopped {
            self.resume_as_before()?;
        }
        paused
    }

    /// Resumes vCPU n with `controls[n]`; `None` keeps it stopped. The clock
    /// continues from where it was.
    pub fn resume(&mut self, controls: &[Option<DebugControl>]) -> Result<(), Error> {
        if let Run::StoppedAt(stopped) = self.state.run {
            self.vcpus.resume_clocks(stopped)?;
        }
        self.state.run = Run::Now;
        // In turn: the first to resume is the likeliest to stop all others
        // again at a breakpoint that they all run into.
        self.state.controls = controls.to_vec();
        let count = self.vcpus.handles.len();
        let first = self.state.first;
        self.state.first = (first + 1) % count;
        for vcpu in (first..first + count).map(|n| n % count) {
            if let Some(control) = controls[vcpu] {
                self.vcpus.handles[vcpu].resume(control)?;
            }
        }
        Ok(())
    }

    /// Resumes those vCPUs that were resumed last, in the same way.
    pub fn resume_as_before(&mut self) -> Result<(), Error> {
        self.resume(&self.state.controls.clone())
    }

    /// Lets all vCPUs run with nothing armed.
    pub fn resume_all(&mut self) -> Result<(), Error> {
        self.resume(&vec![
            Some(DebugControl::default());
            self.vcpus.handles.len()
        ])
    }
}

#[cfg(test)]
#[path = "vcpus_test.rs"]
mod tests;
