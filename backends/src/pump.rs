//! Taking chains from a ring in batches: the part of the data path that devices share.
//!
//! One [`Pump`] belongs to one worker and one ring. It keeps the scratch space that makes a
//! steady stream of requests free of allocations, and it bounds how long a worker stays with a
//! driver that adds requests as fast as they complete, or that are long.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vhost_user_backend::VringT;
use virtio_queue::QueueT;
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::chain::Chain;
use crate::device::SharedMemory;
use crate::error_sign::ErrorSign;
use crate::inflight::Record;
use crate::iovec::IoVecBuf;
use crate::listeners::Listeners;
use crate::page_log::{GuestRam, PageLog};
use crate::ratelimit::RateLimit;
use crate::ring::Ring;
use crate::vring::Vring;
use crate::warn_limited;

/// How long a worker stays with a ring before it looks at anything else.
const TURN: Duration = Duration::from_millis(50);

/// Shortest time between two notifications within a pass. Fast requests share one; slow ones (a
/// disk that has to be read) each have their own.
const NOTIFY_AFTER: Duration = Duration::from_micros(50);

static LOG: RateLimit = RateLimit::for_logs();

/// Space reused from chain to chain.
#[derive(Debug, Default)]
pub struct Scratch {
    /// How many chains before this one belong to it ([`Outcome::More`]).
    pub part: usize,
    /// The chain at hand.
    pub chain: Chain,
    /// Room to hand it to the kernel.
    pub room: IoVecBuf,
    /// The chain has changed the device's own state, which is to outlive the process.
    pub has_new_state: bool,
}

/// What a device did with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is finished; so many bytes were written into it.
    Done(u32),
    /// So many bytes were written into it, and there is more for the next chain. The driver gets
    /// all of them at once with the one that is `Done`; if there are not enough, all are put back
    /// and the next one is the first again.
    More(u32),
    /// Nothing was done with it; it stays available and the device has something else to try.
    Untouched,
    /// Nothing was done with it, and nothing can be until the device has an event of its own.
    Wait,
}

/// Takes chains from one ring.
#[derive(Debug)]
pub struct Pump {
    memory: Option<SharedMemory<PageLog>>,
    record: Record,
    errors: ErrorSign,
    /// The driver has offered what cannot be followed, and the frontend does not know yet.
    met_error: bool,
    scratch: Scratch,
    /// Chains that wait for one more: their heads, and what was written into them.
    parts: Vec<(u16, u32)>,
    again: (EventConsumer, EventNotifier),
}

/// Why a pass over the ring ended.
enum Pass {
    Drained,
    Waiting,
    OutOfTime,
}

impl Pump {
    /// A pump without memory yet.
    pub fn new() -> io::Result<Self> {
        Ok(Pump {
            memory: None,
            record: Record::default(),
            errors: ErrorSign::default(),
            met_error: false,
            scratch: Scratch::default(),
            parts: Vec::new(),
            again: new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?,
        })
    }

    /// Lets the pump call its worker back with `event` when a turn had to be cut short.
    pub fn attach(&self, listeners: &Listeners, event: u16) -> io::Result<()> {
        listeners.register(
            self.again.0.as_raw_fd(),
            EventSet::IN | EventSet::EDGE_TRIGGERED,
            event,
        )
    }

    /// Where the ring's chains in flight are to be recorded.
    pub fn set_record(&mut self, record: Record) {
        self.record = record;
    }

    /// Where the frontend is to hear of what is wrong with the ring.
    pub fn set_error_sign(&mut self, errors: ErrorSign) {
        self.errors = errors;
    }

    /// The memory that chains point into.
    pub fn set_memory(&mut self, memory: SharedMemory<PageLog>) {
        self.memory = Some(memory);
    }

    /// Hands the ring's chains to `serve` until there are none left, and notifies the driver.
    ///
    /// A chain that cannot be followed goes back to the driver with length 0, and the frontend is
    /// told of it, as of an error. Those of a ring that is ready but disabled go back so too,
    /// which is no error.
    pub fn run(
        &mut self,
        vring: &Vring,
        serve: impl FnMut(&GuestRam, &mut Scratch) -> Outcome,
    ) -> io::Result<()> {
        let run = self.serve(vring, serve);
        if std::mem::take(&mut self.met_error) || run.is_err() {
            self.errors.signal();
        }
        run
    }

