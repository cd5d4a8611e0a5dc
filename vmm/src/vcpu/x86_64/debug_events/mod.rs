//! Debug exceptions of a vCPU: some are gdb's, the others the guest's.
//!
//! KVM exits with every #DB while it has slots or a step to watch for, and with every
//! #BP while it is to intercept int3. docs/debug-events.md has the table of how each is
//! treated. In short:
//!
//! - A slot of gdb's and the end of a step stop the vCPU.
//! - Everything else is the guest's, and is delivered as the processor would have.
//! - The guest never finds a trap flag that it did not set (`gdb::arch::step`).
//!
//! This is the one place that calls KVM_SET_GUEST_DEBUG.

pub mod control;
pub mod deliver;
mod halt;
pub mod place;
pub mod slots;
mod stepping;
mod verdict;

use gdb::arch::{Registers, rflags};
use gdb::target::StopReason;
use kvm_bindings::{kvm_debugregs, kvm_guest_debug};
use kvm_ioctls::VcpuFd;

use crate::kvm::{Error, failed};
use crate::vcpu::exit::Debug;
use control::{DebugControl, Facilities, Step};
use deliver::Owed;
use place::Place;
use slots::DebugSlots;
use stepping::{Begun, InProgress, Stage, Stepper, Way};
use verdict::{Exception, dr6};

const INT1: u8 = 0xf1;
const POPF: u8 = 0x9d;
/// Vector of #BP.
const BREAKPOINT: u32 = 3;

/// A vCPU's debug facilities.
#[derive(Default)]
pub struct DebugEvents {
    /// KVM_GUESTDBG_* bits that this host takes.
    supported: u32,
    control: DebugControl,
    armed: Facilities,
    /// The guest's own debug registers when slots were armed.
    own: Option<kvm_debugregs>,
    step: Option<InProgress>,
    /// The exception that the guest has yet to be given.
    owed: Option<Owed>,
}

impl DebugEvents {
    /// `supported` is what KVM_CAP_SET_GUEST_DEBUG2 says.
    pub fn new(supported: u32) -> Self {
        Self {
            supported,
            ..Self::default()
        }
    }

    /// Whether int3 is intercepted.
    pub fn intercepts_int3(&self) -> bool {
        self.control.int3
    }

    /// Whether a step is in progress whose end an exit to user space can hide: KVM
    /// forgets the trap flag over a write that user space does.
    pub fn can_lose_step(&self) -> bool {
        self.armed.trap
    }

    /// Nothing is pending, and no step is in progress: the vCPU was reset.
    pub fn forget(&mut self) {
        self.own = None;
        self.step = None;
        self.owed = None;
    }

    /// The guest's own int3 is at RIP: it gets its #BP when the vCPU resumes.
    pub fn owe_int3(&mut self) {
        self.owed = Some(Owed::Breakpoint);
    }

    /// Prepares the vCPU to run. Its step may be done with that.
    pub fn begin(
        &mut self,
        place: Place<'_>,
        control: &DebugControl,
    ) -> Result<Option<StopReason>, Error> {
        self.end_trap(place, None)?;
        self.control = *control;
        let unfinished = self.step.take().filter(InProgress::is_a_run);
        self.step = match (control.step, unfinished) {
            (None, _) => None,
            (Some(Step::Finish), Some(step)) => Some(step),
            (Some(_), _) => self.plan(place)?,
        };
        let done = control.step.is_some() && self.step.is_none();
        self.arm(place)?;
        Ok(done.then_some(StopReason::Step))
    }

