//! Taking chains from a ring in batches: the part of the data path that devices share.
//!
//! One [`Pump`] belongs to one worker and one ring. It reuses its buffers, so that a steady
//! stream of requests allocates nothing. It bounds how long a worker stays with a driver that
//! adds requests as fast as they complete, or long ones.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_user_backend::VringT;
use virtio_queue::QueueT;
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::error_sign::ErrorSign;
use crate::listeners::Listeners;
use crate::memory::SharedMemory;
use crate::page_log::{GuestRam, PageLog};
use crate::pending::Pending;
use crate::polling::Polling;
use crate::pressure::Pressure;
use crate::progress::Record;
use crate::ram_area::FoundAreas;
use crate::ratelimit::RateLimit;
use crate::request::{Finished, Outcome, Request};
use crate::ring::{self, Ring};
use crate::turn::Turn;
use crate::vring::Vring;
use crate::warn_limited;

const PENDING_AFTER_MORE: &str = "the device has kept the last of several chains that belong \
    together: they are finished at once or not at all";

/// Most chains that the driver gets back at once, if it has as many at hand: a driver that polls
/// can continue with the first ones while the device serves the next.
const BATCH: usize = 16;

static LOG: RateLimit = RateLimit::for_logs();

/// The device's side of a pump: it serves the chains of a ring.
pub trait Serve {
    /// Looks at a chain.
    fn process(&mut self, memory: &GuestRam, request: &mut Request) -> Outcome;

    /// Hands over requests that were kept and are finished.
    fn poll(&mut self, _finished: &mut Finished) {}
}

impl<F: FnMut(&GuestRam, &mut Request) -> Outcome> Serve for F {
    fn process(&mut self, memory: &GuestRam, request: &mut Request) -> Outcome {
        self(memory, request)
    }
}

/// Takes chains from one ring.
#[derive(Debug)]
pub struct Pump {
    /// `None` before the frontend has shared any.
    memory: Option<Arc<GuestRam>>,
    areas: FoundAreas,
    record: Record,
    errors: ErrorSign,
    /// The driver has offered a chain that cannot be followed, and the frontend does not know yet.
    met_error: bool,
    /// Reused from chain to chain.
    request: Request,
    pending: Pending,
    /// Chains that wait for one more: their heads, and the bytes written into them.
    parts: Vec<(u16, u32)>,
    /// The same of chains that are finished, on their way to the driver.
    batch: Vec<(u16, u32)>,
    polling: Polling,
    again: (EventConsumer, EventNotifier),
}

