//! Kicks, calls and chains: what drivers and devices say to each other past the socket.
//!
//! The proxy puts eventfds of its own in the place of the peers', passes each signal on, and
//! looks into the ring before it does, by mappings of its own. A ring is looked at only when
//! somebody signals: where signals are suppressed, chains are seen at the next one, and seem to
//! take longer or shorter than they did.

mod memory;
mod queue;
mod request;
mod split;
mod wires;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use vhost::vhost_user::message::{
    FrontendReq as F, VhostUserSingleMemoryRegion, VhostUserVringAddr, VhostUserVringState,
};
use vhost_user_wire::payload::{MemoryTable, VringFile};
use vhost_user_wire::{HEADER_SIZE, Payload, Raw};

use super::recorder::ConnectionRecorder;
use memory::{Memory, Place};
use queue::Queue;
use split::Addresses;
use wires::Interposed;

const RING_PACKED: u64 = 1 << 34;

/// The rings of one connection.
pub struct Rings {
    state: Mutex<State>,
    /// Readable when there are other descriptors to wait for.
    changed: OwnedFd,
}

#[derive(Default)]
struct State {
    memory: Memory,
    queues: BTreeMap<u8, Queue>,
    /// Only signals are seen: packed rings are not looked into.
    is_packed: bool,
    is_over: bool,
}

impl Rings {
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            state: Mutex::default(),
            changed: eventfd(0, flags)?,
        })
    }

    /// Learns from a message of the frontend, and puts eventfds of its own in the place of those
    /// of kicks and calls.
    pub fn learn(&self, raw: &mut Raw) -> io::Result<()> {
        let Some(code) = raw
            .header()
            .and_then(|header| F::try_from(header.request).ok())
        else {
            return Ok(());
        };
        let Some(payload) = raw.bytes.get(HEADER_SIZE..) else {
            return Ok(());
        };
        let mut state = self.lock();
        match code {
            F::SET_VRING_KICK | F::SET_VRING_CALL => {
                let Ok(VringFile { index, .. }) = VringFile::decode(payload) else {
                    return Ok(());
                };
                let queue = state.queues.entry(index).or_default();
                interpose(queue, code, raw)?;
            }
            _ => state.learn(code, payload, raw),
        }
        drop(state);
        self.wake()
    }

    /// Passes signals on until the connection [ends](Self::end).
    pub fn run(&self, recorder: &ConnectionRecorder) -> io::Result<()> {
        loop {
            let state = self.lock();
            if state.is_over {
                return Ok(());
            }
            let watched: Vec<_> = state.watched().collect();
            drop(state);
            let fds = watched.iter().map(|(_, _, wire)| wire.as_fd());
            let fds = std::iter::once(self.changed.as_fd()).chain(fds);
            let mut fds: Vec<_> = fds
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            // An error means that nothing has changed.
            let _ = rustix::io::read(&self.changed, &mut [0; size_of::<u64>()]);
            let signalled = watched.iter().zip(&ready[1..]).filter(|(_, ready)| **ready);
            for ((index, is_kick, wire), _) in signalled {
                self.lock().signal(*index, *is_kick, wire, recorder)?;
            }
        }
    }

    /// The connection is over.
    pub fn end(&self) {
        self.lock().is_over = true;
        // A full counter wakes too.
        let _ = self.wake();
    }

    fn wake(&self) -> io::Result<()> {
        match rustix::io::write(&self.changed, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message hands over an eventfd of the queue's; the backend gets another.
fn interpose(queue: &mut Queue, code: F, raw: &mut Raw) -> io::Result<()> {
    let file = match &raw.files[..] {
        [file] if wires::is_eventfd(file) => file.try_clone()?,
        // No signal, or none that could be passed on.
        _ => return Ok(()),
    };
    let (wire, theirs) = match code {
        F::SET_VRING_KICK => Interposed::behind(file)?,
        _ => Interposed::before(file)?,
    };
    match code {
        F::SET_VRING_KICK => queue.start(wire),
        _ => queue.set_call(wire),
    }
    raw.files = vec![theirs];
    Ok(())
}

impl State {
    /// Messages that cannot be read, the backend refuses.
    fn learn(&mut self, code: F, payload: &[u8], raw: &Raw) {
        match code {
            F::SET_FEATURES => {
                let features = u64::decode(payload).unwrap_or(0);
                self.is_packed = features & RING_PACKED != 0;
            }
            F::SET_MEM_TABLE => {
                let table = MemoryTable::decode(payload).unwrap_or_default();
                self.memory.clear();
                for (region, file) in table.0.iter().zip(&raw.files) {
                    self.add(Place::from(region), file);
                }
            }
            F::ADD_MEM_REG | F::REM_MEM_REG => {
                let Ok(region) = VhostUserSingleMemoryRegion::decode(payload) else {
                    return;
                };
                match raw.files.first() {
                    Some(file) if code == F::ADD_MEM_REG => self.add(Place::from(&region), file),
                    _ => self.memory.remove(Place::from(&region)),
                }
            }
            F::SET_VRING_ADDR => {
                if let Ok(addr) = VhostUserVringAddr::decode(payload)
                    && let Some(queue) = self.queue(addr.index)
                {
                    queue.ring().addresses = Addresses {
                        descriptors: addr.descriptor,
                        available: addr.available,
                        used: addr.used,
                    };
                }
            }
            F::SET_VRING_NUM | F::SET_VRING_BASE | F::GET_VRING_BASE => {
                if let Ok(state) = VhostUserVringState::decode(payload)
                    && let Some(queue) = self.queue(state.index)
                {
                    match code {
                        F::SET_VRING_NUM => queue.ring().size = state.num as u16,
                        F::SET_VRING_BASE => queue.ring().set_base(state.num as u16),
                        _ => queue.stop(),
                    }
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, place: Place, file: &std::fs::File) {
        if let Ok(file) = file.try_clone() {
            self.memory.add(place, file);
        }
    }

    fn queue(&mut self, index: u32) -> Option<&mut Queue> {
        let index = u8::try_from(index).ok()?;
        Some(self.queues.entry(index).or_default())
    }

    /// Queue, whether it is a kick, and what to wait on.
    fn watched(&self) -> impl Iterator<Item = (u8, bool, Arc<Interposed>)> {
        self.queues.iter().flat_map(|(index, queue)| {
            let kick = queue.kick().map(|wire| (*index, true, wire.clone()));
            let call = queue.call().map(|wire| (*index, false, wire.clone()));
            kick.into_iter().chain(call)
        })
    }

    /// Passes a signal on, if it still is the queue's.
    fn signal(
        &mut self,
        index: u8,
        is_kick: bool,
        wire: &Arc<Interposed>,
        recorder: &ConnectionRecorder,
    ) -> io::Result<()> {
        let Some(queue) = self.queues.get_mut(&index) else {
            return Ok(());
        };
        let current = if is_kick { queue.kick() } else { queue.call() };
        if !current.is_some_and(|current| Arc::ptr_eq(current, wire)) {
            return Ok(());
        }
        wire.take()?;
        let memory = (!self.is_packed).then_some(&self.memory);
        queue.look(index, is_kick, memory, recorder);
        wire.pass_on()
    }
}
