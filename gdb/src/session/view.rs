//! A stopped vCPU, as agent expressions see it.

use super::guest::Guest;
use crate::address::{VcpuId, VirtAddr};
use crate::agent::Vcpu;
use crate::arch::{Description, Registers};

/// Its registers, and memory by its page tables, without what is planted there.
pub(super) struct View<'a, 't> {
    pub guest: &'a Guest<'t>,
    pub vcpu: VcpuId,
    pub registers: &'a Registers,
    /// The description by which expressions number registers.
    pub known: Description,
}

impl Vcpu for View<'_, '_> {
    fn register(&self, number: usize) -> Option<u64> {
        let register = self.known.register(number)?;
        let mut value = [0; 8];
        value.copy_from_slice(&register.bytes(self.registers)[..8]);
        Some(u64::from_le_bytes(value))
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        self.guest.read_virtual(self.vcpu, VirtAddr(addr), buf) == buf.len()
    }
}
