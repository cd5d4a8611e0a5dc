//! The ring of one queue with the signals on it, while a connection lasts.

use std::io;
use std::sync::Arc;

use super::mirror::{Left, Queue, Ring, Witness};
use super::tape::Tape;
use crate::follow::Addresses;
use crate::interpose::{Interposed, Memory, put_back};
use crate::recording::{Item, Start};

/// A kick or a call of a queue.
#[derive(Clone, Debug)]
pub struct Signal {
    pub queue: u8,
    pub is_kick: bool,
    pub wire: Arc<Interposed>,
}

/// What a ring's chains are read from, and where they are recorded.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub memory: &'a Memory,
    pub tape: &'a Tape,
    /// That the driver has accepted.
    pub features: u64,
}

#[derive(Default)]
pub struct Vring {
    size: u16,
    base: u32,
    driver: Addresses,
    kick: Option<Arc<Interposed>>,
    call: Option<Arc<Interposed>>,
    /// While it runs.
    queue: Option<Queue>,
    /// Nothing more is passed to the device, which is asked for the ring's base.
    is_stopping: bool,
}

impl Vring {
    /// In descriptors.
    pub fn set_size(&mut self, size: u32) {
        self.size = u16::try_from(size).unwrap_or(0);
    }

    pub fn set_base(&mut self, base: u32) {
        self.base = base;
    }

    /// Where the driver has it.
    pub fn set_addresses(&mut self, driver: Addresses) {
        self.driver = driver;
    }

    /// The ring starts, if it does not run: `device` is where the device has it, and `left` what
    /// it continues, if that is so. What the driver made available before is passed on.
    pub fn start(
        &mut self,
        index: u8,
        kick: Interposed,
        device: Addresses,
        left: Option<Left>,
        context: Context<'_>,
    ) -> io::Result<()> {
        if self.queue.is_none() {
            let start = Start {
                queue: index,
                size: self.size,
                base: self.base,
            };
            let ring = Ring {
                start,
                driver: self.driver,
                device,
            };
            self.queue = Some(run(ring, left, context)?);
        }
        self.is_stopping = false;
        self.kick = Some(Arc::new(kick));
        self.pass_available(context)
    }

    /// What the device has used before is passed on.
    pub fn set_call(&mut self, call: Interposed, context: Context<'_>) -> io::Result<()> {
        self.call = Some(Arc::new(call));
        self.pass_used(context)
    }

    /// The device is asked to stop with it.
    pub fn begin_stop(&mut self) {
        self.is_stopping = true;
    }

    /// The device has gone: how it left the ring, if that ran.
    pub fn leave(&mut self, context: Context<'_>) -> Option<Left> {
        // Who cannot be signalled has gone too.
        let _ = self.pass_used(context);
        self.queue.take().map(Queue::leave)
    }

    /// The device has stopped with it.
    pub fn stop(&mut self, context: Context<'_>) -> io::Result<()> {
        self.pass_used(context)?;
        (self.queue, self.kick, self.is_stopping) = (None, None, false);
        Ok(())
    }

    /// What to wait for.
    pub fn signals(&self, queue: u8) -> impl Iterator<Item = Signal> {
        let signal = move |is_kick, wire: &Arc<Interposed>| Signal {
            queue,
            is_kick,
            wire: Arc::clone(wire),
        };
        let runs = self.queue.is_some() && !self.is_stopping;
        let kick = self.kick.as_ref().filter(|_| runs);
        let call = self.call.as_ref();
        let kick = kick.map(|wire| signal(true, wire));
        kick.into_iter()
            .chain(call.map(move |wire| signal(false, wire)))
    }

    pub fn pass_available(&mut self, context: Context<'_>) -> io::Result<()> {
        let (Some(queue), Some(kick)) = (&mut self.queue, &self.kick) else {
            return Ok(());
        };
        if queue.pass_available(context.memory, context.tape) {
            kick.pass_on()?;
        }
        let [has_more, _] = queue.has_more(context.memory);
        if has_more {
            put_back(kick);
        }
        Ok(())
    }

    pub fn pass_used(&mut self, context: Context<'_>) -> io::Result<()> {
        let Some(queue) = &mut self.queue else {
            return Ok(());
        };
        let is_wanted = queue.pass_used(context.memory, context.tape);
        let Some(call) = &self.call else {
            return Ok(());
        };
        if is_wanted {
            call.pass_on()?;
        }
        let [_, has_more] = queue.has_more(context.memory);
        if has_more {
            put_back(call);
        }
        Ok(())
    }
}

/// The recording has the ring begin where all comes again that is in flight.
fn run(ring: Ring, left: Option<Left>, context: Context<'_>) -> io::Result<Queue> {
    let (features, memory, mut start) = (context.features, context.memory, ring.start);
    if let Some(left) = left
        && let Some(mut queue) = Queue::resume(ring, features, &left, memory)
    {
        start.base = queue.base();
        context.tape.tell(Item::Start(start));
        queue.take_over(left, memory, context.tape);
        return Ok(queue);
    }
    let queue = Queue::start(ring, features, memory).ok_or_else(|| {
        let index = start.queue;
        io::Error::other(format!("the ring of queue {index} is not in guest memory"))
    })?;
    context.tape.tell(Item::Start(start));
    Ok(queue)
}
