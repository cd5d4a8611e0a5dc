//! What a look into a ring finds.

use crate::follow::{self, Buffer};
use crate::interpose::Memory;

/// A chain that the device has yet to use.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Under which it comes back.
    pub id: u16,
    pub buffers: Vec<Buffer>,
    /// What it asks for.
    pub what: String,
    /// When it was seen, in nanoseconds since the trace began.
    pub time: u64,
}

impl Chain {
    /// Of a device that has left out how much it has written: the whole (virtio 1.4, section
    /// 2.7.9).
    pub fn writable(&self) -> u32 {
        let buffers = self.buffers.iter().filter(|buffer| buffer.is_writable);
        buffers.fold(0, |sum, buffer| sum.saturating_add(buffer.len))
    }
}

/// What has happened since the last look, in an order in which it can have happened.
#[derive(Clone, Debug)]
pub enum Seen {
    Available(Chain),
    /// The chain with this id, if it was seen before, and how much the device has written.
    Used(u16, Option<Chain>, u32),
}

/// What a look needs to know.
pub struct Look<'a> {
    pub memory: &'a Memory,
    /// Of the look.
    pub time: u64,
    pub describe: &'a dyn Fn(&[Buffer]) -> String,
}

impl Look<'_> {
    pub fn chain(&self, chain: follow::Chain) -> Chain {
        Chain {
            id: chain.id,
            what: (self.describe)(&chain.buffers),
            buffers: chain.buffers,
            time: self.time,
        }
    }
}

/// The chains that a device has yet to use.
pub type Waiting = follow::InFlight<Chain>;

/// What the use of a chain that waits says; nothing if it does not wait. Of chains that a device
/// uses in order, those before it are used too.
pub fn used(waiting: &mut Waiting, used: &follow::Used, is_in_order: bool) -> Vec<(u16, Seen)> {
    let taken = match (used.chain(), is_in_order) {
        (Some(id), true) => waiting.take_through(id),
        (Some(id), false) => Vec::from_iter(waiting.take(id)),
        (None, _) => Vec::new(),
    };
    let last = taken.len().saturating_sub(1);
    let seen = taken.into_iter().enumerate().map(|(index, taken)| {
        let written = match index == last {
            true => used.len,
            false => taken.kept.writable(),
        };
        let seen = Seen::Used(taken.id, Some(taken.kept), written);
        (taken.descriptors, seen)
    });
    seen.collect()
}
