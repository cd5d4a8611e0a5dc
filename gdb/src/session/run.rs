//! From a resume to a stop.
//!
//! A run has two phases. First each vCPU that has to leave a breakpoint, or to write
//! to a protected page, steps alone, one after the other, with that breakpoint lifted
//! and all pages open. Then everything is
//! armed and all go on as gdb asked. Every event ends the phase: the guest is
//! paused, the events are judged (see `events`), and either gdb is told of a stop
//! or the run goes on from the first phase.

use std::collections::{BTreeMap, BTreeSet};

use super::resume::Action;
use super::steps::Origin;
use super::{Reason, Session, Stop};
use crate::breakpoints::{Lifted, Snapshot};
use crate::target::{Resume, TargetError, VcpuId};

/// The guest is running, in gdb's eyes.
pub(super) struct Run {
    pub actions: Vec<Action>,
    /// vCPUs that leave a breakpoint before all go on.
    pub leaving: BTreeSet<VcpuId>,
    /// Those of them that need the protected pages open.
    pub opening: BTreeSet<VcpuId>,
    /// The pages stay open: there is code that cannot step over its writes.
    unwatched: bool,
    /// vCPUs whose step has begun and not ended.
    pub origins: BTreeMap<VcpuId, Origin>,
    /// Those whose lone step was given up in the handler of an exception.
    pub handling: BTreeMap<VcpuId, Origin>,
    /// The one that steps right now while the others are held.
    pub alone: Option<Alone>,
}

/// A vCPU that steps alone.
#[derive(Debug)]
pub(super) struct Alone {
    pub vcpu: VcpuId,
    /// Where it was.
    pub rip: u64,
    lifted: Lifted,
    /// Whether it needs the protected pages open.
    pub opened: bool,
    /// The watched bytes.
    pub before: Snapshot,
}