/// What became of a chain.
enum Served {
    /// Nothing more is done with it for now.
    Ended(Outcome),
    /// So many bytes are in it, and the next chain belongs to it.
    Continued(u32),
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
            areas: FoundAreas::default(),
            record: Record::default(),
            errors: ErrorSign::default(),
            met_error: false,
            request: Request::new(Arc::default()),
            pending: Pending::default(),
            parts: Vec::new(),
            batch: Vec::new(),
            polling: Polling::default(),
            again: new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?,
        })
    }

    /// Lets the pump call its worker back with `event` when a turn had to be cut short, or somebody
    /// [wakes](Pump::waker) it.
    pub fn attach(&self, listeners: &Listeners, event: u16) -> io::Result<()> {
        listeners.register(
            self.again.0.as_raw_fd(),
            EventSet::IN | EventSet::EDGE_TRIGGERED,
            event,
        )
    }

    /// Causes that event from any thread.
    pub fn waker(&self) -> io::Result<EventNotifier> {
        self.again.1.try_clone()
    }

    /// Where the ring's chains in flight are to be recorded.
    pub fn set_record(&mut self, record: Record) {
        self.record = record;
    }

    /// Where the frontend is to hear of errors of the ring.
    pub fn set_error_sign(&mut self, errors: ErrorSign) {
        self.errors = errors;
    }

    /// How long to look for more before the thread sleeps, where that pays.
    pub fn set_polling(&mut self, limit: Duration) {
        self.polling = Polling::new(limit, Pressure::of_host());
    }

    /// The memory that chains point into from here on. The ring does not run.
    pub fn set_memory(&mut self, memory: &SharedMemory<PageLog>) {
        let memory = memory.memory().into_inner();
        self.request = Request::new(Arc::clone(&memory));
        self.pending.forget_room();
        self.areas.forget();
        self.memory = Some(memory);
    }

    /// How many requests the device has kept and not finished.
    pub fn pending(&self) -> usize {
        self.pending.count()
    }

    /// Gives up the requests that the device has kept: when they are finished the driver does not
    /// hear of them.
    pub fn abandon(&mut self) {
        self.pending.abandon();
    }

    /// Hands the ring's chains to `server` until there are none left, and notifies the driver of
    /// them and of those that were kept and are finished. From a ring that is not ready nothing
    /// is taken.
    ///
    /// A chain that cannot be followed goes back to the driver with length 0, and the frontend is
    /// told of it, as of an error. Those of a ring that is ready but disabled go back so too,
    /// which is no error.
    pub fn run(&mut self, vring: &Vring, mut server: impl Serve) -> io::Result<()> {
        self.polling.wakes(Instant::now());
        let run = self.serve(vring, &mut server);
        self.polling.sleeps(Instant::now());
        if std::mem::take(&mut self.met_error) || run.is_err() {
            self.errors.signal();
        }
        run
    }

    fn serve(&mut self, vring: &Vring, server: &mut impl Serve) -> io::Result<()> {
        let (ready, enabled) = {
            let state = vring.get_ref();
            (state.get_queue().ready(), state.is_enabled())
        };
        let Some(memory) = self.memory.clone() else {
            return Ok(());
        };
        // One that is not ready has no place in memory, unless it was left with something to do.
        if !ready && self.pending.count() == 0 {
            return Ok(());
        }
        let record = self.record.clone();
        let mut progress = record.lock();
        let spans = ring::spans(vring, &progress);
        let areas = self.areas.find(&memory, spans)?;
        let mut ring = Ring::new(vring, &memory, &areas, &mut progress);
        let mut turn = Turn::new(Instant::now());
        // An event of the worker's own may come after the ring was stopped.
        if !ready {
            let collected = self.collect(&mut ring, &mut turn, server);
            return turn.notify(&mut ring).and(collected.map(drop));
        }
        loop {
            ring.disable_notification()?;
            let pass = self.pass(&mut ring, &mut turn, server, enabled);
            // Whatever happened, the driver hears of the completed chains.
            self.give_back(&mut ring)?;
            let pass =
                pass.and_then(|pass| self.collect(&mut ring, &mut turn, server).map(|_| pass));
            turn.notify(&mut ring)?;
            // Chains of one request are completed together, or not at all.
            self.put_back_parts(&mut ring)?;
            match pass? {
                Pass::OutOfTime => return self.again.1.notify(),
                Pass::Waiting => return Ok(()),
                Pass::Drained if self.poll(&mut ring, &mut turn, server)? => (),
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
        server: &mut impl Serve,
        enabled: bool,
    ) -> io::Result<Pass> {
        loop {
            let Some((head, chain)) = ring.take(&mut self.request.chain)? else {
                if self.parts.is_empty() {
                    return Ok(Pass::Drained);
                }
                if ring.is_exhausted()? {
                    return Ok(Pass::Waiting);
                }
                continue;
            };
            let served = match chain {
                Ok(()) if enabled => match self.offer(head, ring.memory(), server) {
                    Served::Ended(outcome) => outcome,
                    Served::Continued(len) => {
                        self.parts.push((head, len));
                        continue;
                    }
                },
                Ok(()) => Outcome::Done(0),
                Err(error) => {
                    self.met_error = true;
                    let error: &dyn std::error::Error = &error;
                    warn_limited!(LOG, head, error, "dropped a malformed chain of the driver");
                    Outcome::Done(0)
                }
            };
            let now = Instant::now();
            match served {
                // The driver has made a chain available that is not in the ring.
                Outcome::Done(_) if !ring.has(head) => (),
                Outcome::Done(len) => {
                    self.batch.append(&mut self.parts);
                    self.batch.push((head, len));
                    turn.completed();
                }
                Outcome::Pending if self.parts.is_empty() => turn.kept(),
                Outcome::Pending => return Err(io::Error::other(PENDING_AFTER_MORE)),
                Outcome::Untouched => {
                    ring.put_back(head)?;
                    self.put_back_parts(ring)?;
                }
                Outcome::Wait => {
                    ring.put_back(head)?;
                    return Ok(Pass::Waiting);
                }
            }
            if self.batch.len() >= BATCH {
                self.give_back(ring)?;
            }
            if turn.is_due(now) {
                self.give_back(ring)?;
                self.collect(ring, turn, server)?;
                turn.notify(ring)?;
            }
            if turn.is_over(now) {
                return Ok(Pass::OutOfTime);
            }
        }
    }

    /// Offers the chain at `head` to the device. The request tells whether the device has kept it.
    fn offer(&mut self, head: u16, memory: &GuestRam, server: &mut impl Serve) -> Served {
        self.request.set_part(self.parts.len());
        self.request.set_ticket(self.pending.ticket(head));
        let outcome = server.process(memory, &mut self.request);
        if self.request.ticket().is_none() {
            if let Some(room) = self.pending.add() {
                self.request = room;
            }
            return Served::Ended(Outcome::Pending);
        }
        if let Some(len) = self.request.take_continued() {
            return Served::Continued(len);
        }
        if outcome == Outcome::Pending {
            tracing::error!(
                head,
                "the device says that a request is pending but has not kept it"
            );
            return Served::Ended(Outcome::Done(0));
        }
        Served::Ended(outcome)
    }

    /// Polls for a moment whether the driver adds more, and gives finished requests back
    /// meanwhile. Returns whether there is more.
    fn poll(
        &mut self,
        ring: &mut Ring<'_>,
        turn: &mut Turn,
        server: &mut impl Serve,
    ) -> io::Result<bool> {
        let mut now = Instant::now();
        let mut may_look = self.polling.begin(now);
        while may_look {
            if ring.has_more()? {
                self.polling.found(now);
                return Ok(true);
            }
            if self.pending.count() > 0 && self.collect(ring, turn, server)? {
                turn.notify(ring)?;
                self.polling.found(now);
            }
            std::hint::spin_loop();
            now = Instant::now();
            may_look = self.polling.is_open(now) && !turn.is_over(now);
        }
        Ok(false)
    }

    /// Gives back the chains that were finished at once.
    fn give_back(&mut self, ring: &mut Ring<'_>) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let given_back = ring.complete(&self.batch);
        self.batch.clear();
        given_back
    }

    /// Gives back the requests that the device has kept and finished, if there are any.
    fn collect(
        &mut self,
        ring: &mut Ring<'_>,
        turn: &mut Turn,
        server: &mut impl Serve,
    ) -> io::Result<bool> {
        let batch = self
            .pending
            .collect(ring.has_record(), |finished| server.poll(finished));
        if batch.is_empty() {
            return Ok(false);
        }
        ring.complete(batch)?;
        turn.completed();
        Ok(true)
    }

    fn put_back_parts(&mut self, ring: &mut Ring<'_>) -> io::Result<()> {
        while let Some((head, _)) = self.parts.pop() {
            ring.put_back(head)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "pump_test.rs"]
mod tests;
