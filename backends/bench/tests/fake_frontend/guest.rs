//! Guest memory and the one ring of the small frontend, over those of the workbench's driver.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use workbench::driver::{
    Buffers, Chain, Descriptor, DriverError, Element, Event, Format, Layout, Memory, Queue,
    QueueFeatures, Used,
};

use super::breaks::Break;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(2);
const SIZE: u64 = 1 << 20;
/// Of which the rings' places are no multiple.
const RING: u16 = 64;

/// It outlives connections.
pub struct Guest {
    memory: Rc<Memory>,
    /// For a second region, which is added and removed.
    more: Memory,
    pub queue: Queue,
    what: Break,
    no_pages: Event,
}

impl Guest {
    pub fn new(what: Break, event_idx: bool, packed: bool) -> Self {
        let memory = Rc::new(Memory::new(&[Layout::new(0, SIZE)]).unwrap());
        let features = QueueFeatures {
            format: if packed {
                Format::Packed
            } else {
                Format::Split
            },
            event_idx,
            in_order: false,
        };
        let queue = Queue::new(&memory, 0, RING, features).unwrap();
        Self {
            more: Memory::new(&[Layout::new(SIZE * 2, SIZE)]).unwrap(),
            memory,
            queue,
            what,
            no_pages: Event::new().unwrap(),
        }
    }

    /// All regions, with what is wrong with them.
    pub fn regions(&self) -> Vec<(VhostUserMemoryRegion, BorrowedFd<'_>)> {
        let (region, mut file) = self.memory.table()[0];
        let mut region = region;
        if self.what == Break::EventAsMemory {
            file = self.no_pages.as_fd();
        }
        if self.what == Break::ShortFile {
            region.memory_size = SIZE * 2;
        }
        let mut regions = vec![(region, file)];
        let other = |guest, user, size, offset| {
            (VhostUserMemoryRegion::new(guest, size, user, offset), file)
        };
        let user = region.user_addr;
        match self.what {
            Break::GuestOverlap => regions.push(other(SIZE / 2, user + 4 * SIZE, SIZE, 0)),
            Break::UserOverlap => regions.push(other(4 * SIZE, user + SIZE / 2, SIZE, 0)),
            Break::EmptyRegion => regions.push(other(4 * SIZE, user + 4 * SIZE, 0, 0)),
            Break::OddOffset => regions.push(other(4 * SIZE, user + 4 * SIZE, 4096, 17)),
            Break::NineRegions => {
                regions.extend((4..12).map(|n| other(n * SIZE, user + n * SIZE, SIZE, 0)))
            }
            Break::TooManyRegions | Break::IgnoresSlots => {
                regions.extend((4..40).map(|n| other(n * SIZE, user + n * SIZE, SIZE, 0)))
            }
            Break::EmptyTable => regions.clear(),
            _ => {}
        }
        regions
    }

    /// A region that is added and removed while the device runs.
    pub fn extra(&self) -> (VhostUserMemoryRegion, BorrowedFd<'_>) {
        self.more.table()[0]
    }

    /// User addresses of descriptor table, available ring and used ring.
    pub fn places(&self) -> [u64; 3] {
        let places = self.queue.places();
        let mut places =
            [places.descriptors, places.driver, places.device].map(|at| self.memory.user(at));
        match self.what {
            Break::Misaligned(part) => places[part] += 1,
            Break::OutsideOfMemory => places[2] += SIZE,
            Break::PartsOverlap => places[1] = places[0] + 64,
            _ => {}
        }
        places
    }

    /// Runs some requests; whether all were completed well.
    pub fn run(&mut self, count: usize) -> bool {
        if !self.run_wrong() {
            return true;
        }
        (0..count).all(|_| {
            let Ok(buffers) = Buffers::place(&self.memory, &[], 64) else {
                return false;
            };
            match self.what {
                Break::AbortsOnSpuriousCall => self.run_by_calls(&buffers),
                _ => self.run_one(&buffers).is_ok_and(|used| {
                    let is_long = used.len.unwrap_or(0) > 64;
                    if is_long && self.what == Break::TrustsUsedLength {
                        std::process::abort();
                    }
                    true
                }),
            }
        })
    }

    fn run_one(&mut self, buffers: &Buffers) -> Result<Used, DriverError> {
        self.queue.submit(buffers.chain())?;
        self.queue.wait_used_within(PATIENCE)
    }

    /// Whether the driver makes requests that a device can complete.
    pub fn is_sound(&self) -> bool {
        !matches!(
            self.what,
            Break::Misaligned(_)
                | Break::OutsideOfMemory
                | Break::PartsOverlap
                | Break::NeverKicks
                | Break::IndexWild
                | Break::HeadWild
                | Break::Loop
                | Break::BufferOutside
                | Break::IndirectUnnegotiated
                | Break::WritableFirst
        )
    }

    /// Takes a call for a sign that the request is completed.
    fn run_by_calls(&mut self, buffers: &Buffers) -> bool {
        self.queue.submit(buffers.chain()).unwrap();
        if self.queue.wait_notified().is_err() {
            return false;
        }
        if self.queue.poll_used().unwrap().is_none() {
            std::process::abort();
        }
        true
    }

    /// Puts into the ring what does not belong there; whether the ring is still of use.
    fn run_wrong(&mut self) -> bool {
        let (available, memory) = (self.queue.places().driver, Rc::clone(&self.memory));
        let chain = |elements: Vec<Element>| Chain::new(elements);
        match self.what {
            Break::NeverKicks => {
                let buffers = Buffers::place(&memory, &[], 64).unwrap();
                self.queue.add(buffers.chain()).unwrap();
                // The first one may be there before the ring is started.
                self.queue.wait_used().unwrap();
                self.queue.add(buffers.chain()).unwrap();
                return false;
            }
            Break::IndexWild => memory.store_u16(available + 2, 5000).unwrap(),
            Break::HeadWild => {
                self.queue.stage_head(9999).unwrap();
                self.queue.publish().unwrap();
            }
            Break::Loop => {
                let looping = Descriptor::split(0x1000, 16, 1, 0);
                self.queue.put_raw(0, looping).unwrap();
                self.queue.stage_head(0).unwrap();
                self.queue.publish().unwrap();
            }
            Break::IndirectUnnegotiated => {
                let table = Descriptor::split(0x1000, 16, 4, 0);
                self.queue.put_raw(0, table).unwrap();
                self.queue.stage_head(0).unwrap();
                self.queue.publish().unwrap();
            }
            Break::BufferOutside => {
                let outside = chain(vec![Element::writable(SIZE * 100, 16)]);
                self.queue.add(&outside).unwrap();
            }
            Break::WritableFirst => {
                let buffers = Buffers::place(&memory, &[0; 16], 64).unwrap();
                let mixed = chain(vec![
                    Element::writable(buffers.writable(), 64),
                    Element::readable(buffers.readable(), 16),
                ]);
                self.queue.add(&mixed).unwrap();
            }
            _ => return true,
        }
        self.queue.kick();
        false
    }
}
