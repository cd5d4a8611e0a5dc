//! One ring that runs, with the requests in it.

use super::packed::Packed;
use super::split::Split;
use crate::follow::{self, Addresses, Buffer, Chain, InFlight, PackedRing, SplitRing, last, read};
use crate::interpose::Memory;
use crate::recording::{Element, Item, Start, Submit, Used};

const EVENT_IDX: u64 = 1 << 29;
const RING_PACKED: u64 = 1 << 34;

/// Bytes of a request's readable part, or of an answer, that are recorded.
const MOST: usize = 32 << 20;

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

#[derive(Clone, Debug)]
enum Format {
    Split(Split),
    Packed(Packed),
}

/// A request that the device has yet to use.
#[derive(Debug)]
struct Request {
    number: u64,
    chain: Chain,
}

/// A ring that has lost its device, with the chains that the device had not used, oldest first.
#[derive(Debug)]
pub struct Left {
    size: u16,
    format: Format,
    chains: Vec<Chain>,
}

/// A ring that runs.
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    format: Format,
    in_flight: InFlight<Request>,
}

impl Left {
    pub fn is_packed(&self) -> bool {
        matches!(self.format, Format::Packed(_))
    }
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
        if !is_even {
            return None;
        }
        let format = if features & RING_PACKED != 0 {
            let [driver, device] = packed_copies(&ring, memory)?;
            Format::Packed(Packed::start(size, base, [&driver, &device]))
        } else {
            let [driver, device] = split_copies(&ring, memory)?;
            let has_event_idx = features & EVENT_IDX != 0;
            let copies = [&driver, &device];
            Format::Split(Split::start(size, has_event_idx, base as u16, copies))
        };
        Some(Self {
            ring,
            format,
            in_flight: InFlight::default(),
        })
    }

    /// Continues a ring with another device, which knows what the one before it had taken. `None`
    /// if the driver's ring is not where that one was left.
    pub fn resume(ring: Ring, features: u64, left: &Left, memory: &Memory) -> Option<Self> {
        if left.size != ring.start.size {
            return None;
        }
        let is_packed = features & RING_PACKED != 0;
        let format = match left.format.clone() {
            Format::Split(split) if !is_packed => {
                let [driver, device] = split_copies(&ring, memory)?;
                let is_there = split.is_at(&driver);
                is_there.then(|| Format::Split(split.resume([&driver, &device])))?
            }
            Format::Packed(packed) if is_packed => {
                let [driver, device] = packed_copies(&ring, memory)?;
                let is_there = left.chains.is_empty() || packed.is_at(&driver);
                is_there.then(|| Format::Packed(packed.resume([&driver, &device])))?
            }
            _ => return None,
        };
        Some(Self {
            ring,
            format,
            in_flight: InFlight::default(),
        })
    }

    /// The device has chains of the one before it: they are recorded as if they came now.
    pub fn take_over(&mut self, left: Left, memory: &Memory, witness: &dyn Witness) {
        for chain in left.chains {
            let queue = self.ring.start.queue;
            submit(queue, chain, &mut self.in_flight, memory, witness);
        }
    }

    /// Where a device begins that gets all chains again that are not used.
    pub fn base(&self) -> u32 {
        match &self.format {
            Format::Split(split) => split.base(),
            Format::Packed(packed) => packed.base(),
        }
    }

    /// The device has gone.
    pub fn leave(self) -> Left {
        let chains = self.in_flight.into_kept().map(|request| request.chain);
        Left {
            size: self.ring.start.size,
            format: self.format,
            chains: chains.collect(),
        }
    }

    /// Passes on what the driver has made available; says whether there was anything. Memory
    /// that has gone has nothing.
    pub fn pass_available(&mut self, memory: &Memory, witness: &dyn Witness) -> bool {
        let (ring, in_flight) = (self.ring, &mut self.in_flight);
        let mut record = |chain| submit(ring.start.queue, chain, in_flight, memory, witness);
        match &mut self.format {
            Format::Split(split) => {
                let Some([driver, device]) = split_copies(&ring, memory) else {
                    return false;
                };
                split.pass_available(memory, [&driver, &device], &mut record)
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
        let (ring, in_flight) = (self.ring, &mut self.in_flight);
        let mut record = |used: &follow::Used| answer(used, in_flight, memory, witness);
        match &mut self.format {
            Format::Split(split) => {
                let Some([driver, device]) = split_copies(&ring, memory) else {
                    return false;
                };
                split.pass_used([&driver, &device], &mut |used| {
                    record(used);
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
    in_flight: &mut InFlight<Request>,
    memory: &Memory,
    witness: &dyn Witness,
) {
    let number = witness.number();
    if chain.buffers.is_empty() && chain.trouble.is_none() {
        chain.trouble = Some("it has no buffers".into());
    }
    let (mut readable, is_whole) = read(memory, &chain.buffers, false, MOST);
    if !is_whole && chain.trouble.is_none() {
        chain.trouble = Some("a readable buffer is not memory, or there is too much".into());
    }
    if chain.trouble.is_some() {
        readable.clear();
    }
    witness.tell(Item::Submit(Submit {
        time: witness.now(),
        number,
        queue,
        id: chain.id,
        elements: chain.buffers.iter().map(element).collect(),
        table_after: chain.table_after,
        readable,
        trouble: chain.trouble.clone(),
    }));
    // One that came twice is used once: the device has the later one.
    in_flight.take(chain.id);
    let (id, descriptors) = (chain.id, chain.descriptors);
    in_flight.push(id, descriptors, Request { number, chain });
}

fn element(buffer: &Buffer) -> Element {
    Element {
        len: buffer.len,
        is_writable: buffer.is_writable,
    }
}

/// Returns the descriptors that the request has in a packed ring; none if it is not known.
fn answer(
    used: &follow::Used,
    in_flight: &mut InFlight<Request>,
    memory: &Memory,
    witness: &dyn Witness,
) -> u16 {
    let Some(taken) = used.chain().and_then(|id| in_flight.take(id)) else {
        return 0;
    };
    let Request { number, chain } = taken.kept;
    let buffers = chain.buffers;
    let most = (used.len as usize).min(MOST);
    let (written, _) = read(memory, &buffers, true, most);
    witness.tell(Item::Used(Used {
        time: witness.now(),
        number,
        len: used.len,
        written,
        last: last(memory, &buffers),
    }));
    taken.descriptors
}

fn split_copies<'a>(ring: &Ring, memory: &'a Memory) -> Option<[SplitRing<'a>; 2]> {
    let copy = |addresses| SplitRing::at(memory, addresses, ring.start.size);
    Some([copy(&ring.driver)?, copy(&ring.device)?])
}

fn packed_copies<'a>(ring: &Ring, memory: &'a Memory) -> Option<[PackedRing<'a>; 2]> {
    let copy = |addresses| PackedRing::at(memory, addresses, ring.start.size);
    Some([copy(&ring.driver)?, copy(&ring.device)?])
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
