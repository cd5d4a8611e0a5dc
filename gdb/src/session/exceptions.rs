//! Single steps into which an exception comes.
//!
//! The user of a debugger wants the instruction done, not its page fault seen.
//! Where the processor delivers the exception it is so by itself: the handler runs
//! without the trap flag, comes back to the instruction, and the step ends behind
//! that. Where KVM delivers it (PVM, shadow paging) the step ends in the handler,
//! which is then stepped through until it has come back.
//!
//! In both cases the trap flag of the step is among the flags that the exception
//! has saved. If the step is given up before the handler returns, it would then
//! hit the guest itself, as a debug exception that it knows nothing of: so it is
//! taken out there.

use super::Session;
use super::events::Verdict;
use crate::arch::{Registers, efer, rflags};
use crate::target::{Resume, VcpuId, VirtAddr};

/// How far above the stack pointer the frame may lie: KVM lets the handler execute
/// an instruction or two, which may push.
const SEARCHED: u64 = 8;
/// Size of an element of the frame.
const WORD: u64 = 8;

/// Where a vCPU was when its step began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    rip: u64,
    rsp: u64,
    cs: u16,
    rflags: u64,
}

/// What an exception pushes in 64-bit mode, from the lower addresses up, but for an
/// error code and SS (SDM volume 3, 6.14.2).
struct Frame {
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
}

impl Origin {
    pub fn of(registers: &Registers) -> Self {
        Self {
            rip: registers.rip,
            rsp: registers.rsp(),
            cs: registers.cs.selector,
            rflags: registers.rflags,
        }
    }

    /// Whether a vCPU is out of the handler that was entered here.
    fn is_left_for(&self, registers: &Registers) -> bool {
        registers.rsp() == self.rsp && registers.cs.selector == self.cs
    }

    fn saved_it(&self, frame: &Frame) -> bool {
        frame.rip == self.rip && frame.cs == self.cs.into() && frame.rsp == self.rsp
    }

    /// Where the frame may begin: on the same stack, which is aligned for it, or
    /// on the one that the vCPU has now.
    fn places(&self, now: u64) -> impl Iterator<Item = u64> + use<> {
        let same_stack = (self.rsp & !0xf).wrapping_sub(5 * WORD);
        // What lies below the stack pointer is from an earlier exception.
        let same_stack = Some(same_stack).filter(|place| *place >= now);
        let near = (0..SEARCHED).map(move |n| now.wrapping_add(n * WORD));
        same_stack.into_iter().chain(near)
    }
}