    fn serve(
        &mut self,
        vring: &Vring,
        mut serve: impl FnMut(&GuestRam, &mut Scratch) -> Outcome,
    ) -> io::Result<()> {
        let (ready, enabled) = {
            let state = vring.get_ref();
            (state.get_queue().ready(), state.is_enabled())
        };
        let mut serve = |memory: &GuestRam, scratch: &mut Scratch| match enabled {
            true => serve(memory, scratch),
            false => Outcome::Done(0),
        };
        // An event of the worker's own may come after the ring was stopped.
        let (true, Some(memory)) = (ready, self.memory.as_ref().map(|m| m.memory())) else {
            return Ok(());
        };
        let record = self.record.clone();
        let mut ring = Ring::new(vring, &memory, record.lock());
        let mut turn = Turn::new(Instant::now());
        loop {
            ring.disable_notification()?;
            let pass = self.pass(&mut ring, &mut turn, &mut serve);
            // Whatever happened, the driver hears of what was completed.
            turn.notify(&mut ring)?;
            // What belongs together is completed together, or not at all.
            self.put_back_parts(&mut ring)?;
            match pass? {
                Pass::OutOfTime => return self.again.1.notify(),
                Pass::Waiting => return Ok(()),
                Pass::Drained if ring.is_exhausted()? => return Ok(()),
                Pass::Drained => (),
            }
        }
    }

    /// One pass over the ring.
    fn pass(
        &mut self,
        ring: &mut Ring<'_>,
        turn: &mut Turn,
        serve: &mut impl FnMut(&GuestRam, &mut Scratch) -> Outcome,
    ) -> io::Result<Pass> {
        loop {
            let Some((head, chain)) = ring.take(&mut self.scratch.chain)? else {
                if self.parts.is_empty() {
                    return Ok(Pass::Drained);
                }
                if ring.is_exhausted()? {
                    return Ok(Pass::Waiting);
                }
                continue;
            };
            self.scratch.part = self.parts.len();
            let served = match chain {
                Ok(()) => serve(ring.memory(), &mut self.scratch),
                Err(error) => {
                    self.met_error = true;
                    let error: &dyn std::error::Error = &error;
                    warn_limited!(LOG, head, error, "dropped a malformed chain of the driver");
                    Outcome::Done(0)
                }
            };
            let now = Instant::now();
            match served {
                Outcome::Done(len) if self.parts.is_empty() => {
                    ring.complete(&[(head, len)])?;
                    turn.completed_one(ring, now)?;
                }
                Outcome::Done(len) => {
                    self.parts.push((head, len));
                    ring.complete(&self.parts)?;
                    self.parts.clear();
                    turn.completed_one(ring, now)?;
                }
                Outcome::More(len) => {
                    self.parts.push((head, len));
                    continue;
                }
                Outcome::Untouched => {
                    ring.put_back(head)?;
                    self.put_back_parts(ring)?;
                }
                Outcome::Wait => {
                    ring.put_back(head)?;
                    return Ok(Pass::Waiting);
                }
            }
            if now.duration_since(turn.start) >= TURN {
                return Ok(Pass::OutOfTime);
            }
        }
    }

    fn put_back_parts(&mut self, ring: &mut Ring<'_>) -> io::Result<()> {
        while let Some((head, _)) = self.parts.pop() {
            ring.put_back(head)?;
        }
        Ok(())
    }
}

/// A worker's stay with a ring, and what the driver has not been told of it.
struct Turn {
    start: Instant,
    /// When the driver was last up to date.
    told: Instant,
    untold: bool,
}

impl Turn {
    fn new(now: Instant) -> Self {
        Turn {
            start: now,
            told: now,
            untold: false,
        }
    }

    /// Counts a chain, and tells the driver unless it has just been told of others.
    fn completed_one(&mut self, ring: &mut Ring<'_>, now: Instant) -> io::Result<()> {
        self.untold = true;
        if now.duration_since(self.told) >= NOTIFY_AFTER {
            self.told = now;
            self.notify(ring)?;
        }
        Ok(())
    }

    /// Tells the driver, if there is something to tell and it wants to know.
    fn notify(&mut self, ring: &mut Ring<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.untold) {
            ring.notify()?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "pump_test.rs"]
mod tests;