    /// Handles a debug exception; `None` lets the vCPU resume.
    pub fn on_exit(
        &mut self,
        place: Place<'_>,
        debug: &Debug,
    ) -> Result<Option<StopReason>, Error> {
        if debug.exception == BREAKPOINT {
            self.step = None;
            return Ok(Some(StopReason::Int3));
        }
        let registers = place.registers()?;
        let verdict = Exception {
            dr6: debug.dr6,
            slots: &self.armed.slots,
            is_trapping: self.armed.trap,
            guest_flag: self.guest_flag_was_set(place, &registers),
        }
        .verdict();
        if let Some(dr6) = verdict.guest {
            self.owe_debug(place, dr6, &registers)?;
        }
        let is_done = |step: InProgress| step.is_done(verdict.at_end, verdict.stepped, &registers);
        let done = self.step.is_some_and(is_done);
        let reason = match (verdict.gdb, done) {
            (0, true) => self.next_stage(place, &registers)?,
            (0, false) => None,
            (hit, _) => Some(StopReason::Hardware { hit }),
        };
        if verdict.at_end && !done && reason.is_none() {
            return self.pass(place);
        }
        match reason {
            Some(_) => self.step = None,
            None => self.arm(place)?,
        }
        Ok(reason)
    }

    /// An exit is finished on a vCPU whose step may have been lost.
    pub fn after_exit(&mut self, place: Place<'_>) -> Result<Option<StopReason>, Error> {
        let registers = place.registers()?;
        let moved = |step: &InProgress| step.origin != registers.linear_rip();
        if !self.step.as_ref().is_some_and(moved) {
            return Ok(None);
        }
        let reason = self.end_step(place, &registers)?;
        self.step = None;
        Ok(Some(reason))
    }

    /// Whether the guest had the trap flag set as the last instruction began.
    fn guest_flag_was_set(&self, place: Place<'_>, now: &Registers) -> bool {
        match self.step {
            // KVM does not show it.
            Some(step) if self.armed.trap => step.guest_flag,
            _ => now.rflags & rflags::TF != 0 || place.byte(now, -1) == Some(POPF),
        }
    }

    /// The plan for a step; `None` when the step is done already.
    fn plan(&mut self, place: Place<'_>) -> Result<Option<InProgress>, Error> {
        let stepper = Stepper {
            place,
            control: &self.control,
            registers: &place.registers()?,
        };
        Ok(match stepper.begin(self.owed)? {
            Begun::Step(step) => Some(step),
            Begun::Done => None,
            Begun::Int1(step) => {
                self.owed = Some(Owed::Debug { dr6: 0 });
                step
            }
        })
    }

    /// A step has come to its end, or to that of a part.
    fn next_stage(
        &mut self,
        place: Place<'_>,
        now: &Registers,
    ) -> Result<Option<StopReason>, Error> {
        match self.step.as_mut().map(|step| (step.stage, step)) {
            Some((Stage::Fault { here }, step)) => {
                place.clear_saved_rf(now);
                step.await_return(here);
                Ok(None)
            }
            Some((Stage::Handled, _)) => {
                self.step = self.plan(place)?;
                Ok(self.step.is_none().then_some(StopReason::Step))
            }
            Some((Stage::Last, _)) | None => self.end_step(place, now).map(Some),
        }
    }

    /// The step is done, and may have changed watched memory.
    fn end_step(&mut self, place: Place<'_>, now: &Registers) -> Result<StopReason, Error> {
        match self.step.map(|step| step.way) {
            Some(Way::Trap { guest }) => self.end_trap(place, Some(guest))?,
            Some(Way::Run {
                watched: Some(watched),
                ..
            }) if watched.has_changed(place, now) => {
                let hit = 1 << watched.slot;
                return Ok(StopReason::Hardware { hit });
            }
            _ => {}
        }
        Ok(StopReason::Step)
    }

    /// Takes the trap flag away; the guest's flag is then `own`, or its old one if the
    /// instruction has not run.
    fn end_trap(&mut self, place: Place<'_>, own: Option<bool>) -> Result<(), Error> {
        if !std::mem::take(&mut self.armed.trap) {
            return Ok(());
        }
        self.armed.block_interrupts = false;
        set_guest_debug(place.fd, &self.armed.guest_debug(self.supported))?;
        let now = place.registers()?.linear_rip();
        let not_begun = |step: InProgress| step.guest_flag && step.origin == now;
        match own.unwrap_or_else(|| self.step.is_some_and(not_begun)) {
            true => place.set_flags(rflags::TF),
            false => Ok(()),
        }
    }

