//! One queue: its ring and the signals on it.

use std::sync::Arc;

use super::delayed::Signal;
use super::look::{Look, Seen};
use super::packed::Packed;
use super::request;
use super::split::Split;
use crate::follow::{self, Addresses, PackedRing, SplitRing};
use crate::interpose::{Interposed, Memory, give_back};
use crate::trace::record::{Available, Buffer, Event, Used};
use crate::trace::recorder::ConnectionRecorder;

/// What the features say of how a ring is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Format {
    pub is_packed: bool,
    pub is_in_order: bool,
}

/// How far a ring has been looked at.
enum Ring {
    Split(Split),
    Packed(Packed),
}

#[derive(Default)]
pub struct Queue {
    addresses: Addresses,
    size: u16,
    base: u32,
    format: Format,
    /// Once somebody has looked since it started.
    ring: Option<Ring>,
    kick: Option<Arc<Interposed>>,
    is_running: bool,
    call: Option<Arc<Interposed>>,
}

impl Queue {
    pub fn set_addresses(&mut self, addresses: Addresses) {
        self.addresses = addresses;
    }

    pub fn set_size(&mut self, size: u16) {
        self.size = size;
        self.ring = None;
    }

    /// The ring starts here.
    pub fn set_base(&mut self, base: u32, format: Format) {
        self.base = base;
        self.format = format;
        self.ring = None;
    }

    /// The signal to wait for while the ring runs.
    pub fn kick(&self) -> Option<&Arc<Interposed>> {
        self.kick.as_ref().filter(|_| self.is_running)
    }

    pub fn call(&self) -> Option<&Arc<Interposed>> {
        self.call.as_ref()
    }

    /// Whether the signal is the queue's, and not of an earlier start.
    pub fn has(&self, signal: &Signal) -> bool {
        let current = if signal.is_kick {
            self.kick()
        } else {
            self.call()
        };
        current.is_some_and(|current| Arc::ptr_eq(current, &signal.wire))
    }

    pub fn start(&mut self, kick: Interposed) {
        self.drop_kick();
        self.kick = Some(Arc::new(kick));
        self.is_running = true;
    }

    pub fn set_call(&mut self, call: Interposed) {
        self.call = Some(Arc::new(call));
    }

    /// From now on kicks wait in the driver's eventfd, as without the proxy.
    pub fn stop(&mut self) {
        self.is_running = false;
    }

    fn drop_kick(&mut self) {
        if let Some(kick) = self.kick.take() {
            give_back(&kick);
        }
    }

    /// Records a signal, and what it is about.
    pub fn look(
        &mut self,
        index: u8,
        is_kick: bool,
        memory: &Memory,
        recorder: &ConnectionRecorder,
    ) {
        if is_kick {
            recorder.event(Event::Kick { queue: index });
        }
        self.look_into_ring(index, is_kick, memory, recorder);
        if !is_kick {
            recorder.event(Event::Call { queue: index });
        }
    }

    fn look_into_ring(
        &mut self,
        queue: u8,
        is_kick: bool,
        memory: &Memory,
        recorder: &ConnectionRecorder,
    ) {
        let device_type = recorder.device_type();
        let look = Look {
            memory,
            time: recorder.now(),
            describe: &|buffers| request::describe(device_type, queue, buffers, memory),
        };
        for seen in self.seen(&look) {
            recorder.event(match seen {
                Seen::Available(chain) => Event::Available(Available {
                    queue,
                    head: chain.id,
                    what: chain.what,
                    buffers: chain.buffers.into_iter().map(Buffer::from).collect(),
                }),
                Seen::Used(head, chain, written) => {
                    // By a kick the driver may have put the buffers to another use.
                    let buffers = chain.as_ref().filter(|_| !is_kick);
                    let buffers = buffers.map_or(&[][..], |chain| &chain.buffers);
                    Event::Used(Used {
                        queue,
                        head,
                        written,
                        result: request::result(device_type, buffers, memory),
                        latency: chain.as_ref().map(|chain| look.time - chain.time),
                        what: chain.map(|chain| chain.what),
                    })
                }
            });
        }
    }

    /// A ring that is not in memory shows nothing.
    fn seen(&mut self, look: &Look<'_>) -> Vec<Seen> {
        let (addresses, size, base) = (&self.addresses, self.size, self.base);
        let Format {
            is_packed,
            is_in_order,
        } = self.format;
        let new = || match is_packed {
            false => Ring::Split(Split::start(size, base as u16, is_in_order)),
            true => Ring::Packed(Packed::start(size, base, is_in_order)),
        };
        match self.ring.get_or_insert_with(new) {
            Ring::Split(split) => SplitRing::at(look.memory, addresses, size)
                .map_or_else(Vec::new, |ring| split.look(&ring, look)),
            Ring::Packed(packed) => PackedRing::at(look.memory, addresses, size)
                .map_or_else(Vec::new, |ring| packed.look(&ring, look)),
        }
    }
}

impl From<follow::Buffer> for Buffer {
    fn from(buffer: follow::Buffer) -> Self {
        Self {
            address: buffer.address,
            len: buffer.len,
            is_writable: buffer.is_writable,
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.drop_kick();
    }
}
