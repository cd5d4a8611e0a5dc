//! The stacks that vCPUs run on, for readers that go by virtual addresses (gdb): Linux maps
//! them apart from all other memory.

use devices::virtio::GuestMemory;
use gdb::arch::Registers;
use gdb::paging::AddressSpace;
use gdb::target::VirtAddr;
use vm_memory::{Bytes, GuestAddress};

use super::ram::{PAGE, reader};

/// Most pages of one stack: those of Linux have 4, and a guard page behind them.
const MAX_PAGES: u64 = 16;
/// From an interrupt's stack to the one before, and once more.
const MAX_STACKS: usize = 3;
/// Where an x86-64 kernel's addresses begin.
const KERNEL: u64 = 1 << 63;

/// A page of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StackPage {
    pub virt: u64,
    pub phys: u64,
}

/// The pages of kernel stacks that are in use, from the stack pointers up, in order.
pub fn pages(memory: &GuestMemory, vcpus: &[Registers]) -> Vec<StackPage> {
    let stacks = vcpus.iter().flat_map(|vcpu| of_vcpu(memory, vcpu));
    let mut pages: Vec<_> = stacks.collect();
    pages.sort();
    pages.dedup();
    pages
}

fn of_vcpu(memory: &GuestMemory, vcpu: &Registers) -> Vec<StackPage> {
    let space = AddressSpace::of(vcpu);
    let mut pages = Vec::new();
    let mut pointer = vcpu.rsp();
    for _ in 0..MAX_STACKS {
        if !vcpu.is_64_bit() || pointer < KERNEL {
            break;
        }
        let before = pages.len();
        pages.extend(from(memory, &space, pointer));
        let Some(last) = pages[before..].last() else {
            break;
        };
        // An interrupt's stack begins with the pointer into the interrupted one.
        let word = GuestAddress(last.phys + PAGE as u64 - 8);
        pointer = memory.read_obj(word).unwrap_or(0);
    }
    pages
}

/// The pages from `pointer` up to one that is not mapped.
fn from(memory: &GuestMemory, space: &AddressSpace, pointer: u64) -> Vec<StackPage> {
    let start = pointer & !(PAGE as u64 - 1);
    let addrs = (0..MAX_PAGES).filter_map(|n| start.checked_add(n * PAGE as u64));
    let pages = addrs.map_while(|virt| {
        let page = space.translate(VirtAddr(virt), reader(memory)).ok()?;
        let phys = page.phys.0;
        Some(StackPage { virt, phys })
    });
    pages.collect()
}

#[cfg(test)]
#[path = "stacks_test.rs"]
mod tests;
