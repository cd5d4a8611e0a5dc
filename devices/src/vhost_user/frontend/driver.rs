//! What the driver has set up, as far as a backend has to know it, and what its backends
//! have left for their successors.

use super::ring::Ring;
use crate::vhost_user::session::inflight::Inflight;

/// The driver's setup.
#[derive(Default)]
pub struct Driver {
    /// The features it took, once it is ready.
    features: Option<u64>,
    /// The queues it started, by number.
    rings: Vec<Option<Ring>>,
    /// Its writes to the configuration space, where they are questions
    /// ([`ConfigWrites::Questions`](crate::vhost_user::profile::ConfigWrites)).
    question: Vec<u8>,
    /// Where the backend tracks its requests, if it does.
    inflight: Option<Inflight>,
    /// The state that a backend has saved for its successor.
    state: Option<Vec<u8>>,
    /// The device has failed it. Nothing works until it resets the device.
    failed: bool,
}

impl Driver {
    /// One that has set up nothing, of a device with so many queues.
    pub fn new(queues: usize) -> Self {
        let rings = std::iter::repeat_with(|| None).take(queues).collect();
        Self {
            rings,
            ..Self::default()
        }
    }

    /// Nothing of what it set up counts any more.
    pub fn fail(&mut self) {
        *self = Self {
            failed: true,
            ..Self::new(self.rings.len())
        };
    }

    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The features that it took, once it is ready.
    pub fn features(&self) -> Option<u64> {
        self.features
    }

    pub fn is_ready(&self) -> bool {
        self.features.is_some()
    }

    pub fn take_features(&mut self, features: u64) {
        self.features = Some(features);
    }

    /// A queue that it has started.
    pub fn ring(&self, index: u16) -> Option<&Ring> {
        self.rings.get(usize::from(index))?.as_ref()
    }

    pub fn ring_mut(&mut self, index: u16) -> Option<&mut Ring> {
        self.rings.get_mut(usize::from(index))?.as_mut()
    }

    /// It starts a queue, or has one back that was [taken](Self::take_ring).
    pub fn put_ring(&mut self, index: u16, ring: Ring) {
        if let Some(slot) = self.rings.get_mut(usize::from(index)) {
            *slot = Some(ring);
        }
    }

    pub fn take_ring(&mut self, index: u16) -> Option<Ring> {
        self.rings.get_mut(usize::from(index))?.take()
    }

    /// The queues that it has started, with their numbers.
    pub fn rings(&self) -> impl Iterator<Item = (u16, &Ring)> {
        let rings = (0..).zip(&self.rings);
        rings.filter_map(|(index, ring)| Some((index, ring.as_ref()?)))
    }

    pub fn rings_mut(&mut self) -> impl Iterator<Item = (u16, &mut Ring)> {
        let rings = (0..).zip(&mut self.rings);
        rings.filter_map(|(index, ring)| Some((index, ring.as_mut()?)))
    }

    /// All that it has written to a configuration space of `len` bytes, `data` last, with
    /// zeroes where it has written nothing. The space that it reads may differ: an answer
    /// need not repeat the question.
    pub fn ask(&mut self, len: usize, offset: u32, data: &[u8]) -> Vec<u8> {
        self.question.resize(len, 0);
        let there = self.question.get_mut(offset as usize..).unwrap_or_default();
        for (there, byte) in there.iter_mut().zip(data) {
            *there = *byte;
        }
        self.question.clone()
    }

    /// Where its requests are tracked, if they are.
    pub fn inflight(&self) -> Option<&Inflight> {
        self.inflight.as_ref()
    }

    pub fn track_in(&mut self, region: Option<Inflight>) {
        self.inflight = region;
    }

    /// The state that the last backend has saved.
    pub fn saved_state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }

    pub fn save_state(&mut self, state: Option<Vec<u8>>) {
        self.state = state;
    }
}
