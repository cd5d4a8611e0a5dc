//! The services that devices need from the hypervisor.

use std::io;
use std::sync::Arc;

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::file_mapping::FileMapping;
use crate::virtio::page::RegisterPage;

/// Event and memory wiring inside the hypervisor. `vmm` implements it over a
/// KVM VM file descriptor; tests use a recording fake.
pub trait Hypervisor: Send + Sync {
    /// A 4-byte guest write of `value` to `addr` signals `fd` and does not exit
    /// (KVM_IOEVENTFD with datamatch).
    fn add_ioeventfd(&self, addr: GuestAddress, value: u32, fd: &EventFd) -> io::Result<()>;

    /// Undoes `add_ioeventfd` with the same arguments: the write exits again.
    fn remove_ioeventfd(&self, addr: GuestAddress, value: u32, fd: &EventFd) -> io::Result<()>;

    /// A write to `fd` raises an edge on global system interrupt `gsi`
    /// (KVM_IRQFD). Several descriptors may feed one interrupt.
    fn add_irqfd(&self, gsi: u32, fd: &EventFd) -> io::Result<()>;

    /// Maps `page` into the guest at `addr`, readable without an exit, trapping
    /// writes (KVM_MEM_READONLY). The hypervisor keeps the page alive.
    ///
    /// # Errors
    /// `Unsupported` where the host has no read-only slots: reads then exit.
    fn map_read_only(&self, addr: GuestAddress, page: &Arc<RegisterPage>) -> io::Result<()>;

    /// Maps `mapping` into the guest at `addr`, where nothing is mapped yet: accesses
    /// that it allows do not exit. The hypervisor keeps it alive until
    /// [`unmap`](Self::unmap).
    fn map(&self, addr: GuestAddress, mapping: FileMapping) -> io::Result<()>;

    /// Replaces a mapped file around `addr` by zeros if the file has been cut short
    /// ([`FileMapping::replace_if_cut`]).
    fn replace_if_cut(&self, addr: GuestAddress);

    /// Undoes `map` at `addr`: accesses exit again.
    fn unmap(&self, addr: GuestAddress) -> io::Result<()>;
}