/// The guest cannot go on as gdb asked.
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
                "{vcpu} crashed: it cannot go on unless its registers are changed"
            ));
            self.finish(Stop::At(vcpu, Reason::Crash));
            return;
        }
        if let Err(error) = self.pause_devices(false) {
            return self.refuse(format!(
                "the devices cannot go on: {}",
                super::chain(&error)
            ));
        }
        self.watch_for_kernel();
        let leaves = |vcpu: &VcpuId| actions[vcpu.0] != Action::Hold && self.is_reported(*vcpu);
        let leaving = self.machine.vcpus().filter(leaves).collect();
        self.asked_for.set(None);
        self.physical = false;
        self.trace.selected = None;
        self.run = Some(Run {
            actions,
            leaving,
            opening: BTreeSet::new(),
            unwatched: false,
            origins: BTreeMap::new(),
            handling: BTreeMap::new(),
            alone: None,
        });
        self.go_on();
    }

    /// Ends the run before it began, and says why.
    pub(super) fn refuse(&mut self, text: String) {
        self.notice(text);
        if let Err(error) = self.machine.pause() {
            self.notice(format!(
                "the guest cannot be stopped: {}",
                super::chain(&error)
            ));
        }
        self.end_alone(false);
        self.finish(Stop::At(self.focus, Reason::Refused));
    }

    /// Goes on with the run.
    pub(super) fn go_on(&mut self) {
        if let Err(error) = self.advance() {
            self.refuse(format!(
                "the guest cannot be resumed: {}",
                super::chain(&error)
            ));
        }
    }

    fn advance(&mut self) -> Result<()> {
        self.leave_aliases();
        while let Some(vcpu) = self.next_leaving() {
            self.collect_at(vcpu);
            let lifted = self.lift_at(vcpu)?;
            let opened = self.opens(vcpu)?;
            if opened || lifted.is_some() {
                return self.step_alone(vcpu, lifted.unwrap_or_default(), opened);
            }
        }
        self.release()
    }

    fn next_leaving(&mut self) -> Option<VcpuId> {
        self.run.as_mut()?.leaving.pop_first()
    }

    /// Whether `vcpu` is to step with the pages open. One that cannot step goes on
    /// like all others, and nothing is watched until the next stop.
    fn opens(&mut self, vcpu: VcpuId) -> Result<bool> {
        let opening = |run: &mut Run| run.opening.remove(&vcpu);
        if !self.run.as_mut().is_some_and(opening) {
            return Ok(false);
        }
        match self.check_step(vcpu) {
            Err(error @ RunError::CannotStep { .. }) => {
                self.notice(format!(
                    "{error}, and it writes to a watched page: nothing is watched until the next stop"
                ));
                if let Some(run) = &mut self.run {
                    run.unwatched = true;
                }
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    fn step_alone(&mut self, vcpu: VcpuId, lifted: Lifted, opened: bool) -> Result<()> {
        let rip = self.machine.registers(vcpu)?.rip;
        let before = self.snapshot()?;
        if let Some(run) = &mut self.run {
            run.alone = Some(Alone {
                vcpu,
                rip,
                lifted,
                opened,
                before,
            });
        }
        self.check_step(vcpu)?;
        let mut actions = vec![Resume::Hold; self.machine.vcpu_count()];
        actions[vcpu.0] = Resume::Step;
        self.arm(lifted)?;
        self.machine.watch(Vec::new())?;
        self.begin_step(vcpu);
        Ok(self.machine.resume(&actions)?)
    }

    /// Lets all go on as gdb asked.
    fn release(&mut self) -> Result<()> {
        let Some(run) = &self.run else {
            return Ok(());
        };
        let mut actions: Vec<_> = run.actions.iter().map(Action::resume).collect();
        self.step_traced(&mut actions);
        self.plant_pending();
        self.inject_int3s()?;
        for vcpu in self.machine.vcpus() {
            if actions[vcpu.0] == Resume::Step {
                self.check_step(vcpu)?;
                actions[vcpu.0] = self.step_beside(vcpu);
            }
        }
        self.arm(Lifted::default())?;
        let unwatched = self.run.as_ref().is_some_and(|run| run.unwatched);
        let watched = match unwatched {
            true => Vec::new(),
            false => self.breakpoints.watched.ranges(),
        };
        self.machine.watch(watched)?;
        self.machine.resume(&actions)?;
        for (vcpu, action) in actions.iter().enumerate() {
            if *action != Resume::Hold {
                self.reported[vcpu] = None;
                self.collected[vcpu] = None;
            }
        }
        Ok(())
    }

    fn arm(&mut self, lifted: Lifted) -> Result<()> {
        let slots = self.breakpoints.slots.to_arm(lifted.slot);
        let int3 = !self.breakpoints.planted.is_empty();
        Ok(self.machine.arm(slots, int3)?)
    }

    /// Puts back what was lifted for the vCPU that stepped alone, and says which
    /// it was. The guest is paused. After a reset there is nothing to put back:
    /// memory is new.
    pub(super) fn end_alone(&mut self, reset: bool) -> Option<Alone> {
        let alone = self.run.as_mut()?.alone.take()?;
        if reset {
            return None;
        }
        if let Err(error) = self.breakpoints.replant(&mut self.machine, alone.lifted) {
            let error = super::chain(&error);
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
        if let Stop::At(vcpu, reason) = stop {
            self.focus = vcpu;
            self.mark_reported(vcpu);
            self.warn_of_own_breakpoints(vcpu);
            // AMD's KVM has reset a vCPU that has crashed: it shows 16-bit code.
            if reason != Reason::Crash {
                self.compare_description(vcpu);
            }
            self.settle_place();
            if self.devices.wanted
                && let Err(error) = self.pause_devices(true)
            {
                self.notice(format!(
                    "the devices do not stand still: {}",
                    super::chain(&error)
                ));
            }
        }
        self.stop = Some(stop);
    }

    /// Whether gdb was told of a stop of `vcpu` where it stands.
    fn is_reported(&self, vcpu: VcpuId) -> bool {
        let reported = self.reported[vcpu.0];
        reported.is_some() && reported == self.rip(vcpu)
    }

    /// A stop from before that gdb has not heard of, of a vCPU it resumes now.
    fn take_pending(&mut self, actions: &[Action]) -> Option<Stop> {
        for vcpu in self.machine.vcpus() {
            if actions[vcpu.0] == Action::Hold {
                continue;
            }
            match self.pending[vcpu.0].take() {
                Some(Reason::Watch { addr, .. }) if !self.is_watched(addr) => {}
                Some(reason) => return Some(Stop::At(vcpu, reason)),
                None => {}
            }
        }
        None
    }

    /// A vCPU that is to go on and cannot.
    fn crashed_among(&self, actions: &[Action]) -> Option<VcpuId> {
        self.machine
            .vcpus()
            .find(|vcpu| actions[vcpu.0] != Action::Hold && self.crash(*vcpu).is_some())
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
