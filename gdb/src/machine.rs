//! The target, and the debugger's caches of its state while it is stopped.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use crate::arch::Registers;
use crate::inspect::Inspect;
use crate::paging::{AddressSpace, Translation, WalkError};
use crate::symbol_file::SymbolFile;
use crate::target::{
    Activity, Attachment, Event, HostTraps, HwSlots, PhysAddr, Result, Resume, SharedMemory,
    Target, VcpuId, VirtAddr,
};

/// A [`Target`] with a register cache and virtual addresses.
///
/// gdb reads the same registers many times while the guest is stopped, and a read
/// costs a round trip to the vCPU's thread. The cache is behind a `RefCell`
/// because gdbstub asks for thread information through a shared reference.
pub(crate) struct Machine<'t> {
    target: RefCell<&'t mut dyn Target>,
    cache: RefCell<Vec<Option<Registers>>>,
    /// The slots that the target was last told to arm; `None` when that is not known.
    armed: Option<(HwSlots, bool)>,
    /// The ranges that it was last told to watch; `None` likewise.
    watched: Option<Vec<Range<PhysAddr>>>,
    traps: Option<HostTraps>,
    resumes: u64,
}

impl<'t> Machine<'t> {
    pub fn new(target: &'t mut dyn Target) -> Self {
        let count = target.vcpu_count();
        Self {
            target: RefCell::new(target),
            cache: RefCell::new(vec![None; count]),
            armed: None,
            watched: Some(Vec::new()),
            traps: None,
            resumes: 0,
        }
    }

    pub fn vcpu_count(&self) -> usize {
        self.cache.borrow().len()
    }

    pub fn vcpus(&self) -> impl Iterator<Item = VcpuId> + use<> {
        (0..self.vcpu_count()).map(VcpuId)
    }

    pub fn next_event(&mut self) -> Option<Event> {
        self.target.get_mut().next_event()
    }

    pub fn attachment(&mut self, attachment: Attachment) {
        self.target.get_mut().attachment(attachment);
    }

    pub fn symbols(&self) -> Option<Arc<SymbolFile>> {
        self.target.borrow().symbols()
    }

    pub fn pause(&mut self) -> Result<()> {
        self.target.get_mut().pause()
    }

    pub fn resume(&mut self, actions: &[Resume]) -> Result<()> {
        self.cache.get_mut().fill(None);
        self.resumes += 1;
        self.target.get_mut().resume(actions)
    }

    /// How often the guest was let go.
    pub fn resumes(&self) -> u64 {
        self.resumes
    }

    /// Arms for the next resume; costs nothing when that is armed already.
    pub fn arm(&mut self, slots: HwSlots, int3: bool) -> Result<()> {
        if self.armed == Some((slots, int3)) {
            return Ok(());
        }
        self.armed = None;
        self.target.get_mut().arm(&slots, int3)?;
        self.armed = Some((slots, int3));
        Ok(())
    }

    /// Watches exactly these; costs nothing when it does already.
    pub fn watch(&mut self, ranges: Vec<Range<PhysAddr>>) -> Result<()> {
        if self.watched.as_ref() == Some(&ranges) {
            return Ok(());
        }
        self.watched = None;
        self.target.get_mut().watch(&ranges)?;
        self.watched = Some(ranges);
        Ok(())
    }

    /// The slots that are armed.
    pub fn armed_slots(&self) -> HwSlots {
        self.armed.map(|(slots, _)| slots).unwrap_or_default()
    }

    /// Forgets what is cached and armed: the guest was reset.
    pub fn reset(&mut self) {
        self.cache.get_mut().fill(None);
        self.armed = None;
    }

    pub fn inject_int3(&mut self, vcpu: VcpuId) -> Result<()> {
        self.forget_registers(vcpu);
        self.target.get_mut().inject_int3(vcpu)
    }

    pub fn activity(&self, vcpu: VcpuId) -> Result<Activity> {
        self.target.borrow_mut().activity(vcpu)
    }

    pub fn host_traps(&mut self) -> HostTraps {
        *self
            .traps
            .get_or_insert_with(|| self.target.get_mut().host_traps())
    }

    /// Registers of a stopped vCPU.
    pub fn registers(&self, vcpu: VcpuId) -> Result<Registers> {
        if let Some(Some(registers)) = self.cache.borrow().get(vcpu.0) {
            return Ok(*registers);
        }
        let registers = self.target.borrow_mut().registers(vcpu)?;
        if let Some(slot) = self.cache.borrow_mut().get_mut(vcpu.0) {
            *slot = Some(registers);
        }
        Ok(registers)
    }

    /// Whether the guest has breakpoints of its own in a vCPU's debug registers.
    pub fn has_own_breakpoints(&mut self, vcpu: VcpuId) -> bool {
        /// The enable bits of DR7 (SDM volume 3, 19.2.4).
        const ENABLED: u64 = 0xff;
        let registers = self.target.get_mut().debug_registers(vcpu);
        registers.is_ok_and(|registers| registers.dr7 & ENABLED != 0)
    }

    pub fn set_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<()> {
        // The hypervisor may adjust the values: read them back when needed.
        self.forget_registers(vcpu);
        self.target.get_mut().set_registers(vcpu, registers)
    }

    fn forget_registers(&mut self, vcpu: VcpuId) {
        if let Some(slot) = self.cache.get_mut().get_mut(vcpu.0) {
            *slot = None;
        }
    }

    /// The rest of the machine. Its actions on a vCPU may change the registers.
    pub fn inspect(&mut self) -> &mut dyn Inspect {
        self.cache.get_mut().fill(None);
        *self.target.get_mut()
    }

    pub fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        self.target.borrow().read_physical(addr, buf)
    }

    /// RAM for other threads.
    pub fn memory(&self) -> Arc<dyn SharedMemory> {
        self.target.borrow().memory()
    }

    pub fn write_physical(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()> {
        self.target.get_mut().write_physical(addr, data)
    }

    /// The page tables that a stopped vCPU uses.
    pub fn address_space(&self, vcpu: VcpuId) -> Result<AddressSpace> {
        Ok(AddressSpace::of(&self.registers(vcpu)?))
    }

    /// Translates in the address space of a stopped vCPU.
    pub fn translate(
        &self,
        vcpu: VcpuId,
        addr: VirtAddr,
    ) -> std::result::Result<Translation, AddressError> {
        let space = self.address_space(vcpu).map_err(AddressError::Registers)?;
        let read = |at, buf: &mut [u8]| self.read_physical(at, buf);
        space.translate(addr, read).map_err(AddressError::Walk)
    }
}

/// A virtual address cannot be translated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("the vCPU's registers cannot be read")]
    Registers(#[source] crate::target::TargetError),
    #[error(transparent)]
    Walk(WalkError),
}