    fn owe_debug(&mut self, place: Place<'_>, dr6: u64, now: &Registers) -> Result<(), Error> {
        // Intel's processors exit at an `int1`, AMD's behind it.
        if dr6 == 0 && place.byte(now, 0) == Some(INT1) {
            place.skip(1)?;
        }
        self.owed = Some(Owed::Debug { dr6 });
        Ok(())
    }

    /// Lets other code pass the place where the step ends, with RF.
    fn pass(&mut self, place: Place<'_>) -> Result<Option<StopReason>, Error> {
        if !self.control.host.honours_rf {
            self.step = None;
            return Ok(Some(StopReason::Step));
        }
        place.set_flags(rflags::RF)?;
        self.arm(place)?;
        Ok(None)
    }

    /// Arms the facilities that the debugger and the step need, and delivers the exception
    /// that the guest is owed.
    fn arm(&mut self, place: Place<'_>) -> Result<(), Error> {
        let facilities = self.facilities(place)?;
        let mut debug = facilities.guest_debug(self.supported);
        let inject = match self.owed.take() {
            Some(owed) => deliver::prepare(place, owed, self.control.host.delivery)?,
            None if facilities == self.armed && self.step.is_none() => return Ok(()),
            None => 0,
        };
        debug.control |= inject;
        // For a step always: KVM sets the trap flag at this call, and remembers where.
        match set_guest_debug(place.fd, &debug) {
            // Another exception is on its way, and comes first: it was the vCPU's own.
            Err(error) if inject != 0 && is_busy(&error) => {
                debug.control &= !inject;
                set_guest_debug(place.fd, &debug)?;
            }
            result => result?,
        }
        self.armed = facilities;
        Ok(())
    }

    /// The guest's debug registers, if slots are armed or about to be.
    ///
    /// KVM gives a guest that accesses them the processor's registers until the next
    /// exit, and then takes their contents for the guest's. Where slots are armed before
    /// the next entry, the contents are the slots. The guest gets its own back.
    fn own_registers(&mut self, place: Place<'_>) -> Result<Option<kvm_debugregs>, Error> {
        let is_wanted = self.step.is_some() || self.control.slots.iter().any(Option::is_some);
        let armed = &self.armed.slots;
        if armed.is_empty() && !is_wanted {
            return Ok(None);
        }
        let mut now = debug_registers(place.fd)?;
        let before = self
            .own
            .filter(|own| !armed.is_empty() && !armed.are_in(own));
        if let Some(own) = before.filter(|_| armed.are_in(&now)) {
            now.db = own.db;
            now.dr7 = own.dr7;
            now.dr6 = now.dr6 & !dr6::SLOTS | own.dr6 & dr6::SLOTS;
            place
                .fd
                .set_debug_regs(&now)
                .map_err(failed("KVM_SET_DEBUGREGS"))?;
        }
        self.own = Some(now);
        Ok(self.own)
    }

    fn facilities(&mut self, place: Place<'_>) -> Result<Facilities, Error> {
        let mut slots = DebugSlots::of(&self.control.slots);
        let (mut trap, mut block_interrupts) = (false, false);
        if let Some(step) = &self.step {
            // In a handler that has come into the step, interrupts are the guest's affair:
            // it may wait for one.
            block_interrupts = place.registers()?.linear_rip() == step.origin;
            match step.way {
                Way::Run { end, .. } => {
                    slots.stop_at(end.at, step.origin);
                }
                Way::Trap { .. } => trap = true,
            }
        }
        if let Some(own) = self.own_registers(place)?
            && !slots.is_empty()
            && self.control.host.honours_rf
        {
            slots.add_guest(&own);
        }
        Ok(Facilities {
            slots,
            int3: self.control.int3,
            trap,
            block_interrupts,
        })
    }
}

fn debug_registers(fd: &VcpuFd) -> Result<kvm_debugregs, Error> {
    fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))
}

fn is_busy(error: &Error) -> bool {
    error.source.raw_os_error() == Some(libc::EBUSY)
}

pub fn set_guest_debug(fd: &VcpuFd, debug: &kvm_guest_debug) -> Result<(), Error> {
    fd.set_guest_debug(debug)
        .map_err(failed("KVM_SET_GUEST_DEBUG"))
}