impl Session<'_> {
    /// Remembers where `vcpu` is, whose step begins.
    pub(super) fn begin_step(&mut self, vcpu: VcpuId) {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return;
        };
        if let Some(run) = &mut self.run {
            run.origins.insert(vcpu, Origin::of(&registers));
        }
    }

    /// What becomes of a vCPU whose step has ended, if an exception has to do
    /// with it.
    pub(super) fn judge_exception(&mut self, vcpu: VcpuId) -> Option<Verdict> {
        let registers = self.machine.registers(vcpu).ok()?;
        let origin = self.run.as_mut()?.origins.remove(&vcpu)?;
        if self.is_back(vcpu) {
            return Some(Verdict::Skip);
        }
        let run = self.run.as_mut()?;
        match run.handling.get(&vcpu).copied() {
            Some(outside) if !outside.is_left_for(&registers) => Some(Verdict::GoOn),
            Some(_) => {
                run.handling.remove(&vcpu);
                None
            }
            None if self.clear_saved_flag(vcpu, &origin, &registers) => {
                self.run.as_mut()?.handling.insert(vcpu, origin);
                Some(Verdict::GoOn)
            }
            None => None,
        }
    }

    /// Whether `vcpu` has come back from the handler of an exception to the
    /// instruction that it came into, which is tried again now. The breakpoint there
    /// it has left before, and a tracepoint has collected.
    pub(super) fn is_back(&mut self, vcpu: VcpuId) -> bool {
        let (Some(run), Ok(registers)) = (&mut self.run, self.machine.registers(vcpu)) else {
            return false;
        };
        let back =
            |outside: &Origin| outside.is_left_for(&registers) && registers.rip == outside.rip;
        if !run.handling.get(&vcpu).is_some_and(back) {
            return false;
        }
        run.handling.remove(&vcpu);
        self.collected[vcpu.0] = Some(registers.rip);
        true
    }

    /// Deals with steps that have not ended because the guest was paused for another
    /// vCPU. One into which an exception has come, and which is to go on, is in the
    /// handler now and goes through it; of one that is not, nothing must be left.
    pub(super) fn settle_steps(&mut self, actions: &[Resume]) {
        let Some(run) = &mut self.run else {
            return;
        };
        for (vcpu, origin) in std::mem::take(&mut run.origins) {
            let Ok(registers) = self.machine.registers(vcpu) else {
                continue;
            };
            let came = self.clear_saved_flag(vcpu, &origin, &registers);
            if let Some(run) = &mut self.run
                && came
                && actions[vcpu.0] == Resume::Step
            {
                run.handling.entry(vcpu).or_insert(origin);
            }
        }
    }

    /// Whether a vCPU that stepped is behind the instruction, and in no exception.
    pub(super) fn has_left_origin(&mut self, vcpu: VcpuId) -> bool {
        let Some(run) = &self.run else {
            return false;
        };
        let (origin, handling) = (run.origins.get(&vcpu), run.handling.contains_key(&vcpu));
        let (Some(&origin), Ok(registers)) = (origin, self.machine.registers(vcpu)) else {
            return false;
        };
        !handling
            && registers.rip != origin.rip
            && !self.clear_saved_flag(vcpu, &origin, &registers)
    }

    /// Makes sure that no step that is given up comes back to the guest.
    pub(super) fn give_up_steps(&mut self) {
        let Some(run) = &mut self.run else {
            return;
        };
        for (vcpu, origin) in std::mem::take(&mut run.origins) {
            if let Ok(registers) = self.machine.registers(vcpu) {
                self.clear_saved_flag(vcpu, &origin, &registers);
            }
        }
    }

    /// Takes the trap flag out of what the exception has saved that came into the
    /// step from `origin`; whether there is such an exception.
    fn clear_saved_flag(&mut self, vcpu: VcpuId, origin: &Origin, now: &Registers) -> bool {
        /// The longest instruction: behind it is where a step ends.
        const LONGEST: u64 = 15;
        let ahead = now.rip.wrapping_sub(origin.rip);
        if now.efer & efer::LMA == 0 || ahead <= LONGEST || origin.rflags & rflags::TF != 0 {
            return false;
        }
        for place in origin.places(now.rsp()) {
            let Some(frame) = self.frame_at(vcpu, place) else {
                continue;
            };
            if origin.saved_it(&frame) {
                let flags = frame.rflags & !rflags::TF;
                let addr = VirtAddr(place.wrapping_add(2 * WORD));
                if let Err(error) = self.write_virtual(vcpu, addr, &flags.to_le_bytes()) {
                    let error = super::chain(&error);
                    self.notice(format!("{vcpu} keeps the trap flag of its step: {error}"));
                }
                return true;
            }
        }
        false
    }

    fn frame_at(&self, vcpu: VcpuId, addr: u64) -> Option<Frame> {
        let mut bytes = [0; 4 * WORD as usize];
        let read = self.read_virtual(vcpu, VirtAddr(addr), &mut bytes);
        let mut words = bytes.chunks_exact(WORD as usize).map(|word| {
            let word = <[u8; WORD as usize]>::try_from(word);
            word.map_or(0, u64::from_le_bytes)
        });
        let mut next = || words.next().filter(|_| read == bytes.len());
        Some(Frame {
            rip: next()?,
            cs: next()?,
            rflags: next()?,
            rsp: next()?,
        })
    }
}
