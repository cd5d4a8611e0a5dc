//! From the descriptors of a packed ring to the bytes of a chain.

use virtio_queue::desc::split;
use vm_memory::{Address, Bytes, GuestAddress};

use super::descriptor::{Descriptor, FLAGS, INDIRECT, LEN, NEXT, SIZE, WRITE};
use crate::chain::{Chain, ChainError};
use crate::page_log::GuestRam;

/// Records where the bytes of a chain are. Errors in it show as with a split one.
pub fn fill(
    memory: &GuestRam,
    slots: &[Descriptor],
    chain: &mut Chain,
    longest: usize,
) -> Result<(), ChainError> {
    match slots {
        [table] if table.flags & INDIRECT != 0 => chain.refill(
            indirect(memory, table, longest).into_iter().flatten(),
            longest,
        ),
        _ => {
            let usable = slots.iter().take_while(|slot| slot.flags & INDIRECT == 0);
            let descriptors = usable.map(|slot| {
                let flags = slot.flags & (NEXT | WRITE);
                split::Descriptor::new(slot.addr, slot.len, flags, 0)
            });
            chain.refill(descriptors, longest)
        }
    }
}

/// The descriptors of a table: all of it, in its order (section 2.8.7). `None` when it is none.
fn indirect(
    memory: &GuestRam,
    table: &Descriptor,
    longest: usize,
) -> Option<impl Iterator<Item = split::Descriptor>> {
    let size = SIZE as u64;
    let count = u64::from(table.len) / size;
    if !u64::from(table.len).is_multiple_of(size) || count == 0 {
        return None;
    }
    let entry = move |index: u64| {
        let at = GuestAddress(table.addr).checked_add(size * index)?;
        let addr: u64 = memory.read_obj(at).ok()?;
        let len: u32 = memory.read_obj(at.checked_add(LEN as u64)?).ok()?;
        let flags: u16 = memory.read_obj(at.checked_add(FLAGS as u64)?).ok()?;
        let next = if index + 1 < count { NEXT } else { 0 };
        let flags = u16::from_le(flags);
        let usable = flags & INDIRECT == 0;
        usable.then(|| {
            let flags = flags & WRITE | next;
            split::Descriptor::new(u64::from_le(addr), u32::from_le(len), flags, 0)
        })
    };
    // One more than a chain may have, so that it is found to be too long.
    let looked_at = count.min(longest as u64 + 1);
    Some((0..looked_at).map_while(entry))
}
