//! Why does a virtio device hang?
//!
//! A [`Device`] is a picture of one: what is known of its queues, of its driver and of the process
//! behind it. It is drawn from a trace or from a machine that runs, and what cannot be known there
//! is left out. [`Device::diagnose`] holds it against the rules, which are the same for both, and
//! its text is what people read.
//!
//! This crate reads no rings and knows no machine; [`process`] reads `/proc`.

mod device_rules;
mod duration;
mod picture;
pub mod process;
mod queue_rules;
mod roles;
mod text;

pub use duration::duration;
pub use picture::{
    Backend, Device, Driver, Indices, Look, Oldest, Queue, QueueState, Ring, Seen, Thread,
    Unanswered, Wish,
};
pub use roles::is_filled_ahead;

impl Device {
    /// Writes down what is wrong, or may be, in the device and in each of its queues.
    pub fn diagnose(&mut self) {
        self.diagnoses = device_rules::RULES
            .iter()
            .flat_map(|rule| rule(self))
            .collect();
        let found: Vec<Vec<String>> = self
            .queues
            .iter()
            .map(|queue| queue_rules::diagnose(self, queue))
            .collect();
        for (queue, found) in self.queues.iter_mut().zip(found) {
            queue.diagnoses = found;
        }
        self.diagnoses.extend(device_rules::rest(self));
    }
}

#[cfg(test)]
mod device_rules_test;
#[cfg(test)]
mod queue_rules_test;
