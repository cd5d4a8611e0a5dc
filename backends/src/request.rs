//! A request as a device sees it: a descriptor chain, and its outcome.
//!
//! A device serves most requests as soon as it gets them. It keeps others
//! ([`Request::keep`]) and gives them back later ([`Finished`]), in any order:
//!
//! ```
//! use std::sync::Mutex;
//!
//! use backends::page_log::GuestRam;
//! use backends::request::{Finished, Outcome, Request};
//! use backends::virtio::VirtioDevice;
//!
//! /// Completes requests in the opposite order, as many as the driver adds at once.
//! struct Stack(Mutex<Vec<Request>>);
//!
//! impl VirtioDevice for Stack {
//!     fn process(&self, _queue: u16, _memory: &GuestRam, request: &mut Request) -> Outcome {
//!         self.0.lock().unwrap().push(request.keep());
//!         Outcome::Pending
//!     }
//!
//!     fn poll(&self, _queue: u16, finished: &mut Finished) {
//!         for request in self.0.lock().unwrap().drain(..).rev() {
//!             finished.push(request, 0);
//!         }
//!     }
//! }
//! ```

use std::sync::Arc;

use vm_memory::Permissions;

use crate::chain::{BufferError, Chain};
use crate::iovec::IoVecBuf;
use crate::page_log::GuestRam;

/// The outcome of a request for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is finished; so many bytes were written into it.
    Done(u32),
    /// The device has kept it ([`Request::keep`]) and finishes it later.
    Pending,
    /// Nothing was done with it; it stays available and the device has something else to try.
    Untouched,
    /// Nothing was done with it, and nothing can be until the device has an event of its own.
    Wait,
}

/// A chain of the driver, with what the device needs to serve it.
///
/// A device that keeps one also keeps the memory that the chain points into, and the room for
/// system calls. The kit reuses them, so that a steady stream of requests allocates nothing.
#[derive(Debug)]
pub struct Request {
    /// The buffers.
    pub chain: Chain,
    /// Room to hand them to the kernel.
    pub room: IoVecBuf,
    /// The features that the driver has accepted.
    pub features: u64,
    /// The request has changed the device's own state, which is to outlive the process.
    pub has_new_state: bool,
    /// The request has changed the configuration space. The driver has it back when it can read
    /// the new one.
    pub has_new_config: bool,
    /// How many chains before this one belong to it.
    part: usize,
    /// The bytes in this one, where the next one belongs to it.
    continued: Option<u32>,
    memory: Arc<GuestRam>,
    /// Where it belongs. `None` after the request was kept.
    ticket: Option<Ticket>,
}

/// Where a request belongs that a device has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The chain's head, as the ring knows it.
    pub head: u16,
    /// How often the ring had been given up before.
    pub life: u64,
}

impl Request {
    /// An empty one for chains in `memory`.
    pub(crate) fn new(memory: Arc<GuestRam>) -> Self {
        Request {
            chain: Chain::default(),
            room: IoVecBuf::default(),
            features: 0,
            has_new_state: false,
            has_new_config: false,
            part: 0,
            continued: None,
            memory,
            ticket: None,
        }
    }

    /// The memory that the chain points into. It stays mapped for as long as the request is kept.
    pub fn memory(&self) -> &GuestRam {
        &self.memory
    }

    /// Takes the request out of `process`, which then answers [`Outcome::Pending`]. It must come
    /// back by [`VirtioDevice::poll`](crate::virtio::VirtioDevice::poll): until then its ring
    /// cannot stop.
    #[must_use = "a request that is dropped never comes back to the driver"]
    pub fn keep(&mut self) -> Request {
        let empty = Request::new(Arc::clone(&self.memory));
        std::mem::replace(self, empty)
    }

    /// Has the room describe `len` device-readable bytes from `offset` on, for the kernel. The
    /// request keeps the memory that they are in.
    pub fn describe_readable(&mut self, offset: u64, len: u64) -> Result<(), BufferError> {
        let (memory, chain, room) = self.parts();
        let iovecs = chain
            .readable
            .iovecs(memory, offset, len, Permissions::Read, room);
        iovecs.map(drop)
    }

    /// The same of device-writable bytes.
    pub fn describe_writable(&mut self, offset: u64, len: u64) -> Result<(), BufferError> {
        let (memory, chain, room) = self.parts();
        let iovecs = chain
            .writable
            .iovecs(memory, offset, len, Permissions::Write, room);
        iovecs.map(drop)
    }

    /// Its memory, its buffers, and its room, to be filled from those.
    pub fn parts(&mut self) -> (&GuestRam, &Chain, &mut IoVecBuf) {
        (&self.memory, &self.chain, &mut self.room)
    }

    /// How many chains before this one belong to it ([`continue_in_next`](Self::continue_in_next)).
    pub(crate) fn part(&self) -> usize {
        self.part
    }

    /// Ends `process` for a packet that is longer than the chain: `written` bytes of it are there,
    /// and the rest is for the next chain. The driver gets all of them at once with the one that is
    /// `Done`; if there are not enough, all are put back, and the next one is the first again.
    pub(crate) fn continue_in_next(&mut self, written: u32) -> Outcome {
        self.continued = Some(written);
        Outcome::Pending
    }

    pub(crate) fn set_part(&mut self, part: usize) {
        self.part = part;
    }

    pub(crate) fn take_continued(&mut self) -> Option<u32> {
        self.continued.take()
    }

    pub(crate) fn set_ticket(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }
}

/// Requests that a device had kept and has finished, on their way to the driver.
#[derive(Debug, Default)]
pub struct Finished(Vec<Returned>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Returned {
    pub request: Request,
    pub written: u32,
    /// It was executed.
    pub is_done: bool,
}

impl Finished {
    /// The request is finished; so many bytes were written into it.
    pub fn push(&mut self, request: Request, written: u32) {
        self.0.push(Returned {
            request,
            written,
            is_done: true,
        });
    }

    /// The request was not executed, and its queue stops
    /// ([`stopping`](crate::virtio::VirtioDevice::stopping)). It is executed when the queue runs
    /// again, if the frontend keeps a record of requests in flight; else it is finished as it is.
    pub fn push_unfinished(&mut self, request: Request, written: u32) {
        self.0.push(Returned {
            request,
            written,
            is_done: false,
        });
    }

    /// Whether one of them has changed the device's state ([`Request::has_new_state`]).
    pub(crate) fn take_new_state(&mut self) -> bool {
        let requests = self.0.iter_mut();
        requests.fold(false, |any, returned| {
            std::mem::take(&mut returned.request.has_new_state) | any
        })
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Returned> + '_ {
        self.0.drain(..)
    }
}
