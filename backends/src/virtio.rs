//! A device as its author sees it: features, configuration space, and the processing of a chain.
//!
//! [`VirtioDevice`] is enough for most devices, and has nothing about sockets, rings or threads.
//! [`PumpBackend`] makes a backend of it. A device that needs more implements
//! [`vhost_user_backend::VhostUserBackend`] itself; the daemon drives either.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::page_log::GuestRam;
pub use crate::pump_backend::PumpBackend;
use crate::request::{Finished, Outcome, Request};
pub use crate::wakers::Wakers;

/// One virtio device. Every queue has a thread, and all of them call [`VirtioDevice::process`].
pub trait VirtioDevice: Send + Sync + 'static {
    /// Number of queues, 1 to 64.
    fn queues(&self) -> u16 {
        1
    }

    /// Largest queue, in descriptors: a power of two up to 32768.
    fn max_queue_size(&self) -> u16 {
        256
    }

    /// Feature bits of the device type. VERSION_1, RING_RESET, INDIRECT_DESC, EVENT_IDX and
    /// RING_PACKED are the kit's.
    fn features(&self) -> u64 {
        0
    }

    /// The driver has accepted these features.
    fn negotiated(&self, _features: u64) {}

    /// The driver has gone: back to the initial state.
    fn reset(&self) {}

    /// The frontend stops a queue, and waits until nothing of it is pending. Requests that cannot be
    /// finished soon are given up by [`poll`](VirtioDevice::poll)
    /// ([`Finished::push_unfinished`]); one of the queue's events has it called.
    fn stopping(&self, _queue: u16) {}

    /// The frontend has stopped or disabled a queue, and nothing of it is pending any more;
    /// `process` is called again when it runs.
    fn stopped(&self, _queue: u16) {}

    /// The configuration space, little-endian.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The driver writes into its configuration space.
    fn write_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} bytes at offset {offset} of the configuration space are not writable",
                bytes.len()
            ),
        ))
    }

    /// Whether the driver gets its chains of a queue back, unprocessed, while the frontend has it
    /// disabled.
    fn discards_disabled(&self, _queue: u16) -> bool {
        false
    }

    /// Descriptors that become readable when a queue that had to wait ([`Outcome::Wait`]) can
    /// continue, and when [`poll`](VirtioDevice::poll) has something to do: sockets, eventfds,
    /// timers, as many as the device likes. They are watched edge-triggered and must stay open; an
    /// eventfd need not be read. One that is always ready (a regular file) need not be watched and
    /// is not.
    fn events(&self, _queue: u16) -> Vec<RawFd> {
        Vec::new()
    }

    /// The queues have their threads, which a device can wake from here on: one queue's request may
    /// be what another one waits for.
    fn attached(&self, _wakers: Wakers) {}

    /// How long a queue's thread polls for more before it sleeps. It does so only where requests
    /// follow each other that closely, and less and less where it is in vain.
    fn poll_time(&self) -> Duration {
        Duration::ZERO
    }

    /// The processor that the queue's thread is kept on, by its number in Linux. `None`: wherever
    /// the scheduler likes.
    fn processor(&self, _queue: u16) -> Option<usize> {
        None
    }

    /// A descriptor that is readable when the configuration space may have changed.
    fn config_event(&self) -> Option<RawFd> {
        None
    }

    /// Clears that event. Returns whether the driver has to be told.
    fn config_changed(&self) -> bool {
        false
    }

    /// Sizes of the device's shared memory regions (virtio 1.3, section 2.10) by their number,
    /// in bytes and whole pages of 4096; 0 where there is none.
    fn shared_memory(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Another frontend is there, which the device can ask to map files into its shared memory
    /// (`shmem_map` of `vhost`'s `VhostUserFrontendReqHandler`). While a queue is stopped
    /// Outboard answers; another frontend may wait for the queue first.
    fn connected(&self, _frontend: vhost::vhost_user::Backend) {}

    /// Whether a request may be executed once more by a successor that finds it unfinished, in
    /// another order than before. Requests in flight are then recorded (INFLIGHT_SHMFD).
    fn resumable(&self) -> bool {
        false
    }

    /// The state that the driver has set by requests that are done, or by its configuration space,
    /// for the process that takes this one's place: at most [`crate::inflight::state::MAX`] bytes.
    /// It is recorded after a [`write_config`](VirtioDevice::write_config), and whenever `process`
    /// says so (`Request::has_new_state`), before the driver has the chain back. `None`: there is
    /// no such thing.
    fn state(&self) -> Option<Vec<u8>> {
        None
    }

    /// Takes over a predecessor's state. The features are negotiated, and no queue runs.
    fn restore(&self, _state: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Serves a chain of `queue`.
    fn process(&self, queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome;

    /// Hands over requests that were kept ([`Outcome::Pending`]) and are finished, and starts
    /// those that `process` has only collected. It is called after each pass over the ring and
    /// when one of the queue's [`events`](VirtioDevice::events) comes, by the same thread as `process`;
    /// while the queue is being stopped too, until nothing is pending.
    fn poll(&self, _queue: u16, _finished: &mut Finished) {}
}
