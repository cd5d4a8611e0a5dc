//! One queue: its ring and the signals on it.

use std::sync::Arc;

use super::delayed::Signal;
use super::packed::Packed;
use super::request;
use super::split::{Addresses, Look, Seen, Split};
use crate::interpose::{Interposed, Memory, give_back};
use crate::trace::record::{Available, Event, Used};
use crate::trace::recorder::ConnectionRecorder;

/// What the features say of how a ring is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Format {
    pub is_packed: bool,
    pub is_in_order: bool,
}

#[derive(Default)]
pub struct Queue {
    split: Split,
    packed: Packed,
    format: Format,
    kick: Option<Arc<Interposed>>,
    is_running: bool,
    call: Option<Arc<Interposed>>,
}

impl Queue {
    pub fn set_addresses(&mut self, addresses: Addresses) {
        self.split.addresses = addresses;
        self.packed.addresses = addresses;
    }

    pub fn set_size(&mut self, size: u16) {
        self.split.size = size;
        self.packed.size = size;
    }

    /// The ring starts here.
    pub fn set_base(&mut self, base: u32, format: Format) {
        self.format = format;
        self.split.set_base(base as u16);
        self.packed.set_base(base);
        self.packed.is_in_order = format.is_in_order;
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
        let seen = match self.format.is_packed {
            false => self.split.look(&look),
            true => self.packed.look(&look),
        };
        for seen in seen {
            recorder.event(match seen {
                Seen::Available(chain) => Event::Available(Available {
                    queue,
                    head: chain.head,
                    what: chain.what,
                    buffers: chain.buffers,
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
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.drop_kick();
    }
}
