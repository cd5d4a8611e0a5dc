//! From a resume to a stop.
//!
//! A run has two phases. First each vCPU that has to leave a breakpoint, or to write
//! to a protected page, steps alone, one after the other, with that breakpoint lifted
//! and all pages open. Then everything is armed and all resume as gdb asked. Every
//! event ends the phase: the guest is paused, the events are judged (see `events`), and
//! either gdb is told of a stop or the run continues from the first phase.

use host_io::errors::chain;

use super::Session;
use super::guest::Guest;
use super::state::{Action, Alone, Run};
use super::stop::{Reason, Stop};
use crate::address::VcpuId;
use crate::breakpoints::Lifted;
use crate::target::{Resume, TargetError};

/// The guest cannot resume as gdb asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("this host cannot single-step code at CPL {cpl}, where {vcpu} is")]
    CannotStep { vcpu: VcpuId, cpl: u8 },
    #[error(transparent)]
    Target(#[from] TargetError),
}

pub(super) type Result<T> = std::result::Result<T, RunError>;

impl Session<'_> {
    /// Starts a run. Afterwards the guest runs or there is a stop to report.
    pub(super) fn start(&mut self, actions: Vec<Action>) {
        if let Some(stop) = self.take_pending(&actions) {
            self.finish(stop);
            return;
        }
        if let Some(vcpu) = self.crashed_among(&actions) {
            self.notice(format!(
                "{vcpu} crashed: it cannot continue unless its registers are changed"
            ));
            self.finish(Stop::At(vcpu, Reason::Crash));
            return;
        }
        if self.tell_of_modules(&actions) {
            return;
        }
        if let Some(stop) = self.take_hit(&actions) {
            self.finish(stop);
            return;
        }
        if let Err(error) = self.devices.on_resume(&mut self.guest.machine) {
            return self.refuse(format!("the devices cannot resume: {}", chain(&error)));
        }
        self.watch_for_kernel();
        self.watch_for_modules();
        let leaves = |vcpu: &VcpuId| actions[vcpu.0] != Action::Hold && self.is_reported(*vcpu);
        let leaving = self.guest.machine.vcpus().filter(leaves).collect();
        self.selection.clear();
        self.trace.selected = None;
        self.run = Some(Run::new(actions, leaving));
        self.proceed();
    }

    /// Ends the run before it began, and says why.
    pub(super) fn refuse(&mut self, text: String) {
        self.notice(text);
        if let Err(error) = self.guest.machine.pause() {
            self.notice(format!("the guest cannot be stopped: {}", chain(&error)));
        }
        self.end_alone(false);
        self.finish(Stop::At(self.selection.focus(), Reason::Refused));
    }

    /// Continues the run.
    pub(super) fn proceed(&mut self) {
        if let Err(error) = self.advance() {
            self.refuse(format!("the guest cannot be resumed: {}", chain(&error)));
        }
    }

    fn advance(&mut self) -> Result<()> {
        self.leave_aliases();
        while let Some(vcpu) = self.next_leaving() {
            self.collect_at(vcpu);
            let lifted = self.guest.lift_at(vcpu)?;
            let opened = self.opens(vcpu)?;
            if opened || lifted.is_some() {
                return self.step_alone(vcpu, lifted.unwrap_or_default(), opened);
            }
        }
        self.release()
    }

    fn next_leaving(&mut self) -> Option<VcpuId> {
        self.run.as_mut()?.next_leaving()
    }

    /// Whether `vcpu` is to step with the pages open. One that cannot step resumes
    /// like all others, and nothing is watched until the next stop.
    fn opens(&mut self, vcpu: VcpuId) -> Result<bool> {
        let Some(run) = &mut self.run else {
            return Ok(false);
        };
        if !run.take_opening(vcpu) {
            return Ok(false);
        }
        match self.guest.check_step(vcpu) {
            Err(error @ RunError::CannotStep { .. }) => {
                run.stop_watching();
                self.notice(format!(
                    "{error}, and it writes to a watched page: nothing is watched until the next stop"
                ));
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    fn step_alone(&mut self, vcpu: VcpuId, lifted: Lifted, opened: bool) -> Result<()> {
        let rip = self.guest.machine.registers(vcpu)?.rip;
        let before = self.guest.snapshot()?;
        if let Some(run) = &mut self.run {
            run.begin_alone(Alone {
                vcpu,
                rip,
                lifted,
                opened,
                before,
            });
        }
        self.guest.check_step(vcpu)?;
        let mut actions = vec![Resume::Hold; self.guest.machine.vcpu_count()];
        actions[vcpu.0] = Resume::Step;
        self.guest.arm(lifted)?;
        self.guest.machine.watch(Vec::new())?;
        self.begin_step(vcpu);
        Ok(self.guest.machine.resume(&actions)?)
    }

    /// Resumes all as gdb asked.
    fn release(&mut self) -> Result<()> {
        let Some(run) = &self.run else {
            return Ok(());
        };
        let mut actions = run.resumes();
        let is_watching = run.is_watching();
        self.step_traced(&mut actions);
        self.plant_pending();
        self.inject_int3s()?;
        for vcpu in self.guest.machine.vcpus() {
            if actions[vcpu.0] == Resume::Step {
                self.guest.check_step(vcpu)?;
                actions[vcpu.0] = self.step_beside(vcpu);
            }
        }
        self.guest.arm(Lifted::default())?;
        let watched = match is_watching {
            true => self.guest.breakpoints.watched.ranges(),
            false => Vec::new(),
        };
        self.guest.machine.watch(watched)?;
        self.guest.machine.resume(&actions)?;
        for vcpu in self.guest.machine.vcpus() {
            if actions[vcpu.0] != Resume::Hold {
                self.vcpus[vcpu].on_resume();
            }
        }
        Ok(())
    }

    /// Puts back the breakpoint that was lifted for the vCPU that stepped alone,
    /// and returns the vCPU. The guest is paused. After a reset there is nothing
    /// to put back: memory is new.
    pub(super) fn end_alone(&mut self, reset: bool) -> Option<Alone> {
        let alone = self.run.as_mut()?.take_alone()?;
        if reset {
            return None;
        }
        if let Err(error) = self.guest.replant(alone.lifted) {
            let error = chain(&error);
            self.notice(format!(
                "the breakpoint at {:#x} is lost: {error}",
                alone.rip
            ));
        }
        Some(alone)
    }

    /// Ends the run with a stop for gdb.
    pub(super) fn finish(&mut self, stop: Stop) {
        self.run = None;
        self.unwatch_modules();
        if let Stop::At(vcpu, reason) = stop {
            self.selection.on_stop(vcpu);
            match reason {
                // A breakpoint there is still to be hit.
                Reason::Library => self.announce_modules(),
                _ => self.mark_reported(vcpu),
            }
            self.warn_of_own_breakpoints(vcpu);
            // AMD's KVM has reset a vCPU that has crashed: it shows 16-bit code.
            if reason != Reason::Crash {
                self.compare_description(vcpu);
            }
            self.settle_place();
            if let Err(error) = self.devices.on_stop(&mut self.guest.machine) {
                self.notice(format!("the devices do not stand still: {}", chain(&error)));
            }
        }
        self.stop = Some(stop);
    }

    /// Whether gdb was told of a stop of `vcpu` where it stands.
    fn is_reported(&self, vcpu: VcpuId) -> bool {
        self.vcpus[vcpu].is_reported_at(self.guest.rip(vcpu))
    }

    /// A stop from before that gdb has not heard of, of a vCPU it resumes now.
    fn take_pending(&mut self, actions: &[Action]) -> Option<Stop> {
        for vcpu in self.guest.machine.vcpus() {
            if actions[vcpu.0] == Action::Hold {
                continue;
            }
            match self.vcpus[vcpu].take_pending() {
                Some(Reason::Watch { addr, .. }) if !self.guest.is_watched(addr) => {}
                Some(reason) => return Some(Stop::At(vcpu, reason)),
                None => {}
            }
        }
        None
    }

    /// A vCPU that is to resume and cannot.
    fn crashed_among(&self, actions: &[Action]) -> Option<VcpuId> {
        let is_crashed =
            |vcpu: &VcpuId| actions[vcpu.0] != Action::Hold && self.crash(*vcpu).is_some();
        self.guest.machine.vcpus().find(is_crashed)
    }
}

impl Guest<'_> {
    fn arm(&mut self, lifted: Lifted) -> Result<()> {
        let slots = self.breakpoints.slots.to_arm(lifted.slot);
        let int3 = !self.breakpoints.planted.is_empty();
        Ok(self.machine.arm(slots, int3)?)
    }

    /// Takes the breakpoint at the RIP of a stopped vCPU out of its way.
    fn lift_at(&mut self, vcpu: VcpuId) -> Result<Option<Lifted>> {
        let addr = self.machine.registers(vcpu)?.linear_rip();
        let byte = self.translate(vcpu, addr).ok();
        let byte = byte.map(|translation| translation.phys);
        Ok(self.breakpoints.lift(&mut self.machine, addr, byte)?)
    }

    /// Puts back the breakpoint that was lifted.
    fn replant(&mut self, lifted: Lifted) -> crate::target::Result<()> {
        self.breakpoints.replant(&mut self.machine, lifted)
    }

    /// Refuses a step that would never come back.
    pub(super) fn check_step(&mut self, vcpu: VcpuId) -> Result<()> {
        let cpl = self.machine.registers(vcpu)?.cpl();
        let traps = self.machine.host_traps();
        let ring = if cpl == 3 { traps.ring3 } else { traps.ring0 };
        if ring.step {
            Ok(())
        } else {
            Err(RunError::CannotStep { vcpu, cpl })
        }
    }
}
