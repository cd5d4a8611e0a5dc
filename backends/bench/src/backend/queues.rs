//! The queues of one connection, and their requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use vhost_user_wire::features::VHOST_F_LOG_ALL;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::GuestMemoryMmap;

use super::device::Device;
use super::history::History;
use super::memory::Memory;
use super::page_log::PageLog;
use super::ring::{Chain, Layout, Ring, RingError, RingFault, lengths};
use super::state::{RingState, State};
use super::trouble::Trouble;
use crate::driver::MessageLog;

/// How long a kick may take to come, on a machine that is busy with other things.
const KICK: Duration = Duration::from_secs(1);
/// Chains of one look at a ring: others want to be served too.
const BATCH: usize = 256;

/// The descriptors of a ring, and the ring while it is processed.
#[derive(Debug, Default)]
struct Queue {
    kick: Option<File>,
    call: Option<File>,
    ring: Option<Ring>,
    /// It is beyond use.
    is_broken: bool,
    /// Since when buffers have been there without a kick.
    pending: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Queues(BTreeMap<u32, Queue>);

/// What queues are processed with.
pub struct Context<'a> {
    pub state: &'a State,
    pub memory: &'a Memory,
    pub page_log: Option<&'a PageLog>,
    pub device: &'a mut Device,
    pub fault: Option<RingFault>,
    pub history: &'a mut History,
    pub log: &'a MessageLog,
}

impl Queues {
    pub fn set_kick(&mut self, index: u32, kick: Option<File>) {
        self.0.entry(index).or_default().kick = kick;
    }

    pub fn set_call(&mut self, index: u32, call: Option<File>) {
        self.0.entry(index).or_default().call = call;
    }

    /// Stops a queue; returns where it stopped.
    pub fn stop(&mut self, index: u32) -> Option<u32> {
        let queue = self.0.get_mut(&index)?;
        (queue.kick, queue.is_broken, queue.pending) = (None, false, None);
        queue.ring.take().map(|ring| ring.base())
    }

    pub fn stop_all(&mut self) {
        let indices: Vec<u32> = self.0.keys().copied().collect();
        for index in indices {
            self.stop(index);
        }
    }

    /// Rings are at other places now, or in other memory.
    pub fn look_again(&mut self, index: u32) {
        if let Some(queue) = self.0.get_mut(&index) {
            queue.ring = None;
        }
    }

    /// The kicks to wait on, each with its queue.
    pub fn kicks(&self) -> impl Iterator<Item = (u32, &File)> {
        self.0
            .iter()
            .filter_map(|(index, queue)| Some((*index, queue.kick.as_ref()?)))
    }

    /// Takes a kick, and processes the queue. Whether there was one.
    pub fn take_kick(&mut self, index: u32, context: &mut Context) -> bool {
        let Some(queue) = self.0.get_mut(&index) else {
            return false;
        };
        let Some(kick) = &queue.kick else {
            return false;
        };
        let read = rustix::io::read(kick, &mut [0; 8]);
        if !read.is_ok_and(|count| count > 0) {
            queue.kick = None;
            return false;
        }
        context.history.kicked(index);
        queue.process(index, context);
        true
    }

    /// Begins with queues that are ready now.
    pub fn begin(&mut self, context: &mut Context) {
        for (index, queue) in &mut self.0 {
            if queue.ring.is_none() && !queue.is_broken {
                queue.process(*index, context);
            }
        }
    }

    /// Looks for buffers of which no kick told.
    pub fn look_for_lost_kicks(&mut self, context: &mut Context) {
        for (index, queue) in &mut self.0 {
            queue.look_for_lost_kick(*index, context);
        }
    }
}

impl Queue {
    fn process(&mut self, index: u32, context: &mut Context) {
        self.pending = None;
        if self.is_broken {
            return;
        }
        if let Err((trouble, text)) = self.try_process(index, context) {
            context
                .log
                .event(format!("queue {index}: {trouble:?}: {text}"));
            context
                .history
                .trouble(trouble, format!("queue {index}: {text}"));
            self.is_broken = true;
        }
    }

    fn try_process(&mut self, index: u32, context: &mut Context) -> Result<(), RingError> {
        let map = context.memory.map();
        if self.ring.is_none() {
            self.ring = ready_ring(index, context)?;
        }
        let Some(ring) = &mut self.ring else {
            return Ok(());
        };
        for _ in 0..BATCH {
            let Some(chain) = ring.pop(map)? else {
                break;
            };
            if let Some(len) = context.device.complete(index, map, &chain)? {
                let notify = ring.push(map, &chain, len, context.fault)?;
                mark(index, &chain, context);
                context.history.complete();
                if context.fault.is_some() {
                    context.history.act();
                }
                if notify {
                    signal(self.call.as_ref());
                }
            }
            ring.ask_for_kicks(map)?;
        }
        Ok(())
    }

    fn look_for_lost_kick(&mut self, index: u32, context: &mut Context) {
        let Some(ring) = &self.ring else {
            return;
        };
        if self.is_broken || self.kick.is_none() {
            return;
        }
        let is_pending = ring.has_available(context.memory.map()).unwrap_or(true);
        let since = self.pending.get_or_insert_with(Instant::now);
        if !is_pending {
            self.pending = None;
        } else if since.elapsed() > KICK {
            let text = format!("queue {index}: buffers were available for {KICK:?} without a kick");
            context.log.event(text.clone());
            context.history.trouble(Trouble::LostKick, text);
            self.process(index, context);
        }
    }
}

/// Logs what a chain has had written, if that is asked for ("Migration").
fn mark(index: u32, chain: &Chain, context: &Context) {
    let Some(page_log) = context
        .page_log
        .filter(|_| context.state.has(VHOST_F_LOG_ALL))
    else {
        return;
    };
    for (addr, len) in &chain.writable {
        page_log.mark(addr.0, u64::from(*len));
    }
    let ring = context.state.rings.get(&index);
    if let Some((log, len)) = ring.and_then(|ring| ring.logged(context.state)) {
        page_log.mark(log, len);
    }
}

/// The ring, if all that it needs has come.
fn ready_ring(index: u32, context: &Context) -> Result<Option<Ring>, RingError> {
    let Some(state) = context
        .state
        .rings
        .get(&index)
        .filter(|ring| runs(context.state, ring))
    else {
        return Ok(None);
    };
    let (Some(size), Some(places)) = (
        state.size.and_then(|size| size.try_into().ok()),
        state.places,
    ) else {
        return Ok(None);
    };
    let guest = |place, len| {
        let found = context.memory.guest(place, len);
        found.map_err(|text| (Trouble::Unreachable, text))
    };
    if size == 0 {
        return Ok(None);
    }
    let is_packed = context.state.is_packed();
    let [first, second, third] = lengths(size, is_packed);
    let layout = Layout {
        size,
        places: [
            guest(places[0], first)?,
            guest(places[1], second)?,
            guest(places[2], third)?,
        ],
        is_packed,
        event_idx: context.state.has(VIRTIO_RING_F_EVENT_IDX),
        indirect: context.state.has(VIRTIO_RING_F_INDIRECT_DESC),
    };
    let map: &GuestMemoryMmap = context.memory.map();
    Ring::new(map, layout, state.base.unwrap_or(0)).map(Some)
}

/// Started and enabled ("Ring states").
fn runs(state: &State, ring: &RingState) -> bool {
    ring.is_started && (ring.is_enabled || !state.has_protocol_features())
}

fn signal(call: Option<&File>) {
    if let Some(call) = call {
        _ = rustix::io::write(call, &1u64.to_ne_bytes());
    }
}
