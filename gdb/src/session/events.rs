//! What the guest's events mean for gdb.

use super::resume::Action;
use super::run::Alone;
use super::{Reason, Session, Stop};
use crate::breakpoints::Holder;
use crate::target::{Event, HW_SLOTS, StopReason, VcpuId};

/// What becomes of a vCPU that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// gdb is told.
    Report(Reason),
    /// It goes on as before.
    GoOn,
    /// It goes on past an int3 that gdb planted for another virtual address.
    Leave,
    /// It goes on with the exception of its own int3.
    Inject,
}

impl Session<'_> {
    /// Takes the guest's events while a client is attached. There may be a stop
    /// to report afterwards.
    pub fn on_event(&mut self) {
        let Some(first) = self.machine.next_event() else {
            return;
        };
        if let Event::Exited(status) = first {
            self.on_exit(status);
        } else if self.is_running() {
            let events = self.halt(Some(first));
            self.judge_all(events, None);
        } else {
            self.note(first);
        }
    }

    /// Takes the guest's events while nobody is attached.
    pub fn on_unattended_event(&mut self) {
        let Some(event) = self.machine.next_event() else {
            return;
        };
        let stray = matches!(
            event,
            Event::Stopped(
                _,
                StopReason::Step | StopReason::Int3 | StopReason::Hardware { .. }
            )
        );
        self.note(event);
        if stray {
            // Nothing is armed, so that this should not be. It must not stay stopped.
            tracing::warn!("a vCPU stopped for gdb with no gdb attached; it goes on");
            self.detach();
        }
    }

    /// gdb's Ctrl-C. There is a stop to report afterwards, unless the guest was
    /// stopped already: gdb has yet to read of that stop.
    pub fn interrupt(&mut self) {
        let Some(run) = &self.run else {
            return;
        };
        let stepping = run.actions.iter().position(|action| match action {
            Action::Step | Action::Range(_) => true,
            Action::Continue | Action::Hold => false,
        });
        let vcpu = stepping.map_or(self.focus, VcpuId);
        let events = self.halt(None);
        self.judge_all(events, Some(vcpu));
    }

    /// Pauses the guest and takes what has happened until then.
    fn halt(&mut self, first: Option<Event>) -> Vec<Event> {
        if let Err(error) = self.machine.pause() {
            self.notice(format!("not every vCPU stops: {}", super::chain(&error)));
        }
        // Each vCPU has stopped once at most; the bound is for a faulty target.
        let bound = 2 * self.machine.vcpu_count() + 16;
        let mut events: Vec<_> = first.into_iter().collect();
        while events.len() < bound
            && let Some(event) = self.machine.next_event()
        {
            events.push(event);
        }
        events
    }

    /// Pauses the guest where nobody waits for a stop.
    pub(super) fn halt_and_note(&mut self) {
        let events = self.halt(None);
        self.end_alone();
        for event in events {
            self.note(event);
        }
    }

    /// Keeps what must not be forgotten of an event that no stop is made of.
    fn note(&mut self, event: Event) {
        match event {
            Event::Exited(status) => self.on_exit(status),
            Event::Reset => self.on_reset(),
            Event::Stopped(vcpu, StopReason::Crashed(text)) => self.on_crash(vcpu, text),
            Event::Stopped(..) => {}
        }
    }

    fn on_exit(&mut self, status: u8) {
        self.exited = Some(status);
        self.finish(Stop::Exited(status));
    }

    /// Memory and registers are new: nothing planted is left, nothing is pending.
    fn on_reset(&mut self) {
        self.machine.reset();
        self.breakpoints.forget_planted();
        self.reported.fill(None);
        self.pending.fill(None);
        self.crashes.fill(None);
        self.notice(
            "the guest was reset; breakpoints are planted again when it goes on".to_owned(),
        );
    }

    fn on_crash(&mut self, vcpu: VcpuId, text: String) {
        self.notice(format!("{vcpu} crashed: {text}"));
        if let Some(crash) = self.crashes.get_mut(vcpu.0) {
            *crash = Some(text);
        }
    }

    /// Judges the events of one pause. With `interrupted` gdb gets a stop of that
    /// vCPU, else the first that an event gives, else the run goes on.
    fn judge_all(&mut self, events: Vec<Event>, interrupted: Option<VcpuId>) {
        let mut alone = self.end_alone();
        let mut stop = interrupted.map(|vcpu| Stop::At(vcpu, Reason::Interrupt));
        let mut hits = Vec::new();
        let mut injections = Vec::new();
        for event in events {
            let (vcpu, reason) = match event {
                Event::Exited(status) => return self.on_exit(status),
                Event::Reset => {
                    self.on_reset();
                    alone = None;
                    stop.get_or_insert(Stop::At(VcpuId(0), Reason::Reset));
                    continue;
                }
                Event::Stopped(vcpu, _) if vcpu.0 >= self.machine.vcpu_count() => continue,
                Event::Stopped(vcpu, reason) => (vcpu, reason),
            };
            let verdict = self.judge(vcpu, reason, alone.as_ref());
            if alone.is_some_and(|alone| alone.vcpu == vcpu) {
                // It has left its breakpoint, whatever else it met.
                alone = None;
                self.reported[vcpu.0] = None;
            }
            match verdict {
                Verdict::Report(reason) if stop.is_none() => stop = Some(Stop::At(vcpu, reason)),
                Verdict::Report(reason @ (Reason::Watch { .. } | Reason::Crash)) => {
                    self.pending[vcpu.0] = Some(reason);
                }
                Verdict::Report(_) => hits.push(vcpu),
                Verdict::GoOn => {}
                Verdict::Leave => self.leave(vcpu),
                Verdict::Inject => injections.push(vcpu),
            }
        }
        if let Some(alone) = alone {
            self.leave(alone.vcpu);
        }
        match stop {
            Some(stop) => self.finish_with(stop, &hits),
            None => self.go_on_with(&injections),
        }
    }

    fn leave(&mut self, vcpu: VcpuId) {
        if let Some(run) = &mut self.run {
            run.leaving.insert(vcpu);
        }
    }

    fn finish_with(&mut self, stop: Stop, hits: &[VcpuId]) {
        let vcpu = match stop {
            Stop::At(vcpu, _) => Some(vcpu),
            Stop::Exited(_) => None,
        };
        self.finish(stop);
        // gdb is told of an interrupt where the vCPU has met a breakpoint: that
        // breakpoint is still to be reported.
        if let Some(vcpu) = vcpu.filter(|vcpu| hits.contains(vcpu)) {
            self.reported[vcpu.0] = None;
        }
    }

    fn go_on_with(&mut self, injections: &[VcpuId]) {
        for &vcpu in injections {
            if let Err(error) = self.machine.inject_int3(vcpu) {
                let error = super::chain(&error);
                return self.refuse(format!("{vcpu} cannot take its own int3: {error}"));
            }
        }
        self.go_on();
    }

    fn judge(&mut self, vcpu: VcpuId, reason: StopReason, alone: Option<&Alone>) -> Verdict {
        match reason {
            StopReason::Step => self.judge_step(vcpu),
            StopReason::Int3 => self.judge_int3(vcpu, alone),
            StopReason::Hardware { hit } => self.judge_hardware(hit),
            StopReason::Crashed(text) => {
                self.on_crash(vcpu, text);
                Verdict::Report(Reason::Crash)
            }
        }
    }

    fn judge_step(&self, vcpu: VcpuId) -> Verdict {
        let action = self.run.as_ref().and_then(|run| run.actions.get(vcpu.0));
        match action {
            Some(Action::Step) => Verdict::Report(Reason::Step),
            Some(Action::Range(range)) => match self.machine.registers(vcpu) {
                Ok(registers) if range.contains(&registers.rip) => Verdict::GoOn,
                _ => Verdict::Report(Reason::Step),
            },
            // It stepped alone, off a breakpoint, on our own behalf.
            Some(Action::Continue | Action::Hold) | None => Verdict::GoOn,
        }
    }

    fn judge_int3(&self, vcpu: VcpuId, alone: Option<&Alone>) -> Verdict {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return Verdict::GoOn;
        };
        // Nothing of ours was there: gdb planted over an int3 of the guest's.
        let was_lifted = |alone: &&Alone| alone.vcpu == vcpu && alone.rip == registers.rip;
        if alone.filter(was_lifted).is_some() {
            return Verdict::Inject;
        }
        let addr = registers.linear_rip();
        let Ok(translation) = self.machine.translate(vcpu, addr) else {
            return Verdict::Inject;
        };
        let planted = &self.breakpoints.planted;
        if planted.is_held_by(translation.phys, addr) {
            Verdict::Report(Reason::Software)
        } else if planted.contains(translation.phys) {
            Verdict::Leave
        } else {
            Verdict::Inject
        }
    }

    /// Which of our slots fired. A watchpoint goes first: a breakpoint that fired
    /// too has not been executed yet.
    fn judge_hardware(&self, hit: u8) -> Verdict {
        let armed = self.machine.armed_slots();
        let fired = (0..HW_SLOTS)
            .filter(|n| hit >> n & 1 != 0)
            .filter_map(|n| armed[n]);
        let mut verdict = Verdict::GoOn;
        for slot in fired {
            match self.breakpoints.slots.holders(slot).next() {
                Some(Holder::Watch { kind, .. }) => {
                    return Verdict::Report(Reason::Watch { slot, kind });
                }
                Some(Holder::Software(_)) => verdict = Verdict::Report(Reason::Software),
                Some(Holder::Hardware(_)) => verdict = Verdict::Report(Reason::Hardware),
                None => {}
            }
        }
        verdict
    }
}
