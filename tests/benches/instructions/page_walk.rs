//! A walk through four levels of page tables.

use gdb::arch::{Registers, cr0, cr4, efer};
use gdb::paging::AddressSpace;
use gdb::target::{PhysAddr, TargetError, VirtAddr};

const ROOT: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
/// Present, writable, accessible to ring 3.
const RIGHTS: u64 = 7;

/// Each table leads to the next one, the last to itself.
fn read(at: PhysAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
    let next = (at.0 & !(PAGE - 1)) + PAGE;
    bytes.copy_from_slice(&(next | RIGHTS).to_le_bytes()[..bytes.len()]);
    Ok(())
}

pub fn prepare() -> Box<dyn FnMut()> {
    let space = AddressSpace::of(&Registers {
        cr0: cr0::PE | cr0::PG,
        cr3: ROOT,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        ..Registers::default()
    });
    Box::new(move || {
        let translation = space.translate(VirtAddr(0x1234_5678_9abc), read);
        translation.expect("a present page");
    })
}
