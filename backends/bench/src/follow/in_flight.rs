//! The chains that a device has yet to use.

use std::collections::VecDeque;

/// Oldest first, each with what somebody keeps of it.
#[derive(Debug)]
pub struct InFlight<T> {
    chains: VecDeque<Taken<T>>,
}

/// A chain that is no longer in flight.
#[derive(Debug)]
pub struct Taken<T> {
    pub id: u16,
    /// Descriptors of the ring that it takes.
    pub descriptors: u16,
    pub kept: T,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        let chains = VecDeque::new();
        Self { chains }
    }
}

impl<T> InFlight<T> {
    pub fn push(&mut self, id: u16, descriptors: u16, kept: T) {
        self.chains.push_back(Taken {
            id,
            descriptors,
            kept,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    pub fn has(&self, id: u16) -> bool {
        self.place(id).is_some()
    }

    /// Descriptors of the ring that all of them take.
    pub fn descriptors(&self) -> u32 {
        let each = self.chains.iter().map(|chain| chain.descriptors);
        each.map(u32::from).sum()
    }

    /// The chain with this id is used.
    pub fn take(&mut self, id: u16) -> Option<Taken<T>> {
        let place = self.place(id)?;
        self.chains.remove(place)
    }

    /// The chain with this id is used, and with it all before it: a device that uses chains in
    /// order need tell of the last of a batch alone (VIRTIO_F_IN_ORDER; virtio 1.4, sections
    /// 2.7.9 and 2.8.11).
    pub fn take_through(&mut self, id: u16) -> Vec<Taken<T>> {
        let end = self.place(id).map_or(0, |place| place + 1);
        self.chains.drain(..end).collect()
    }

    /// What is kept of them, oldest first.
    pub fn into_kept(self) -> impl Iterator<Item = T> {
        self.chains.into_iter().map(|chain| chain.kept)
    }

    fn place(&self, id: u16) -> Option<usize> {
        self.chains.iter().position(|chain| chain.id == id)
    }
}
