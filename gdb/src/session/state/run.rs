//! One run of the guest, from a resume to a stop.

use std::collections::BTreeSet;

use super::action::Action;
use super::steps::Steps;
use crate::address::VcpuId;
use crate::breakpoints::{Lifted, Snapshot};
use crate::target::Resume;

/// The guest is running, in gdb's eyes.
#[derive(Debug)]
pub(in crate::session) struct Run {
    actions: Vec<Action>,
    /// vCPUs that leave a breakpoint before all resume.
    leaving: BTreeSet<VcpuId>,
    /// Those of them that need the protected pages open.
    opening: BTreeSet<VcpuId>,
    /// The pages stay open: there is code that cannot step over its writes.
    unwatched: bool,
    pub steps: Steps,
    /// The vCPU that steps right now while the others are held.
    alone: Option<Alone>,
}

/// A vCPU that steps alone.
#[derive(Debug)]
pub(in crate::session) struct Alone {
    pub vcpu: VcpuId,
    /// Where it was.
    pub rip: u64,
    pub lifted: Lifted,
    /// Whether it needs the protected pages open.
    pub opened: bool,
    /// The watched bytes.
    pub before: Snapshot,
}

impl Run {
    /// One action for each vCPU, and those that leave a breakpoint first.
    pub fn new(actions: Vec<Action>, leaving: BTreeSet<VcpuId>) -> Self {
        Self {
            actions,
            leaving,
            opening: BTreeSet::new(),
            unwatched: false,
            steps: Steps::default(),
            alone: None,
        }
    }

    pub fn action(&self, vcpu: VcpuId) -> Option<&Action> {
        self.actions.get(vcpu.0)
    }

    pub fn holds(&self, vcpu: VcpuId) -> bool {
        self.action(vcpu) == Some(&Action::Hold)
    }

    /// How all resume as gdb asked.
    pub fn resumes(&self) -> Vec<Resume> {
        self.actions.iter().map(Action::resume).collect()
    }

    /// The first vCPU that gdb has step.
    pub fn stepping(&self) -> Option<VcpuId> {
        let steps = |action: &Action| matches!(action, Action::Step | Action::Range(_));
        self.actions.iter().position(steps).map(VcpuId)
    }

    /// Makes `vcpu` leave its breakpoint before all resume.
    pub fn leave(&mut self, vcpu: VcpuId) {
        self.leaving.insert(vcpu);
    }

    /// The same, with the protected pages open.
    pub fn leave_opened(&mut self, vcpu: VcpuId) {
        self.leaving.insert(vcpu);
        self.opening.insert(vcpu);
    }

    /// Takes the next vCPU that is to leave.
    pub fn next_leaving(&mut self) -> Option<VcpuId> {
        self.leaving.pop_first()
    }

    /// Whether `vcpu` needs the protected pages open, once.
    pub fn take_opening(&mut self, vcpu: VcpuId) -> bool {
        self.opening.remove(&vcpu)
    }

    /// Protects no pages until the run ends.
    pub fn stop_watching(&mut self) {
        self.unwatched = true;
    }

    pub fn is_watching(&self) -> bool {
        !self.unwatched
    }

    pub fn begin_alone(&mut self, alone: Alone) {
        self.alone = Some(alone);
    }

    pub fn take_alone(&mut self) -> Option<Alone> {
        self.alone.take()
    }
}
