//! One virtqueue with its event descriptors.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::chain::Chain;
use super::error::DriverError;
use super::event::Event;
use super::log::MessageLog;
use super::memory::Memory;
use super::packed::PackedRing;
use super::patience::{Awaited, Patience};
use super::ring::{Descriptor, Format, Places, Ring, Used};
use super::split::SplitRing;
use super::wait::DEADLINE;

/// How often the ring is looked at while there is no notification.
const LOOK: Duration = Duration::from_millis(1);

#[derive(Debug)]
enum Either {
    Split(SplitRing),
    Packed(PackedRing),
}

/// A virtqueue, and the descriptors over which both sides notify each other.
#[derive(Debug)]
pub struct Queue {
    index: usize,
    memory: Rc<Memory>,
    ring: Either,
    kick: Event,
    call: Event,
    err: Event,
    log: MessageLog,
    patience: Patience,
}

/// What the two sides of a queue have negotiated.
#[derive(Clone, Copy, Debug)]
pub struct QueueFeatures {
    pub format: Format,
    pub event_idx: bool,
    pub in_order: bool,
}

impl Queue {
    /// # Errors
    /// The memory is full, or the host has no descriptors.
    pub fn new(
        memory: &Rc<Memory>,
        index: usize,
        size: u16,
        features: QueueFeatures,
    ) -> Result<Self, DriverError> {
        let name = format!("queue {index}");
        let QueueFeatures {
            format,
            event_idx,
            in_order,
        } = features;
        let ring = match format {
            Format::Split => {
                Either::Split(SplitRing::new(memory, &name, size, event_idx, in_order)?)
            }
            Format::Packed => Either::Packed(PackedRing::new(memory, &name, size, in_order)?),
        };
        Ok(Self {
            index,
            memory: Rc::clone(memory),
            ring,
            kick: Event::new()?,
            call: Event::new()?,
            err: Event::new()?,
            log: MessageLog::default(),
            patience: Patience::default(),
        })
    }

    /// Writes to `log` what is made available and what is used.
    pub fn with_log(mut self, log: MessageLog) -> Self {
        self.log = log;
        self
    }

