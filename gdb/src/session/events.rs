//! Turns the guest's events into stops for gdb.

use host_io::errors::chain;

use super::Session;
use super::guest::Guest;
use super::int3::Met;
use super::state::{Action, Alone, ForeignInt3};
use super::stop::{Reason, Stop};
use crate::address::VcpuId;
use crate::breakpoints::Holder;
use crate::target::{Event, HW_SLOTS, StopReason};
use crate::trace::Status;

/// The treatment of a vCPU that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// gdb is told.
    Report(Reason),
    /// It resumes as before.
    Resume,
    /// It resumes, past an instruction that needs the protected pages open.
    Open,
    /// It resumes past an int3 that is not for gdb.
    Pass(ForeignInt3),
    /// It resumes past a breakpoint of gdb's whose condition is not met, or past a
    /// tracepoint.
    Skip,
}

impl Session<'_> {
    /// Takes the guest's events while a client is attached. There may be a stop
    /// to report afterwards.
    pub fn on_event(&mut self) {
        let Some(first) = self.guest.machine.next_event() else {
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

    /// Stops the guest for a moment, so that breakpoints whose pages have come are
    /// planted, and steps that an exception has interrupted take the time that it
    /// needs. There may be a stop to report afterwards.
    pub fn serve_pending(&mut self) {
        let events = self.halt(None);
        self.judge_all(events, None);
    }

    /// The same, while nobody is attached.
    pub fn serve_pending_unattended(&mut self) {
        self.serve_pending();
        self.after_unattended();
    }

    /// Takes the guest's events while nobody is attached.
    pub fn on_unattended_event(&mut self) {
        if self.is_running() {
            self.on_event();
            return self.after_unattended();
        }
        let Some(event) = self.guest.machine.next_event() else {
            return;
        };
        let stray = matches!(
            event,
            Event::Stopped(
                _,
                StopReason::Step
                    | StopReason::Int3
                    | StopReason::Hardware { .. }
                    | StopReason::Protected
                    | StopReason::Changed(_)
                    | StopReason::Trap(_)
                    | StopReason::GsBase
            )
        );
        // The VMM leaves it to the debugger to resume a reset guest.
        let reset = event == Event::Reset;
        self.note(event);
        if stray {
            // Nothing is armed, so that this should not be. It must not stay stopped.
            tracing::warn!("a vCPU stopped for gdb with no gdb attached; it resumes");
            self.halt_and_note();
        }
        if stray || reset {
            self.release_guest();
        }
    }

    /// Resets the guest for the user of a stopped one. It stays stopped, with gdb's
    /// breakpoints to be planted when it resumes.
    ///
    /// # Errors
    /// The target does not reset it, or not in time.
    pub(crate) fn reset_guest(&mut self) -> crate::target::Result<()> {
        self.guest.machine.inspect().reset()?;
        self.halt_and_note();
        Ok(())
    }

    /// gdb's Ctrl-C. There is a stop to report afterwards, unless the guest was
    /// stopped already: gdb has yet to read of that stop.
    pub fn interrupt(&mut self) {
        let Some(run) = &self.run else {
            return;
        };
        let vcpu = run.stepping().unwrap_or(self.selection.focus());
        let events = self.halt(None);
        self.judge_all(events, Some(vcpu));
    }

    /// Pauses the guest and takes the events until then.
    fn halt(&mut self, first: Option<Event>) -> Vec<Event> {
        if let Err(error) = self.guest.machine.pause() {
            self.notice(format!("not every vCPU stops: {}", chain(&error)));
        }
        // Each vCPU has stopped once at most; the bound is for a faulty target.
        let bound = 2 * self.guest.machine.vcpu_count() + 16;
        let mut events: Vec<_> = first.into_iter().collect();
        while events.len() < bound
            && let Some(event) = self.guest.machine.next_event()
        {
            events.push(event);
        }
        events
    }

    /// Pauses the guest where nobody waits for a stop.
    pub(super) fn halt_and_note(&mut self) {
        let events = self.halt(None);
        self.end_alone(events.contains(&Event::Reset));
        for event in events {
            self.note(event);
        }
    }

    /// Keeps the parts of an event without a stop that must not be forgotten.
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
        self.guest.machine.reset();
        self.guest.linux.reset(self.guest.machine.symbols());
        self.place.on_reset();
        self.guest.breakpoints.forget_planted();
        self.end_trace(Status::Error("the guest was reset".to_owned(), 0));
        self.vcpus.on_reset();
        self.notice(
            "the guest was reset; breakpoints are planted again when it resumes".to_owned(),
        );
    }

    fn on_crash(&mut self, vcpu: VcpuId, text: String) {
        self.notice(format!("{vcpu} crashed: {text}"));
        if let Some(state) = self.vcpus.get_mut(vcpu) {
            state.on_crash(text);
        }
    }

    /// Judges the events of one pause: gdb gets a stop of the `interrupted` vCPU,
    /// or of one that an event makes, or the run continues.
    fn judge_all(&mut self, events: Vec<Event>, interrupted: Option<VcpuId>) {
        let mut alone = self.end_alone(events.contains(&Event::Reset));
        let mut found = Vec::new();
        let changed = alone
            .as_ref()
            .and_then(|alone| self.changed_since(&alone.before, alone.vcpu));
        if let (Some(alone), Some(reason)) = (&alone, changed) {
            found.push((alone.vcpu, reason));
        }
        let mut reset = false;
        for event in events {
            let (vcpu, reason) = match event {
                Event::Exited(status) => return self.on_exit(status),
                Event::Reset => {
                    self.on_reset();
                    (alone, reset) = (None, true);
                    found.clear();
                    continue;
                }
                Event::Stopped(vcpu, _) if vcpu.0 >= self.guest.machine.vcpu_count() => continue,
                Event::Stopped(vcpu, reason) => (vcpu, reason),
            };
            let verdict = self.judge(vcpu, reason, alone.as_ref());
            if let Some(run) = &mut self.run {
                run.steps.end(vcpu);
            }
            let verdict = self.consider_condition(vcpu, verdict);
            if alone.as_ref().is_some_and(|alone| alone.vcpu == vcpu) {
                // It has left its breakpoint, whatever else it hit.
                alone = None;
                self.vcpus[vcpu].on_left();
            }
            match verdict {
                // The end of the step that has changed something.
                Verdict::Report(Reason::Step) if found.iter().any(|(other, _)| *other == vcpu) => {}
                Verdict::Report(reason) => found.push((vcpu, reason)),
                Verdict::Open => self.open_for(vcpu),
                Verdict::Pass(int3) => self.vcpus[vcpu].set_foreign_int3(int3),
                Verdict::Skip => self.skip(vcpu),
                Verdict::Resume => {}
            }
        }
        if let Some(alone) = alone {
            self.retry_alone(alone.vcpu, alone.opened);
        }
        self.note_handlers();
        if let Some(vcpu) = interrupted {
            self.finish_one(found, (vcpu, Reason::Interrupt));
        } else if reset {
            self.finish_one(found, (VcpuId(0), Reason::Reset));
        } else if let Some(fairest) = self.vcpus.fairest(&found) {
            self.finish_one(found, fairest);
        } else {
            self.proceed();
        }
    }

    /// Drops the hit of a breakpoint whose condition is not met, or which has commands
    /// in place of a stop, or is a tracepoint: the vCPU collects when it leaves it. gdb
    /// hears of modules first.
    fn consider_condition(&mut self, vcpu: VcpuId, verdict: Verdict) -> Verdict {
        let Verdict::Report(Reason::Software | Reason::Hardware) = verdict else {
            return verdict;
        };
        let Ok(registers) = self.guest.machine.registers(vcpu) else {
            return verdict;
        };
        let addr = registers.linear_rip();
        let breakpoints = &mut self.guest.breakpoints;
        let stops = !breakpoints.is_silent(addr) && breakpoints.conditions.stops(vcpu, &registers);
        let stops = stops && self.is_for_gdb(vcpu, &registers);
        if (stops || self.is_module_event(addr)) && self.have_modules_changed() {
            if stops {
                self.vcpus[vcpu].keep_hit(registers.rip);
            }
            Verdict::Report(Reason::Library)
        } else if stops {
            verdict
        } else {
            Verdict::Skip
        }
    }

    /// Sends `vcpu` past the breakpoint where it is, now or when gdb resumes it.
    fn skip(&mut self, vcpu: VcpuId) {
        if let Some(run) = &mut self.run {
            run.leave(vcpu);
        }
        self.mark_reported(vcpu);
    }

    /// Makes `vcpu` step alone, with the protected pages open.
    fn open_for(&mut self, vcpu: VcpuId) {
        if let Some(run) = &mut self.run {
            run.leave_opened(vcpu);
        }
    }

    /// Ends the run with one stop, and keeps the others as far as they must be kept.
    fn finish_one(&mut self, found: Vec<(VcpuId, Reason)>, chosen: (VcpuId, Reason)) {
        self.finish(Stop::At(chosen.0, chosen.1));
        self.vcpus[chosen.0].on_chosen();
        for (vcpu, reason) in found.into_iter().filter(|other| *other != chosen) {
            self.vcpus[vcpu].on_missed(reason);
            if vcpu == chosen.0 {
                // gdb is told of an interrupt where this vCPU has hit a breakpoint:
                // that is still to be reported.
                self.vcpus[vcpu].unmark_reported();
            }
        }
    }

    fn judge(&mut self, vcpu: VcpuId, reason: StopReason, alone: Option<&Alone>) -> Verdict {
        match reason {
            StopReason::Step => self.judge_step(vcpu),
            StopReason::Int3 if self.is_back(vcpu) => Verdict::Skip,
            StopReason::Int3 => self.judge_int3(vcpu, alone),
            // DR6 may name slots that were not armed (SDM volume 3, 18.2.3): then
            // it was a step, if anything.
            StopReason::Hardware { hit } => match self.guest.fired(hit) {
                Some(Reason::Software | Reason::Hardware) if self.is_back(vcpu) => Verdict::Skip,
                Some(reason) => {
                    self.count_step_that_did_more(vcpu);
                    Verdict::Report(reason)
                }
                None => self.judge_step(vcpu),
            },
            StopReason::Protected => Verdict::Open,
            StopReason::Changed(change) => {
                self.count_step_that_did_more(vcpu);
                match self.judge_change(vcpu, &change) {
                    Some(reason) => Verdict::Report(reason),
                    None => Verdict::Resume,
                }
            }
            StopReason::Trap(text) => {
                self.count_step_that_did_more(vcpu);
                self.notice(format!("{vcpu}: {text}"));
                Verdict::Report(Reason::Trap)
            }
            StopReason::GsBase => self.judge_gs_base(vcpu),
            StopReason::Crashed(text) => {
                self.on_crash(vcpu, text);
                Verdict::Report(Reason::Crash)
            }
        }
    }

    pub(super) fn judge_step(&mut self, vcpu: VcpuId) -> Verdict {
        if self
            .run
            .as_ref()
            .is_some_and(|run| run.steps.has_begun(vcpu))
        {
            self.count_step(vcpu);
        }
        let action = self.run.as_ref().and_then(|run| run.action(vcpu));
        match action {
            Some(Action::Step) => Verdict::Report(Reason::Step),
            Some(Action::Range(range)) => match self.guest.machine.registers(vcpu) {
                Ok(registers) if range.contains(&registers.linear_rip().0) => Verdict::Resume,
                _ => Verdict::Report(Reason::Step),
            },
            // It stepped alone, off a breakpoint, on our own behalf.
            Some(Action::Continue | Action::Hold) | None => Verdict::Resume,
        }
    }

    fn judge_int3(&self, vcpu: VcpuId, alone: Option<&Alone>) -> Verdict {
        let lifted = alone.is_some_and(|alone| alone.vcpu == vcpu);
        match self.guest.met_int3(vcpu, lifted) {
            Met::Ours => Verdict::Report(Reason::Software),
            Met::Foreign(int3) => Verdict::Pass(int3),
            Met::Nothing => Verdict::Resume,
        }
    }
}

impl Guest<'_> {
    /// Which of our slots fired. A watchpoint goes first: a breakpoint that fired
    /// too has not been executed yet.
    fn fired(&self, hit: u8) -> Option<Reason> {
        let armed = self.machine.armed_slots();
        let fired = (0..HW_SLOTS)
            .filter(|n| hit >> n & 1 != 0)
            .filter_map(|n| armed[n]);
        let mut reason = None;
        for slot in fired {
            match self.breakpoints.slots.holders(slot).next() {
                Some(Holder::Watch { kind, .. }) => {
                    let addr = slot.addr;
                    return Some(Reason::Watch { addr, kind });
                }
                Some(Holder::Software(_)) => reason = Some(Reason::Software),
                Some(Holder::Hardware(_)) => reason = Some(Reason::Hardware),
                None => {}
            }
        }
        reason
    }
}
