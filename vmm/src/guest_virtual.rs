//! Guest memory by virtual address, for the VMM's own use.

use devices::virtio::GuestMemory;
use gdb::arch::Registers;
use gdb::paging::AddressSpace;
use gdb::target::{PhysAddr, TargetError, VirtAddr};
use vm_memory::{Bytes, GuestAddress};

/// Size of the smallest page.
const PAGE: u64 = 4096;

/// Reads at a linear address of a vCPU with these registers, as far as pages are there;
/// returns how many bytes that were. Access rights are not checked.
pub fn read(registers: &Registers, memory: &GuestMemory, addr: VirtAddr, buf: &mut [u8]) -> usize {
    let mut done = 0;
    while done < buf.len() {
        let addr = VirtAddr(addr.0.wrapping_add(done as u64));
        let left = (PAGE - addr.0 % PAGE) as usize;
        let end = buf.len().min(done + left);
        let piece = &mut buf[done..end];
        let physical = translate(registers, memory, addr);
        if physical.is_none_or(|at| memory.read_slice(piece, GuestAddress(at)).is_err()) {
            break;
        }
        done = end;
    }
    done
}

/// Writes at a linear address; whether all of it could be.
pub fn write(registers: &Registers, memory: &GuestMemory, addr: VirtAddr, word: u64) -> bool {
    let physical = translate(registers, memory, addr);
    physical.is_some_and(|at| memory.write_obj(word, GuestAddress(at)).is_ok())
}

fn translate(registers: &Registers, memory: &GuestMemory, addr: VirtAddr) -> Option<u64> {
    let read = |addr: PhysAddr, bytes: &mut [u8]| {
        memory
            .read_slice(bytes, GuestAddress(addr.0))
            .map_err(|_| TargetError::NoRam(addr))
    };
    AddressSpace::of(registers)
        .translate(addr, read)
        .ok()
        .map(|page| page.phys.0)
}