    /// Shares its patience with others.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    pub fn index(&self) -> usize {
        self.index
    }

    fn ring(&self) -> &dyn Ring {
        match &self.ring {
            Either::Split(ring) => ring,
            Either::Packed(ring) => ring,
        }
    }

    fn ring_mut(&mut self) -> &mut dyn Ring {
        match &mut self.ring {
            Either::Split(ring) => ring,
            Either::Packed(ring) => ring,
        }
    }

    pub fn size(&self) -> u16 {
        self.ring().size()
    }

    pub fn places(&self) -> Places {
        self.ring().places()
    }

    /// Descriptors that are free.
    pub fn free(&self) -> usize {
        self.ring().free()
    }

    /// What SET_VRING_BASE takes, and GET_VRING_BASE returns once everything is used.
    pub fn base(&self) -> u32 {
        self.ring().base()
    }

    /// Where a device resumes that does not know what another one took.
    pub fn used_base(&self) -> u32 {
        self.ring().used_base()
    }

    /// Begins at another place, before anything is made available.
    pub fn rebase(&mut self, base: u32) -> Result<(), DriverError> {
        let memory = Rc::clone(&self.memory);
        self.ring_mut().rebase(&memory, base)
    }

    pub fn kick_event(&self) -> &Event {
        &self.kick
    }

    pub fn call_event(&self) -> &Event {
        &self.call
    }

    pub fn err_event(&self) -> &Event {
        &self.err
    }

    /// Each start of a ring gets descriptors of its own.
    pub fn renew_events(&mut self) -> Result<(), DriverError> {
        (self.kick, self.call, self.err) = (Event::new()?, Event::new()?, Event::new()?);
        Ok(())
    }

    fn trouble(&self, what: String) -> DriverError {
        let queue = self.index;
        DriverError::Ring { queue, what }
    }

    /// Writes a chain without making it available.
    pub fn stage(&mut self, chain: &Chain) -> Result<u16, DriverError> {
        let memory = Rc::clone(&self.memory);
        let staged = self.ring_mut().stage(&memory, chain);
        let id = staged.map_err(|what| self.trouble(what))?;
        let index = self.index;
        self.log
            .event(format!("queue {index}: buffer {id} is available: {chain}"));
        Ok(id)
    }

    /// Makes available what is staged.
    pub fn publish(&mut self) -> Result<(), DriverError> {
        let memory = Rc::clone(&self.memory);
        self.ring_mut().publish(&memory)
    }

    /// Makes a chain available, without a kick. Returns the number under which it comes back.
    pub fn add(&mut self, chain: &Chain) -> Result<u16, DriverError> {
        let id = self.stage(chain)?;
        self.publish()?;
        Ok(id)
    }

    /// Makes a chain available and kicks.
    pub fn submit(&mut self, chain: &Chain) -> Result<u16, DriverError> {
        let id = self.add(chain)?;
        self.kick();
        Ok(id)
    }

    /// Makes a chain available and waits until a buffer comes back.
    pub fn run(&mut self, chain: &Chain) -> Result<Used, DriverError> {
        self.submit(chain)?;
        self.wait_used()
    }

    /// Notifies the device.
    pub fn kick(&self) {
        self.kick.signal();
    }

    /// Notifies the device if it wants to hear of what was published last.
    pub fn kick_if_wanted(&self) -> Result<(), DriverError> {
        if self.ring().wants_kick(&self.memory)? {
            self.kick();
        }
        Ok(())
    }

    /// The next buffer that has come back.
    pub fn poll_used(&mut self) -> Result<Option<Used>, DriverError> {
        let memory = Rc::clone(&self.memory);
        let used = self.ring_mut().poll(&memory);
        let used = used.map_err(|what| self.trouble(what))?;
        if let Some(Used { id, len }) = used {
            let len = len.map_or("unknown".to_owned(), |len| len.to_string());
            let index = self.index;
            self.log
                .event(format!("queue {index}: buffer {id} is used, length {len}"));
        }
        Ok(used)
    }

    /// Waits for the next buffer, whether a notification tells of it or not.
    pub fn wait_used(&mut self) -> Result<Used, DriverError> {
        let awaited = Awaited::Buffer(self.index);
        let limit = self.patience.limit(awaited, DEADLINE);
        let used = self.wait_used_within(limit);
        if let Err(DriverError::NotUsed { .. }) = used {
            self.patience.ran_out(awaited);
        }
        used
    }

    pub fn wait_used_within(&mut self, time: Duration) -> Result<Used, DriverError> {
        let end = Instant::now() + time;
        loop {
            if let Some(used) = self.poll_used()? {
                return Ok(used);
            }
            if Instant::now() >= end {
                return Err(DriverError::NotUsed {
                    queue: self.index,
                    waited: time,
                });
            }
            // A notification that is pending stays so, for whoever looks for it.
            if self.is_notified()? {
                std::thread::yield_now();
            } else {
                self.is_notified_within(LOOK)?;
            }
        }
    }

    /// Waits for a used buffer notification, and takes it.
    pub fn wait_notified(&mut self) -> Result<(), DriverError> {
        let awaited = Awaited::Notification(self.index);
        let limit = self.patience.limit(awaited, DEADLINE);
        if !self.is_notified_within(limit)? {
            self.patience.ran_out(awaited);
            return Err(DriverError::NotNotified {
                queue: self.index,
                waited: limit,
            });
        }
        self.forget_notifications();
        Ok(())
    }

    /// Whether a used buffer notification is pending.
    pub fn is_notified(&self) -> Result<bool, DriverError> {
        self.is_notified_within(Duration::ZERO)
    }

    /// Whether one is pending, or comes within `time`.
    pub fn is_notified_within(&self, time: Duration) -> Result<bool, DriverError> {
        self.call.is_set_within(time)
    }

    /// Takes pending notifications.
    pub fn forget_notifications(&self) {
        self.call.take();
    }

    /// Has the device notify of the next used buffer, or of none as far as possible.
    pub fn set_notify(&mut self, on: bool) -> Result<(), DriverError> {
        let memory = Rc::clone(&self.memory);
        self.ring_mut().set_notify(&memory, on)
    }

    /// Has the device notify once `count` more buffers are used (EVENT_IDX).
    pub fn notify_after(&mut self, count: u16) -> Result<(), DriverError> {
        let memory = Rc::clone(&self.memory);
        self.ring_mut().notify_after(&memory, count)
    }

    /// Writes any descriptor: into slot `index` of a split ring's table, or at the next place of
    /// a packed ring, whose availability bits are added.
    pub fn put_raw(&mut self, index: u16, mut descriptor: Descriptor) -> Result<(), DriverError> {
        let memory = Rc::clone(&self.memory);
        match &mut self.ring {
            Either::Split(ring) => descriptor.put(&memory, ring.places().descriptors, index),
            Either::Packed(ring) => {
                descriptor.last[1] |= ring.available_bits();
                ring.put(&memory, descriptor)
            }
        }
    }

    /// Puts any head into a split ring's available ring. A packed ring has none.
    pub fn stage_head(&mut self, head: u16) -> Result<(), DriverError> {
        let memory = Rc::clone(&self.memory);
        match &mut self.ring {
            Either::Split(ring) => ring.stage_head(&memory, head),
            Either::Packed(_) => Ok(()),
        }
    }
}
