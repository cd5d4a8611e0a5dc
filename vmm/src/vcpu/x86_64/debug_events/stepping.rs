//! A single step, from its plan to its end.

use gdb::arch::step::{self, End, Plan, vector};
use gdb::arch::{Registers, rflags};
use gdb::target::{HwKind, VirtAddr};

use super::control::DebugControl;
use super::deliver::Owed;
use super::halt;
use super::place::{Place, View};
use super::slots::DebugSlots;
use crate::guest_virtual;
use crate::kvm::Error;

/// A step in progress.
#[derive(Clone, Copy, Debug)]
pub struct InProgress {
    /// Where the vCPU was.
    pub origin: VirtAddr,
    /// Whether the guest had its trap flag set.
    pub guest_flag: bool,
    pub stage: Stage,
    pub way: Way,
}

/// The meaning of the end of a part of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The step is done.
    Last,
    /// The page fault that fetches the instruction is about to be handled.
    Fault { here: End },
    /// A handler has come back to the instruction, which can be stepped over now.
    Handled,
}

#[derive(Clone, Copy, Debug)]
pub enum Way {
    Run {
        end: End,
        watched: Option<Watched>,
    },
    /// With the trap flag; `guest` is the guest's own flag behind the instruction.
    Trap {
        guest: bool,
    },
}

/// A watchpoint whose slot is needed for the step.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub slot: usize,
    addr: VirtAddr,
    len: usize,
    before: [u8; 8],
}

/// How a step begins.
pub enum Begun {
    Step(InProgress),
    /// Done already.
    Done,
    /// An `int1` is done, but for the guest's exception. The step ends in the handler.
    Int1(Option<InProgress>),
}

impl InProgress {
    pub fn is_a_run(&self) -> bool {
        matches!(self.way, Way::Run { .. })
    }

    /// Whether a debug exception ends this part of the step.
    pub fn is_done(&self, at_end: bool, stepped: bool, now: &Registers) -> bool {
        match self.way {
            Way::Run { end, .. } => (at_end || stepped) && end.is_reached(now),
            Way::Trap { .. } => stepped,
        }
    }

    /// Waits until the handler returns to where the page fault came.
    pub fn await_return(&mut self, here: End) {
        self.stage = Stage::Handled;
        self.way = Way::Run {
            end: here,
            watched: None,
        };
    }
}

impl Watched {
    pub fn has_changed(&self, place: Place<'_>, now: &Registers) -> bool {
        let mut after = [0; 8];
        guest_virtual::read(now, place.memory, self.addr, &mut after[..self.len]);
        after != self.before
    }
}

/// A vCPU that is about to step.
pub struct Stepper<'a> {
    pub place: Place<'a>,
    pub control: &'a DebugControl,
    pub registers: &'a Registers,
}

impl Stepper<'_> {
    /// Plans the step over the instruction at RIP; the guest gets the exception `owed`
    /// before.
    pub fn begin(&self, owed: Option<Owed>) -> Result<Begun, Error> {
        let guest = self.registers.rflags & rflags::TF != 0;
        Ok(match (owed, Plan::of(self.registers, &self.view())) {
            (Some(Owed::Breakpoint), _) => self.end_in_handler(vector::BREAKPOINT),
            (_, Plan::Run(end)) if self.breaks_at(end) => Begun::Step(self.run(Stage::Last, end)),
            (_, Plan::Resume { end, .. })
                if !self.control.host.honours_rf && self.breaks_at(end) =>
            {
                Begun::Step(self.run(Stage::Last, end))
            }
            // Its frame must not have the trap flag in it.
            (Some(Owed::Debug { .. }), _) => Begun::Step(self.run(Stage::Handled, self.here())),
            (None, Plan::Fetch { handler }) if self.breaks_at(handler) => {
                let here = self.here();
                Begun::Step(self.run(Stage::Fault { here }, handler))
            }
            (None, Plan::Halt { len }) if !guest && halt::step_over(self.place, len)? => {
                Begun::Done
            }
            (None, Plan::Int1 { len }) => {
                self.place.skip(len)?;
                Begun::Int1(self.run_to_handler(vector::DEBUG))
            }
            (None, Plan::Trap { guest } | Plan::Resume { guest, .. }) => {
                Begun::Step(self.trap(guest))
            }
            (None, Plan::Run(_) | Plan::Fetch { .. } | Plan::Halt { .. }) => {
                Begun::Step(self.trap(guest))
            }
        })
    }

    fn view(&self) -> View<'_> {
        View {
            place: self.place,
            registers: self.registers,
        }
    }

    /// Whether an instruction breakpoint stops the vCPU there on this host.
    fn breaks_at(&self, end: End) -> bool {
        self.control.host.breaks[usize::from(end.cpl == 3)]
    }

    /// Where the vCPU is.
    fn here(&self) -> End {
        End {
            at: self.registers.linear_rip(),
            cpl: self.registers.cpl(),
            rsp: Some(self.registers.rsp()),
        }
    }

    fn end_in_handler(&self, vector: u8) -> Begun {
        self.run_to_handler(vector).map_or(Begun::Done, Begun::Step)
    }

    fn run_to_handler(&self, vector: u8) -> Option<InProgress> {
        let end = step::handler(self.registers, &self.view(), vector)?;
        Some(self.run(Stage::Last, end))
    }

    fn run(&self, stage: Stage, end: End) -> InProgress {
        let mut slots = DebugSlots::of(&self.control.slots);
        let given = slots.stop_at(end.at, self.registers.linear_rip());
        let watched = given.and_then(|slot| self.watch_without(slot));
        self.begun(stage, Way::Run { end, watched })
    }

    fn trap(&self, guest: bool) -> InProgress {
        self.begun(Stage::Last, Way::Trap { guest })
    }

    fn begun(&self, stage: Stage, way: Way) -> InProgress {
        InProgress {
            origin: self.registers.linear_rip(),
            guest_flag: self.registers.rflags & rflags::TF != 0,
            stage,
            way,
        }
    }

    /// The memory that a slot watched for writes.
    fn watch_without(&self, slot: usize) -> Option<Watched> {
        let watch = self.control.slots[slot].filter(|slot| slot.kind != HwKind::Execute)?;
        let (addr, len) = (watch.addr, usize::from(watch.len));
        let mut before = [0; 8];
        let buf = before.get_mut(..len)?;
        guest_virtual::read(self.registers, self.place.memory, addr, buf);
        Some(Watched {
            slot,
            addr,
            len,
            before,
        })
    }
}
