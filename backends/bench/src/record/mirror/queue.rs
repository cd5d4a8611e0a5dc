//! One ring that runs, with the requests in it.

use std::collections::HashMap;

use super::area::Area;
use super::chain::{self, Buffer, Chain, MOST};
use super::packed::{self, Packed};
use super::place::Addresses;
use super::split::{self, Split};
use crate::interpose::Memory;
use crate::recording::{Item, Start, Submit, Used};

const EVENT_IDX: u64 = 1 << 29;
const RING_PACKED: u64 = 1 << 34;

/// Who is told what a ring carries.
pub trait Witness {
    /// The next request's number.
    fn number(&self) -> u64;
    /// Nanoseconds since the begin.
    fn now(&self) -> u64;
    fn tell(&self, item: Item);
}

/// Where a ring is, and how large.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    pub start: Start,
    pub driver: Addresses,
    pub device: Addresses,
}

#[derive(Debug)]
enum Format {
    Split(Split),
    Packed(Packed),
}

/// A request that the device has yet to use.
#[derive(Debug)]
struct Waiting {
    number: u64,
    descriptors: u16,
    buffers: Vec<Buffer>,
}

/// A ring that runs.
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    format: Format,
    waiting: HashMap<u16, Waiting>,
}

impl Queue {
    /// `None` if the ring is not in memory, or not as virtio has it.
    pub fn start(ring: Ring, features: u64, memory: &Memory) -> Option<Self> {
        let Start { size, base, .. } = ring.start;
        let is_even = [
            ring.driver.descriptors,
            ring.driver.driver,
            ring.driver.device,
        ]
        .iter()
        .all(|address| address.is_multiple_of(2));
        if size == 0 || size > 1 << 15 || !is_even {
            return None;
        }
        let format = if features & RING_PACKED != 0 {
            let [driver, device] = packed_copies(&ring, memory)?;
            Format::Packed(Packed::start(size, base, [&driver, &device]))
        } else {
            table(&ring, memory)?;
            let [driver, device] = split_copies(&ring, memory)?;
            let has_event_idx = features & EVENT_IDX != 0;
            let copies = [&driver, &device];
            Format::Split(Split::start(size, has_event_idx, base as u16, copies))
        };
        Some(Self {
            ring,
            format,
            waiting: HashMap::new(),
        })
    }

    /// Passes on what the driver has made available; says whether there was anything. Memory
    /// that has gone has nothing.
    pub fn pass_available(&mut self, memory: &Memory, witness: &dyn Witness) -> bool {
        let (ring, waiting) = (self.ring, &mut self.waiting);
        let mut record = |chain| submit(ring.start.queue, chain, waiting, memory, witness);
        match &mut self.format {
            Format::Split(split) => {
                let (Some([driver, device]), Some(table)) =
                    (split_copies(&ring, memory), table(&ring, memory))
                else {
                    return false;
                };
                let size = ring.start.size;
                split.pass_available([&driver, &device], &mut |head| {
                    record(split::chain(memory, &table, size, head));
                })
            }
            Format::Packed(packed) => {
                let Some([driver, device]) = packed_copies(&ring, memory) else {
                    return false;
                };
                packed.pass_available(memory, [&driver, &device], &mut record)
            }
        }
    }

    /// Passes on what the device has used; says whether the driver wants to hear of it.
    pub fn pass_used(&mut self, memory: &Memory, witness: &dyn Witness) -> bool {
        let (ring, waiting) = (self.ring, &mut self.waiting);
        let mut record = |id, len| answer(id, len, waiting, memory, witness);
        match &mut self.format {
            Format::Split(split) => {
                let Some([driver, device]) = split_copies(&ring, memory) else {
                    return false;
                };
                split.pass_used([&driver, &device], &mut |head, len| {
                    record(head, len);
                })
            }
            Format::Packed(packed) => {
                let Some([driver, device]) = packed_copies(&ring, memory) else {
                    return false;
                };
                packed.pass_used([&driver, &device], &mut record)
            }
        }
    }

    /// Whether the driver or the device has more, of which it may not tell again.
    pub fn has_more(&self, memory: &Memory) -> [bool; 2] {
        match &self.format {
            Format::Split(split) => split_copies(&self.ring, memory)
                .map_or([false; 2], |[driver, device]| {
                    split.has_more([&driver, &device])
                }),
            Format::Packed(packed) => packed_copies(&self.ring, memory)
                .map_or([false; 2], |[driver, device]| {
                    packed.has_more([&driver, &device])
                }),
        }
    }
}

fn submit(
    queue: u8,
    mut chain: Chain,
    waiting: &mut HashMap<u16, Waiting>,
    memory: &Memory,
    witness: &dyn Witness,
) {
    let number = witness.number();
    let mut readable = chain.readable(memory);
    if chain.buffers.is_empty() {
        chain.trouble = Some("it has no buffers".into());
    }
    if chain.trouble.is_some() {
        readable.clear();
    }
    witness.tell(Item::Submit(Submit {
        time: witness.now(),
        number,
        queue,
        id: chain.id,
        elements: chain.elements(),
        table_after: chain.table_after,
        readable,
        trouble: chain.trouble,
    }));
    let buffers = chain.buffers.into_iter().filter(|b| b.is_writable);
    waiting.insert(
        chain.id,
        Waiting {
            number,
            descriptors: chain.descriptors,
            buffers: buffers.collect(),
        },
    );
}

/// Returns the descriptors that the request has in a packed ring; none if it is not known.
fn answer(
    id: u16,
    len: u32,
    waiting: &mut HashMap<u16, Waiting>,
    memory: &Memory,
    witness: &dyn Witness,
) -> u16 {
    let Some(request) = waiting.remove(&id) else {
        return 0;
    };
    let most = (len as usize).min(MOST);
    let (written, _) = chain::read(memory, &request.buffers, true, most);
    witness.tell(Item::Used(Used {
        time: witness.now(),
        number: request.number,
        len,
        written,
        last: chain::last(memory, &request.buffers),
    }));
    request.descriptors
}

fn table<'a>(ring: &Ring, memory: &'a Memory) -> Option<Area<'a>> {
    let len = 16 * usize::from(ring.start.size);
    Area::at(memory, ring.driver.descriptors, len)
}

fn split_copies<'a>(ring: &Ring, memory: &'a Memory) -> Option<[split::Copy<'a>; 2]> {
    let [available, used] = split::Copy::sizes(ring.start.size);
    let copy = |addresses: &Addresses| {
        Some(split::Copy {
            available: Area::at(memory, addresses.driver, available)?,
            used: Area::at(memory, addresses.device, used)?,
        })
    };
    Some([copy(&ring.driver)?, copy(&ring.device)?])
}

fn packed_copies<'a>(ring: &Ring, memory: &'a Memory) -> Option<[packed::Copy<'a>; 2]> {
    let len = 16 * usize::from(ring.start.size);
    let copy = |addresses: &Addresses| {
        Some(packed::Copy {
            descriptors: Area::at(memory, addresses.descriptors, len)?,
            driver_event: Area::at(memory, addresses.driver, 4)?,
            device_event: Area::at(memory, addresses.device, 4)?,
        })
    };
    Some([copy(&ring.driver)?, copy(&ring.device)?])
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
