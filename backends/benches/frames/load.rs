//! A driver that keeps frames in flight, without a guest.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::common::{BUFFERS, DEADLINE, Driver, QUEUE_SIZE, r, w, wait};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Size of `struct virtio_net_hdr`.
const HEADER: u32 = 12;

/// Room for one frame.
const SLOT: u64 = 2048;

/// Where the frame is that is sent again and again.
const SENT: u64 = BUFFERS;

/// A driver with its frames.
pub struct Load {
    driver: Driver,
    size: u32,
    depth: u16,
    /// Frames that have not come back.
    in_flight: u16,
    /// Frames that the device has not taken.
    queued: u16,
    /// With the receive queue's interrupt in it.
    epoll: Epoll,
}

/// The buffer of descriptor `head`.
fn slot(head: u16) -> u64 {
    BUFFERS + SLOT * (1 + u64::from(head))
}

impl Load {
    /// Frames of `size` bytes, `depth` of them in flight.
    pub fn new(mut driver: Driver, size: u32, depth: u16) -> Self {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        let call = driver.rings[RECEIVE].call.as_raw_fd();
        epoll.ctl(ControlOperation::Add, call, event).unwrap();
        let frame: Vec<u8> = (0..size).map(|i| i as u8 | 1).collect();
        let at = GuestAddress(SENT + u64::from(HEADER));
        driver.memory.write_slice(&frame, at).unwrap();
        for head in 0..QUEUE_SIZE {
            let buffer = w(slot(head), SLOT as u32);
            driver.rings[RECEIVE].add(&driver.memory, &[buffer]);
        }
        driver.rings[RECEIVE].kick();
        Load {
            driver,
            size,
            depth,
            in_flight: 0,
            queued: 0,
            epoll,
        }
    }

    /// Sends and receives for so long. Returns how many frames have come back.
    pub fn run(&mut self, duration: Duration) -> u64 {
        let end = Instant::now() + duration;
        let mut frames = 0;
        while Instant::now() < end {
            self.send();
            let received = self.receive();
            frames += u64::from(received);
            if received == 0 {
                self.sleep();
            }
        }
        frames
    }

    fn send(&mut self) {
        let (ring, memory) = (&mut self.driver.rings[TRANSMIT], &self.driver.memory);
        while ring.poll_used(memory).is_some() {
            self.queued -= 1;
        }
        let room = QUEUE_SIZE - self.queued;
        let added = room.min(self.depth - self.in_flight);
        for _ in 0..added {
            ring.add(memory, &[r(SENT, HEADER + self.size)]);
        }
        if added > 0 {
            ring.kick_if_wanted(memory, added);
        }
        self.queued += added;
        self.in_flight += added;
    }

    fn receive(&mut self) -> u16 {
        let (ring, memory) = (&mut self.driver.rings[RECEIVE], &self.driver.memory);
        let mut received = 0;
        while let Some((head, len)) = ring.poll_used(memory) {
            assert_eq!(len, HEADER + self.size, "another frame came back");
            ring.add_at(memory, head, &[w(slot(head), SLOT as u32)]);
            received += 1;
        }
        if received > 0 {
            ring.kick_if_wanted(memory, received);
        }
        self.in_flight -= received;
        received
    }

    fn sleep(&mut self) {
        let ring = &mut self.driver.rings[RECEIVE];
        ring.want_interrupt(&self.driver.memory);
        if ring.has_used(&self.driver.memory) {
            return;
        }
        assert!(wait(&self.epoll, DEADLINE), "a frame was lost");
        ring.call.read().unwrap();
    }
}
