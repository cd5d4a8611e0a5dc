//! A driver that keeps requests in flight, without a guest.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::common::{BUFFERS, DEADLINE, Desc, INDIRECT, NEXT, QUEUE_SIZE, Ring, r, w, wait};
use super::row::{Places, Row, Work};

/// Types of requests (virtio 1.4, section 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;

/// A driver's queue with its requests.
pub struct Load {
    memory: GuestMemoryMmap,
    ring: Ring,
    row: Row,
    places: Places,
    begun: Vec<Instant>,
    /// With the ring's interrupt in it.
    epoll: Epoll,
}

impl Load {
    pub fn new(memory: GuestMemoryMmap, ring: Ring, row: &Row) -> Self {
        // One more for a FLUSH.
        assert!(row.depth < u64::from(QUEUE_SIZE));
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        let call = ring.call.as_raw_fd();
        epoll.ctl(ControlOperation::Add, call, event).unwrap();
        let load = Load {
            epoll,
            places: Places::of(row),
            begun: vec![Instant::now(); row.depth as usize],
            row: row.clone(),
            memory,
            ring,
        };
        for number in 0..row.depth {
            load.prepare(number);
        }
        load.prepare_flush();
        load
    }

    /// Where a request is: its table of descriptors, header and status, and a page further its
    /// data.
    fn slot(&self, number: u64) -> u64 {
        let number = number + (self.row.depth + 1) * self.ring.index as u64;
        BUFFERS + (u64::from(self.row.len) + 0x2000) * number
    }

    fn prepare(&self, number: u64) {
        let at = self.slot(number);
        let (kind, data) = match self.row.work {
            Work::Write => (OUT, r(at + 0x1000, self.row.len)),
            _ => (IN, w(at + 0x1000, self.row.len)),
        };
        self.write_table(number, kind, &[r(at + 0x100, 16), data, w(at + 0x200, 1)]);
    }

    fn prepare_flush(&self) {
        let at = self.slot(self.row.depth);
        self.write_table(
            self.row.depth,
            FLUSH,
            &[r(at + 0x100, 16), w(at + 0x200, 1)],
        );
    }

    /// An indirect table, and the header of a request of type `kind`.
    fn write_table(&self, number: u64, kind: u32, table: &[Desc]) {
        let (memory, at) = (&self.memory, self.slot(number));
        for (i, desc) in (0u16..).zip(table) {
            let is_last = usize::from(i) + 1 == table.len();
            let next = if is_last { 0 } else { NEXT };
            let bytes = [
                &desc.addr.to_le_bytes()[..],
                &desc.len.to_le_bytes(),
                &(desc.flags | next).to_le_bytes(),
                &(i + 1).to_le_bytes(),
            ];
            let place = GuestAddress(at + 16 * u64::from(i));
            memory.write_slice(&bytes.concat(), place).unwrap();
        }
        memory.write_obj(kind, GuestAddress(at + 0x100)).unwrap();
        let desc = Desc {
            addr: at,
            len: 16 * table.len() as u32,
            flags: INDIRECT,
        };
        self.ring.write_desc(memory, number as u16, desc, 0);
    }

    /// Makes request `number` available.
    fn add(&mut self, number: u16) {
        let at = self.slot(number.into());
        let sector = self.places.next() * u64::from(self.row.len) / 512;
        let memory = &self.memory;
        memory.write_obj(sector, GuestAddress(at + 0x108)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(at + 0x200)).unwrap();
        self.begun[usize::from(number)] = Instant::now();
        self.ring.publish(memory, number);
    }

    /// Keeps requests in flight for `duration`, with a FLUSH beside the first of them if the row
    /// has one; returns how long each took.
    pub fn run(&mut self, duration: Duration, flush: bool) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(1 << 20);
        let begin = Instant::now();
        let mut in_flight = self.row.depth + u64::from(flush);
        if flush {
            self.ring.publish(&self.memory, self.row.depth as u16);
        }
        (0..self.row.depth as u16).for_each(|number| self.add(number));
        self.ring.kick_if_wanted(&self.memory, in_flight as u16);
        // Beside a FLUSH for as long as it takes.
        let mut flushing = flush;
        while in_flight > 0 {
            let mut added = 0;
            let mut next = self.wait_used();
            while let Some((number, _)) = next {
                assert_eq!(self.status(number), 0);
                let is_flush = u64::from(number) == self.row.depth;
                flushing &= !is_flush;
                if !is_flush {
                    latencies.push(self.begun[usize::from(number)].elapsed());
                }
                let is_added_again = if flush {
                    flushing
                } else {
                    begin.elapsed() < duration
                };
                if is_added_again && !is_flush {
                    self.add(number);
                    added += 1;
                } else {
                    in_flight -= 1;
                }
                next = self.ring.poll_used(&self.memory);
            }
            self.ring.kick_if_wanted(&self.memory, added);
        }
        latencies
    }

    /// Sleeps until a request is finished.
    fn wait_used(&mut self) -> Option<(u16, u32)> {
        let Load { ring, memory, .. } = self;
        loop {
            if let Some(used) = ring.poll_used(memory) {
                return Some(used);
            }
            ring.want_interrupt(memory);
            if let Some(used) = ring.poll_used(memory) {
                return Some(used);
            }
            assert!(wait(&self.epoll, 12 * DEADLINE), "no interrupt");
            ring.call.read().unwrap();
        }
    }

    fn status(&self, number: u16) -> u8 {
        let at = GuestAddress(self.slot(number.into()) + 0x200);
        self.memory.read_obj(at).unwrap()
    }
}
