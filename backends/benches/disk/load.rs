//! A driver that keeps requests in flight, without a guest.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::common::{BUFFERS, DEADLINE, Desc, Driver, INDIRECT, NEXT, QUEUE_SIZE, r, w, wait};
use super::row::{Places, Row, Work};

/// Types of requests (virtio 1.4, section 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;

/// A driver with its requests.
pub struct Load {
    driver: Driver,
    row: Row,
    places: Places,
    begun: Vec<Instant>,
    /// With the ring's interrupt in it.
    epoll: Epoll,
}

/// Where a request is: its table of descriptors, header and status, and a page further its data.
fn slot(row: &Row, number: u64) -> u64 {
    BUFFERS + (u64::from(row.len) + 0x2000) * number
}

impl Load {
    pub fn new(driver: Driver, row: &Row) -> Self {
        // One more for a FLUSH.
        assert!(row.depth < u64::from(QUEUE_SIZE));
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        let call = driver.rings[0].call.as_raw_fd();
        epoll.ctl(ControlOperation::Add, call, event).unwrap();
        let load = Load {
            epoll,
            driver,
            places: Places::of(row),
            begun: vec![Instant::now(); row.depth as usize],
            row: row.clone(),
        };
        for number in 0..row.depth {
            load.prepare(number);
        }
        load.prepare_flush();
        load
    }

    fn prepare(&self, number: u64) {
        let at = slot(&self.row, number);
        let (kind, data) = match self.row.work {
            Work::Write => (OUT, r(at + 0x1000, self.row.len)),
            _ => (IN, w(at + 0x1000, self.row.len)),
        };
        self.write_table(number, kind, &[r(at + 0x100, 16), data, w(at + 0x200, 1)]);
    }

    fn prepare_flush(&self) {
        let at = slot(&self.row, self.row.depth);
        self.write_table(
            self.row.depth,
            FLUSH,
            &[r(at + 0x100, 16), w(at + 0x200, 1)],
        );
    }

    /// An indirect table, and the header of a request of type `kind`.
    fn write_table(&self, number: u64, kind: u32, table: &[Desc]) {
        let (memory, at) = (&self.driver.memory, slot(&self.row, number));
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
        self.driver.rings[0].write_desc(memory, number as u16, desc, 0);
    }

    /// Makes request `number` available.
    fn add(&mut self, number: u16) {
        let at = slot(&self.row, number.into());
        let sector = self.places.next() * u64::from(self.row.len) / 512;
        let memory = &self.driver.memory;
        memory.write_obj(sector, GuestAddress(at + 0x108)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(at + 0x200)).unwrap();
        self.begun[usize::from(number)] = Instant::now();
        self.driver.rings[0].publish(memory, number);
    }

    /// Keeps requests in flight for `duration`, with a FLUSH beside the first of them if the row
    /// has one; returns how long each took.
    pub fn run(&mut self, duration: Duration, flush: bool) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(1 << 20);
        let begin = Instant::now();
        let mut in_flight = self.row.depth + u64::from(flush);
        if flush {
            let memory = &self.driver.memory;
            self.driver.rings[0].publish(memory, self.row.depth as u16);
        }
        (0..self.row.depth as u16).for_each(|number| self.add(number));
        self.driver.rings[0].kick_if_wanted(&self.driver.memory, in_flight as u16);
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
                next = self.driver.rings[0].poll_used(&self.driver.memory);
            }
            self.driver.rings[0].kick_if_wanted(&self.driver.memory, added);
        }
        latencies
    }

    /// Sleeps until a request is finished.
    fn wait_used(&mut self) -> Option<(u16, u32)> {
        let Driver { rings, memory, .. } = &mut self.driver;
        loop {
            if let Some(used) = rings[0].poll_used(memory) {
                return Some(used);
            }
            rings[0].want_interrupt(memory);
            if let Some(used) = rings[0].poll_used(memory) {
                return Some(used);
            }
            assert!(wait(&self.epoll, 12 * DEADLINE), "no interrupt");
            rings[0].call.read().unwrap();
        }
    }

    fn status(&self, number: u16) -> u8 {
        let at = GuestAddress(slot(&self.row, number.into()) + 0x200);
        self.driver.memory.read_obj(at).unwrap()
    }
}
