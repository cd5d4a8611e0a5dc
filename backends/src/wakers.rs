//! Waking the threads of queues from anywhere in a device.

use std::sync::Arc;

use vmm_sys_util::event::EventNotifier;

/// Wakes the threads of a device's queues.
#[derive(Debug, Clone)]
pub struct Wakers(Arc<[EventNotifier]>);

impl Wakers {
    /// By queue.
    pub(crate) fn new(notifiers: Vec<EventNotifier>) -> Self {
        Wakers(notifiers.into())
    }

    /// Has the queue's thread take the chains that it had to leave
    /// ([`Outcome::Wait`](crate::request::Outcome::Wait)), and poll. There is no harm in a queue
    /// that does not run or does not exist.
    pub fn wake(&self, queue: u16) {
        if let Some(notifier) = self.0.get(usize::from(queue)) {
            // The only failure is a counter at its maximum, which is readable as it should be.
            let _ = notifier.notify();
        }
    }
}
