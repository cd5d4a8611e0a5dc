//! A vCPU and its memory, as debug events need them.

use devices::virtio::GuestMemory;
use gdb::arch::step::Guest;
use gdb::arch::{Registers, rflags};
use gdb::target::VirtAddr;
use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;

use crate::guest_virtual;
use crate::kvm::{Error, failed};
use crate::vcpu::x86_64::msrs;
use crate::vcpu::x86_64::registers::core_registers;

/// A vCPU's descriptor and the guest's memory.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub fd: &'a VcpuFd,
    pub memory: &'a GuestMemory,
}

impl Place<'_> {
    /// General, segment and control registers.
    pub fn registers(self) -> Result<Registers, Error> {
        core_registers(self.fd)
    }

    /// Moves RIP on.
    pub fn skip(self, len: u64) -> Result<(), Error> {
        self.change(|regs| regs.rip = regs.rip.wrapping_add(len))
    }

    /// Sets flags.
    pub fn set_flags(self, flags: u64) -> Result<(), Error> {
        self.change(|regs| regs.rflags |= flags)
    }

    fn change(self, change: impl FnOnce(&mut kvm_regs)) -> Result<(), Error> {
        let mut regs = self.fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
        change(&mut regs);
        self.fd.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
    }

    /// A byte of the code around RIP.
    pub fn byte(self, registers: &Registers, offset: i64) -> Option<u8> {
        let mut byte = [0];
        let at = registers.linear(registers.rip.wrapping_add_signed(offset));
        let read = guest_virtual::read(registers, self.memory, at, &mut byte);
        (read == 1).then_some(byte[0])
    }

    /// Has an instruction breakpoint fire where the handler of a page fault returns to,
    /// whose first instruction is next: the processor saves RF so that none does (SDM
    /// volume 3, 19.3.1.1).
    pub fn clear_saved_rf(self, now: &Registers) {
        /// Above the error code, RIP and CS.
        const FLAGS: u64 = 3 * 8;
        let at = VirtAddr(now.rsp().wrapping_add(FLAGS));
        let mut flags = [0; 8];
        if guest_virtual::read(now, self.memory, at, &mut flags) == flags.len() {
            let flags = u64::from_le_bytes(flags) & !rflags::RF;
            guest_virtual::write(now, self.memory, at, flags);
        }
    }
}

/// The guest as plans see it.
pub struct View<'a> {
    pub place: Place<'a>,
    pub registers: &'a Registers,
}

impl Guest for View<'_> {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> bool {
        guest_virtual::read(self.registers, self.place.memory, addr, buf) == buf.len()
    }

    fn msr(&self, index: u32) -> Option<u64> {
        msrs::read(self.place.fd, index).ok()
    }
}
