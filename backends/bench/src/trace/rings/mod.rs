//! Kicks, calls and chains: what drivers and devices say to each other past the socket.
//!
//! The proxy puts eventfds of its own in the place of the peers', passes each signal on, and
//! looks into the ring before it does, by mappings of its own. A ring is looked at only when
//! somebody signals: where signals are suppressed, chains are seen at the next one, and seem to
//! take longer or shorter than they did.

mod delayed;
mod look;
mod packed;
mod queue;
mod request;
mod split;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use vhost::vhost_user::message::{
    FrontendReq as F, VhostUserSingleMemoryRegion, VhostUserVringAddr, VhostUserVringState,
};
use vhost_user_wire::payload::{MemoryTable, VringFile};
use vhost_user_wire::{HEADER_SIZE, Payload, Raw};

use super::faults::{Action, Injector, Occurrence};
use super::interposer::Interposer;
use super::recorder::ConnectionRecorder;
use crate::follow::Addresses;
use crate::interpose::{Interposed, Memory, Place, is_eventfd, put_back};
use delayed::{Delayed, Signal};
use queue::{Format, Queue};

const RING_PACKED: u64 = 1 << 34;
const IN_ORDER: u64 = 1 << 35;

/// Signals of an eventfd that come at once are one: the second of a doubled one comes so much
/// later.
const DOUBLE: Duration = Duration::from_millis(1);

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
    format: Format,
    delayed: Delayed,
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

impl Interposer for Rings {
    /// Learns from a message of the frontend, and puts eventfds of its own in the place of those
    /// of kicks and calls.
    fn request(&self, raw: &mut Raw) -> io::Result<()> {
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

    fn run(&self, recorder: &ConnectionRecorder, injector: Option<&Injector>) -> io::Result<bool> {
        loop {
            let mut state = self.lock();
            if state.is_over {
                return Ok(false);
            }
            state.pass_delayed_on()?;
            let watched: Vec<_> = state.watched().collect();
            let limit = state.delayed.next().map(Timespec::try_from);
            let limit = limit.transpose().map_err(io::Error::other)?;
            drop(state);
            let fds = watched.iter().map(|signal| signal.wire.as_fd());
            let fds = std::iter::once(self.changed.as_fd()).chain(fds);
            let mut fds: Vec<_> = fds
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, limit.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            // An error means that nothing has changed.
            let _ = rustix::io::read(&self.changed, &mut [0; size_of::<u64>()]);
            let signalled = watched.iter().zip(&ready[1..]).filter(|(_, ready)| **ready);
            for (signal, _) in signalled {
                if self.lock().signal(signal, recorder, injector)? {
                    return Ok(true);
                }
            }
        }
    }

    fn end(&self) {
        self.lock().is_over = true;
        // A full counter wakes too.
        let _ = self.wake();
    }
}

/// The message hands over an eventfd of the queue's; the backend gets another.
fn interpose(queue: &mut Queue, code: F, raw: &mut Raw) -> io::Result<()> {
    let file = match &raw.files[..] {
        [file] if is_eventfd(file) => file.try_clone()?,
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
                self.format = Format {
                    is_packed: features & RING_PACKED != 0,
                    is_in_order: features & IN_ORDER != 0,
                };
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
                    queue.set_addresses(Addresses {
                        descriptors: addr.descriptor,
                        driver: addr.available,
                        device: addr.used,
                    });
                }
            }
            F::SET_VRING_NUM | F::SET_VRING_BASE | F::GET_VRING_BASE => {
                let format = self.format;
                if let Ok(state) = VhostUserVringState::decode(payload)
                    && let Some(queue) = self.queue(state.index)
                {
                    match code {
                        F::SET_VRING_NUM => queue.set_size(state.num as u16),
                        F::SET_VRING_BASE => queue.set_base(state.num, format),
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

    /// What to wait for.
    fn watched(&self) -> impl Iterator<Item = Signal> {
        self.queues.iter().flat_map(|(index, queue)| {
            let signal = |is_kick, wire: &_| Signal {
                queue: *index,
                is_kick,
                wire: Clone::clone(wire),
            };
            let kick = queue.kick().map(|wire| signal(true, wire));
            let call = queue.call().map(|wire| signal(false, wire));
            kick.into_iter().chain(call)
        })
    }

    /// Passes a signal on, if it still is the queue's, with its fault. Says whether that is to
    /// cut the connection.
    fn signal(
        &mut self,
        signal: &Signal,
        recorder: &ConnectionRecorder,
        injector: Option<&Injector>,
    ) -> io::Result<bool> {
        let (index, is_kick, wire) = (signal.queue, signal.is_kick, &signal.wire);
        let memory = &self.memory;
        let Some(queue) = self
            .queues
            .get_mut(&index)
            .filter(|queue| queue.has(signal))
        else {
            return Ok(false);
        };
        wire.take()?;
        queue.look(index, is_kick, memory, recorder);
        let occurrence = match is_kick {
            true => Occurrence::Kick(index),
            false => Occurrence::Call(index),
        };
        match injector.and_then(|injector| injector.next(&occurrence, recorder)) {
            Some(Action::Drop) => {}
            Some(Action::Delay(time)) => self.delayed.push(time, signal.clone()),
            Some(Action::Double) => {
                self.delayed.push(DOUBLE, signal.clone());
                wire.pass_on()?;
            }
            Some(Action::Cut) => {
                if is_kick {
                    put_back(wire);
                }
                return Ok(true);
            }
            _ => wire.pass_on()?,
        }
        Ok(false)
    }

    /// Kicks of a ring that has stopped since wait for its next start.
    fn pass_delayed_on(&mut self) -> io::Result<()> {
        for signal in self.delayed.take_due() {
            let queue = self.queues.get(&signal.queue);
            if queue.is_some_and(|queue| queue.has(&signal)) {
                signal.wire.pass_on()?;
            } else if signal.is_kick {
                put_back(&signal.wire);
            }
        }
        Ok(())
    }
}
