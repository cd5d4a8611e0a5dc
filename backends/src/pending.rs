//! The requests of one ring that its device has kept.
use crate::request::{Finished, Request, Ticket};

/// Counts the kept requests, and keeps the room of those that came back.
#[derive(Debug, Default)]
pub struct Pending {
    /// How often the ring was given up with requests pending. Those come back too late.
    life: u64,
    count: usize,
    finished: Finished,
    /// The same for the ring: heads, and bytes written.
    batch: Vec<(u16, u32)>,
    spare: Vec<Request>,
}

impl Pending {
    /// How many requests the device has kept and not finished.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where a request belongs that is about to be offered to the device.
    pub fn ticket(&self, head: u16) -> Ticket {
        let life = self.life;
        Ticket { head, life }
    }

    /// The device has kept a request. Gives room for the next one, if there is some.
    pub fn add(&mut self) -> Option<Request> {
        self.count += 1;
        self.spare.pop()
    }

    /// Collects the finished requests from `poll`, and returns them for the ring. Those that were
    /// not executed stay in its record, if it `has_record`.
    pub fn collect(&mut self, has_record: bool, poll: impl FnOnce(&mut Finished)) -> &[(u16, u32)] {
        self.batch.clear();
        poll(&mut self.finished);
        for returned in self.finished.drain() {
            let ticket = returned.request.ticket();
            let Some(ticket) = ticket.filter(|ticket| ticket.life == self.life) else {
                continue;
            };
            if returned.is_done || !has_record {
                self.batch.push((ticket.head, returned.written));
            }
            self.spare.push(returned.request);
            self.count -= 1;
        }
        &self.batch
    }

    /// The ring is given up: requests that come back from here on are not the driver's any more.
    pub fn abandon(&mut self) {
        self.life += 1;
        self.count = 0;
    }

    /// Lets go of the memory that spare requests keep.
    pub fn forget_room(&mut self) {
        self.spare.clear();
    }
}

#[cfg(test)]
#[path = "pending_test.rs"]
mod tests;
