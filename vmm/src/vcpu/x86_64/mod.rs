//! An x86-64 vCPU: registers, boot state, debug facilities.

mod boot_msrs;
pub mod cpuid;
pub mod debug_events;
pub mod instructions;
mod kvm_lists;
mod msrs;
mod registers;
mod reset_state;
pub mod tsc;
mod xsave;

use std::io;

use devices::virtio::GuestMemory;
use gdb::arch::Registers;
use gdb::inspect::DebugRegisters;
use gdb::target::{Activity, StopReason};
use kvm_bindings::{
    KVM_CAP_SET_GUEST_DEBUG2, KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED, kvm_regs, kvm_sregs,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd};

use super::exit::{self, Exit, MsrAccess};
use crate::kvm::{Error, failed};
use cpuid::Cpuid;
use registers::{core_registers, write_sregs};
use reset_state::ResetState;

use debug_events::DebugEvents;
pub use debug_events::control::DebugControl;
use debug_events::place::Place;

/// IA32_KERNEL_GS_BASE (SDM volume 4).
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// A vCPU with its KVM descriptor; used by its own thread only.
pub struct Vcpu {
    fd: VcpuFd,
    reset_state: Option<Box<ResetState>>,
    debug: DebugEvents,
    xsave: xsave::Layout,
    /// KVM puts the registers beside each exit.
    tells_rip: bool,
}

