//! A virtqueue in guest memory as the rules of [`diagnosis`] see it.
//!
//! Like `virtqueue` and `packed`, on which it stands, it writes nothing and trusts nothing.

use std::hash::{DefaultHasher, Hash, Hasher};

use diagnosis::{Indices, Ring, Wish};

use crate::inspect::Virtqueue;
use crate::packed;
use crate::target::{PhysAddr, Result};
use crate::virtqueue::{Link, Rings, flag};

/// Chains in flight that are followed, and defects of them that are told.
const MOST_CHAINS: usize = 64;
const MOST_DEFECTS: usize = 8;

/// Flags of the rings (virtio 1.4, sections 2.7.6 and 2.7.8).
const NO_NOTIFICATION: u16 = 1;

/// Reads guest memory.
pub type Read<'a> = &'a dyn Fn(PhysAddr, &mut [u8]) -> Result<()>;

/// What the memory of `queue` holds. `event_idx`: the driver has taken VIRTIO_F_EVENT_IDX.
///
/// # Errors
/// A part is not in RAM.
pub fn look(queue: &Virtqueue, event_idx: bool, read: Read<'_>) -> Result<Ring> {
    match queue.packed {
        true => look_at_packed(queue, read),
        false => look_at_split(queue, event_idx, read),
    }
}

fn look_at_split(queue: &Virtqueue, event_idx: bool, read: Read<'_>) -> Result<Ring> {
    let rings = Rings::read(queue, read)?;
    let wish = |event: u16, flags: u16| match (event_idx, flags & NO_NOTIFICATION) {
        (true, _) => Wish::AtIndex(event),
        (false, 0) => Wish::Always,
        (false, _) => Wish::Never,
    };
    let (available, used) = (rings.available_index, rings.used_index);
    Ok(Ring {
        size: rings.size,
        indices: Some(Indices { available, used }),
        interrupts: wish(rings.used_event, rings.available_flags),
        kicks: wish(rings.available_event, rings.used_flags),
        is_touched: available != 0 || rings.available.iter().any(|head| *head != 0),
        has_used: used != 0 || rings.used.iter().any(|element| *element != (0, 0)),
        digest: digest(&(&rings.available, &rings.used)),
        broken: defects(&rings, read),
    })
}

fn look_at_packed(queue: &Virtqueue, read: Read<'_>) -> Result<Ring> {
    let ring = packed::Ring::read(queue, read)?;
    let contents: Vec<_> = ring.descriptors.iter().map(contents).collect();
    let is_used = |d: &packed::Descriptor| d.turn == packed::Turn::Used && d.wrap;
    let is_bad = |d: &packed::Descriptor| {
        let is_available = d.turn == packed::Turn::Available && d.flags & flag::INDIRECT == 0;
        is_available && !is_ram(d.addr, d.len, read)
    };
    let bad = ring.descriptors.iter().zip(0..).filter(|(d, _)| is_bad(d));
    let bad = bad.map(|(d, index): (_, u16)| outside(index.into(), d.addr, d.len));
    Ok(Ring {
        size: queue.size,
        indices: None,
        interrupts: packed_wish(ring.driver),
        kicks: packed_wish(ring.device),
        is_touched: contents
            .iter()
            .any(|contents| *contents != contents_of_nothing()),
        has_used: ring.descriptors.iter().any(is_used),
        digest: digest(&contents),
        broken: bad.take(MOST_DEFECTS).collect(),
    })
}

type Contents = (u64, u32, u16, u16, bool, bool);

fn contents(d: &packed::Descriptor) -> Contents {
    let is_available = d.turn == packed::Turn::Available;
    (d.addr.0, d.len, d.id, d.flags, is_available, d.wrap)
}

fn contents_of_nothing() -> Contents {
    (0, 0, 0, 0, false, false)
}

fn packed_wish(wish: packed::Wish) -> Wish {
    match wish {
        packed::Wish::Always => Wish::Always,
        packed::Wish::Never => Wish::Never,
        packed::Wish::At { entry, wrap } => Wish::AtEntry(entry, wrap),
        packed::Wish::Reserved(flags) => Wish::Reserved(flags),
    }
}

fn digest(contents: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}

/// What no device can make sense of: the indices, or a chain in flight.
fn defects(rings: &Rings, read: Read<'_>) -> Vec<String> {
    let in_flight = rings.in_flight();
    if in_flight.count > rings.size {
        let (available, used) = (rings.available_index, rings.used_index);
        return vec![format!(
            "the available index {available} is {} ahead of the used index {used}, more than the \
             queue's size of {}",
            in_flight.count, rings.size
        )];
    }
    let chains = in_flight.heads.iter().take(MOST_CHAINS);
    let defects =
        chains.filter_map(|head| Some(format!("chain {head}: {}", defect(rings, *head, read)?)));
    defects.take(MOST_DEFECTS).collect()
}

fn defect(rings: &Rings, head: u16, read: Read<'_>) -> Option<String> {
    let (links, broken) = rings.chain(head, read);
    if let Some(broken) = broken {
        return Some(broken.to_string());
    }
    let is_outside = |link: &&Link| {
        let d = link.descriptor;
        d.flags & flag::INDIRECT == 0 && !is_ram(d.addr, d.len, read)
    };
    let Link {
        index, descriptor, ..
    } = links.iter().find(is_outside)?;
    Some(outside(*index, descriptor.addr, descriptor.len))
}

fn outside(index: u32, addr: PhysAddr, len: u32) -> String {
    format!(
        "descriptor {index}: {len} bytes at {:#x} are not in RAM",
        addr.0
    )
}

/// Whether both ends of a buffer are in RAM.
fn is_ram(addr: PhysAddr, len: u32, read: Read<'_>) -> bool {
    let last = addr.0.checked_add(u64::from(len.saturating_sub(1)));
    let byte = |addr| read(addr, &mut [0]).is_ok();
    len == 0 || byte(addr) && last.is_some_and(|last| byte(PhysAddr(last)))
}

#[cfg(test)]
#[path = "ring_look_test.rs"]
mod tests;
