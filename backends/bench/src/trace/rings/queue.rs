//! One queue: its ring and the signals on it.

use std::sync::Arc;

use super::delayed::Signal;
use super::request;
use super::split::{Look, Seen, Split};
use crate::interpose::Memory;
use crate::interpose::{Interposed, give_back};
use crate::trace::record::{Available, Event, Used};
use crate::trace::recorder::ConnectionRecorder;

#[derive(Default)]
pub struct Queue {
    ring: Split,
    kick: Option<Arc<Interposed>>,
    is_running: bool,
    call: Option<Arc<Interposed>>,
}

impl Queue {
    pub fn ring(&mut self) -> &mut Split {
        &mut self.ring
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

    /// Records a signal, and what it is about where the ring can be looked into.
    pub fn look(
        &mut self,
        index: u8,
        is_kick: bool,
        memory: Option<&Memory>,
        recorder: &ConnectionRecorder,
    ) {
        if is_kick {
            recorder.event(Event::Kick { queue: index });
        }
        if let Some(memory) = memory {
            self.look_into_ring(index, is_kick, memory, recorder);
        }
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
        for seen in self.ring.look(&look) {
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