impl Vcpu {
    /// Takes over a fresh vCPU and gives it its CPUID and the power-on values of its MSRs.
    pub fn new(kvm: &Kvm, fd: VcpuFd, cpuid: &Cpuid) -> Result<Self, Error> {
        cpuid.give_to(&fd).map_err(failed("KVM_SET_CPUID2"))?;
        boot_msrs::set(&fd, cpuid)?;
        let debug_flags = kvm
            .check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2.into())
            .max(0) as u32;
        Ok(Self {
            fd,
            reset_state: None,
            debug: DebugEvents::new(debug_flags),
            xsave: xsave::Layout::of(cpuid.leaves()),
            tells_rip: false,
        })
    }

    /// Enters the guest.
    pub fn run(&mut self) -> io::Result<Exit<'_>> {
        exit::run(&mut self.fd)
    }

    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Remembers the present state as the one that [`Vcpu::reset`] restores.
    pub fn save_reset_state(&mut self, kvm: &Kvm) -> Result<(), Error> {
        self.reset_state = Some(Box::new(ResetState::of(kvm, &self.fd)?));
        Ok(())
    }

    /// Back to the state that [`Vcpu::save_reset_state`] saw.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.debug.forget();
        let restore = |state: &ResetState| state.restore(&self.fd);
        self.reset_state.as_deref().map_or(Ok(()), restore)
    }

    /// Makes an NMI pending.
    pub fn nmi(&self) -> Result<(), Error> {
        self.fd.nmi().map_err(failed("KVM_NMI"))
    }

    /// Has KVM tell with every exit where the vCPU is, where the host can.
    pub fn note_rip_at_exits(&mut self, kvm: &Kvm) {
        self.tells_rip = kvm.check_extension_int(Cap::SyncRegs) & SyncReg::Register as i32 != 0;
        if self.tells_rip {
            self.fd.set_sync_valid_reg(SyncReg::Register);
        }
    }

    /// Where the vCPU was at its last exit, if that is noted.
    pub fn rip_at_exit(&mut self) -> Option<u64> {
        self.tells_rip.then(|| self.fd.sync_regs_mut().regs.rip)
    }

    /// Carries out the guest's access to a trapped register.
    pub fn access_msr(&mut self, access: MsrAccess) {
        let answer = match access.written {
            None => self.msr(access.index).ok(),
            Some(data) => self.set_msr(access.index, data).ok().map(|()| data),
        };
        exit::answer_msr(&mut self.fd, answer);
    }

    /// Reads one model-specific register.
    pub fn msr(&self, index: u32) -> Result<u64, Error> {
        msrs::read(&self.fd, index)
    }

    pub fn set_msr(&self, index: u32, data: u64) -> Result<(), Error> {
        msrs::write(&self.fd, index, data)
    }

    /// General, segment, control, floating-point and vector registers.
    pub fn registers(&self) -> Result<Registers, Error> {
        let area = xsave::area(&self.fd)?;
        Ok(Registers {
            k_gs_base: self.msr(MSR_KERNEL_GS_BASE)?,
            fpu: xsave::read_fpu(&area),
            vectors: self.xsave.read(&area),
            ..core_registers(&self.fd)?
        })
    }

    /// Writes the registers that [`Vcpu::registers`] reads. System registers
    /// are only written when they differ: a write that changes nothing must not
    /// be refused.
    pub fn set_registers(&mut self, registers: &Registers) -> Result<(), Error> {
        let old = self.registers()?;
        let sregs = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        let mut wanted = sregs;
        write_sregs(&mut wanted, &old, registers);
        if wanted != sregs {
            self.fd
                .set_sregs(&wanted)
                .map_err(failed("KVM_SET_SREGS"))?;
        }
        if registers.k_gs_base != old.k_gs_base {
            self.set_msr(MSR_KERNEL_GS_BASE, registers.k_gs_base)?;
        }
        if registers.vectors != old.vectors || registers.fpu != old.fpu {
            let mut area = xsave::area(&self.fd)?;
            xsave::write_fpu(&mut area, &registers.fpu);
            self.xsave.write(&mut area, &registers.vectors);
            xsave::set_area(&self.fd, &area)?;
        }
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = registers.gpr;
        let regs = kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: registers.rip,
            rflags: registers.rflags,
        };
        self.fd.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
    }

    /// The guest's own, whatever is armed for the debugger.
    pub fn debug_registers(&self) -> Result<DebugRegisters, Error> {
        let regs = self.fd.get_debug_regs();
        let regs = regs.map_err(failed("KVM_GET_DEBUGREGS"))?;
        Ok(DebugRegisters {
            addrs: regs.db,
            dr6: regs.dr6,
            dr7: regs.dr7,
        })
    }

    /// Raw access for the boot code.
    pub fn set_boot_state(&self, regs: &kvm_regs, sregs: &kvm_sregs) -> Result<(), Error> {
        self.fd.set_sregs(sregs).map_err(failed("KVM_SET_SREGS"))?;
        self.fd.set_regs(regs).map_err(failed("KVM_SET_REGS"))
    }

    pub fn sregs(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))
    }

    /// Whether the vCPU executes instructions or waits.
    pub fn activity(&self) -> Result<Activity, Error> {
        let state = self.fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?;
        Ok(match state.mp_state {
            KVM_MP_STATE_HALTED => Activity::Halted,
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => Activity::NotStarted,
            _ => Activity::Running,
        })
    }

    /// Tells a guest with kvmclock that it was stopped by its host, so that its
    /// watchdogs forgive the gap. A guest without kvmclock has nothing to tell.
    pub fn note_stop(&self) {
        if let Err(error) = self.fd.kvmclock_ctrl()
            && error.errno() != libc::EINVAL
        {
            tracing::debug!("KVM_KVMCLOCK_CTRL: {error}");
        }
    }

    /// Prepares to run with `control`. Returns the stop if that alone completes a step.
    pub fn begin(
        &mut self,
        control: &DebugControl,
        memory: &GuestMemory,
    ) -> Result<Option<StopReason>, Error> {
        let fd = &self.fd;
        self.debug.begin(Place { fd, memory }, control)
    }

    /// Handles a debug exception; `None` lets the vCPU resume.
    pub fn on_debug_exit(
        &mut self,
        debug: &exit::Debug,
        memory: &GuestMemory,
    ) -> Result<Option<StopReason>, Error> {
        let fd = &self.fd;
        self.debug.on_exit(Place { fd, memory }, debug)
    }

    /// Ends or continues a step when the exit that interrupted it is finished; `None`
    /// lets the vCPU resume.
    pub fn after_exit(&mut self, memory: &GuestMemory) -> Result<Option<StopReason>, Error> {
        let fd = &self.fd;
        self.debug.after_exit(Place { fd, memory })
    }

    /// The state of the debug facilities.
    pub fn debug(&mut self) -> &mut DebugEvents {
        &mut self.debug
    }
}
