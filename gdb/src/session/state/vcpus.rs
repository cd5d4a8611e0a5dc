//! The state of each vCPU that is remembered from one stop to the next.

use std::ops::{Index, IndexMut};

use crate::address::VcpuId;
use crate::session::stop::Reason;

/// A vCPU at an int3 that is not for gdb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct ForeignInt3 {
    /// Where it was then. Once it is elsewhere this is void.
    pub rip: u64,
    pub kind: Int3Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Int3Kind {
    /// gdb's, for another virtual address.
    Alias,
    Guest,
    /// The guest's, beneath one of gdb's that was lifted.
    Beneath,
}

/// The remembered state of one vCPU.
#[derive(Clone, Debug, Default)]
pub(in crate::session) struct VcpuState {
    /// The RIP of the stop that gdb was told of, until the vCPU runs.
    reported: Option<u64>,
    /// The RIP of a tracepoint that it has collected for and not executed yet.
    collected: Option<u64>,
    /// A stop that gdb was not told of and that will not come again.
    pending: Option<Reason>,
    /// The RIP of a breakpoint of gdb's that it has hit, while gdb reads of modules
    /// first.
    hit: Option<u64>,
    /// How many times in a row its hit was passed over for another vCPU's.
    missed: u32,
    /// An int3 that is not for gdb and that it has yet to be let past.
    foreign_int3: Option<ForeignInt3>,
    /// Why it cannot resume.
    crash: Option<String>,
}

impl VcpuState {
    /// gdb knows that it stands at `rip`, if that is known.
    pub fn mark_reported(&mut self, rip: Option<u64>) {
        self.reported = rip;
    }

    pub fn is_reported_at(&self, rip: Option<u64>) -> bool {
        self.reported.is_some() && self.reported == rip
    }

    /// gdb was told of a stop, but not of the breakpoint that the vCPU has hit.
    pub fn unmark_reported(&mut self) {
        self.reported = None;
    }

    /// It has hit a breakpoint at `rip`, and gdb is to hear of something else first.
    pub fn keep_hit(&mut self, rip: u64) {
        self.hit = Some(rip);
    }

    /// Whether gdb has yet to hear of the breakpoint that it has hit at `rip`; now it
    /// does, or has none there any more.
    pub fn take_hit(&mut self, rip: Option<u64>) -> bool {
        let hit = self.hit.take();
        hit.is_some() && hit == rip
    }

    pub fn mark_collected(&mut self, rip: u64) {
        self.collected = Some(rip);
    }

    pub fn has_collected_at(&self, rip: u64) -> bool {
        self.collected == Some(rip)
    }

    /// It resumes: it hits a breakpoint at its RIP again.
    pub fn on_resume(&mut self) {
        self.reported = None;
        self.collected = None;
        self.hit = None;
    }

    /// It has stepped alone off where it stood, and so past an int3 there.
    pub fn on_left(&mut self) {
        self.on_resume();
        self.foreign_int3 = None;
    }

    /// gdb is told of its stop.
    pub fn on_chosen(&mut self) {
        self.missed = 0;
    }

    /// gdb is told of another stop than this one of its.
    pub fn on_missed(&mut self, reason: Reason) {
        self.missed = self.missed.saturating_add(1);
        if reason.comes_once() {
            self.pending = Some(reason);
        }
    }

    pub fn take_pending(&mut self) -> Option<Reason> {
        self.pending.take()
    }

    pub fn set_foreign_int3(&mut self, int3: ForeignInt3) {
        self.foreign_int3 = Some(int3);
    }

    /// The int3 that it has to be let past at `rip`.
    pub fn foreign_int3_at(&self, rip: Option<u64>) -> Option<Int3Kind> {
        let int3 = self.foreign_int3?;
        (rip == Some(int3.rip)).then_some(int3.kind)
    }

    pub fn forget_foreign_int3(&mut self) {
        self.foreign_int3 = None;
    }

    pub fn crash(&self) -> Option<&str> {
        self.crash.as_deref()
    }

    pub fn on_crash(&mut self, text: String) {
        self.crash = Some(text);
    }

    /// It has been given another state than the one it crashed in.
    pub fn mend(&mut self) {
        self.crash = None;
        if self.pending == Some(Reason::Crash) {
            self.pending = None;
        }
    }
}

/// All of them. The number of vCPUs is constant.
#[derive(Debug)]
pub(in crate::session) struct Vcpus(Vec<VcpuState>);

impl Vcpus {
    pub fn new(count: usize) -> Self {
        Self(vec![VcpuState::default(); count])
    }

    pub fn get(&self, vcpu: VcpuId) -> Option<&VcpuState> {
        self.0.get(vcpu.0)
    }

    pub fn get_mut(&mut self, vcpu: VcpuId) -> Option<&mut VcpuState> {
        self.0.get_mut(vcpu.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = &VcpuState> {
        self.0.iter()
    }

    /// The first that has crashed.
    pub fn crashed(&self) -> Option<VcpuId> {
        let place = self.0.iter().position(|state| state.crash.is_some());
        place.map(VcpuId)
    }

    /// Of these stops, that of the vCPU that has waited longest for gdb to be told; the
    /// first of equals.
    pub fn fairest(&self, stops: &[(VcpuId, Reason)]) -> Option<(VcpuId, Reason)> {
        let waited = |(vcpu, _): &&(VcpuId, Reason)| std::cmp::Reverse(self[*vcpu].missed);
        stops.iter().min_by_key(waited).copied()
    }

    /// Registers are new, and all vCPUs run.
    pub fn on_reset(&mut self) {
        for state in &mut self.0 {
            state.reported = None;
            state.pending = None;
            state.hit = None;
            state.crash = None;
        }
    }

    /// A trace begins.
    pub fn forget_collected(&mut self) {
        for state in &mut self.0 {
            state.collected = None;
        }
    }

    /// gdb leaves, and its trace stays: who has collected, and who is past a
    /// tracepoint, is the trace's business.
    pub fn forget_all_but_tracing(&mut self) {
        for state in &mut self.0 {
            *state = VcpuState {
                reported: state.reported,
                collected: state.collected,
                ..VcpuState::default()
            };
        }
    }

    pub fn forget_all(&mut self) {
        self.0.fill(VcpuState::default());
    }
}

impl Index<VcpuId> for Vcpus {
    type Output = VcpuState;

    fn index(&self, vcpu: VcpuId) -> &VcpuState {
        &self.0[vcpu.0]
    }
}

impl IndexMut<VcpuId> for Vcpus {
    fn index_mut(&mut self, vcpu: VcpuId) -> &mut VcpuState {
        &mut self.0[vcpu.0]
    }
}
