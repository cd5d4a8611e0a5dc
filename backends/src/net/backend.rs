//! The network device as a [`VhostUserBackend`]: one thread for each direction.
//!
//! The link is watched edge-triggered: it is read until it is empty or the driver has no buffer
//! left, and a driver that then adds buffers kicks. So a guest that takes no packets costs
//! nothing, and packets queue up in the link, which bounds them.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringRwLock};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::EventSet;

use super::MAX_QUEUE_SIZE;
use super::config::NetConfig;
use super::link::Link;
use super::packet::{self, HEADER_SIZE, LEGACY_HEADER_SIZE, PacketError, Received};
use crate::device::SharedMemory;
use crate::listeners::Listeners;
use crate::pump::{Outcome, Pump, Scratch};
use crate::ratelimit::RateLimit;
use crate::warn_limited;

/// Worker and queue number of packets to the guest.
const RX: usize = 0;
/// Worker and queue number of packets from the guest.
const TX: usize = 1;

static LOG: RateLimit = RateLimit::for_logs();

/// An interface with one pair of queues.
pub struct NetBackend<L> {
    link: L,
    config: NetConfig,
    header_size: AtomicUsize,
    pumps: [Mutex<Pump>; 2],
}

impl<L: Link> NetBackend<L> {
    /// An interface at `link`.
    pub fn new(link: L, config: NetConfig) -> io::Result<Self> {
        link.set_header_size(HEADER_SIZE)?;
        Ok(NetBackend {
            link,
            config,
            header_size: AtomicUsize::new(HEADER_SIZE),
            pumps: [Mutex::new(Pump::new()?), Mutex::new(Pump::new()?)],
        })
    }

    /// Lets the workers (`listeners[0]` receives, `listeners[1]` transmits) hear of the link and
    /// come back to their rings by themselves. To be called once, before serving.
    pub fn attach(&self, listeners: [&Listeners; 2]) -> io::Result<()> {
        for (id, listeners) in listeners.into_iter().enumerate() {
            self.pump(id)?.attach(listeners, listeners.first_event())?;
        }
        listeners[RX].register(
            self.link.as_fd().as_raw_fd(),
            EventSet::IN | EventSet::EDGE_TRIGGERED,
            listeners[RX].first_event() + 1,
        )
    }

    fn pump(&self, id: usize) -> io::Result<MutexGuard<'_, Pump>> {
        let pump = self
            .pumps
            .get(id)
            .ok_or_else(|| io::Error::other(format!("no worker {id}")))?;
        // Scratch space is refilled before use: a panic elsewhere leaves nothing to fear.
        Ok(pump.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn receive(&self, memory: &GuestMemoryMmap, header: usize, scratch: &mut Scratch) -> Outcome {
        let Scratch { chain, room } = scratch;
        match packet::receive(&self.link, memory, chain, header, room) {
            Ok(Received::Packet(len)) => Outcome::Done(len),
            Ok(Received::Nothing) => Outcome::Wait,
            Ok(Received::TooLong) => {
                warn_limited!(
                    LOG,
                    room = chain.writable.len(),
                    "dropped a packet that is longer than the guest's buffer; \
                     the host's MTU must not exceed the guest's"
                );
                Outcome::Untouched
            }
            Err(PacketError::Link(error)) => {
                warn_limited!(LOG, %error, "the link cannot be read");
                Outcome::Wait
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a receive buffer of the driver");
                Outcome::Done(0)
            }
        }
    }

    fn transmit(&self, memory: &GuestMemoryMmap, header: usize, scratch: &mut Scratch) -> Outcome {
        let Scratch { chain, room } = scratch;
        if let Err(error) = packet::transmit(&self.link, memory, chain, header, room) {
            let error: &dyn std::error::Error = &error;
            warn_limited!(LOG, error, "dropped a packet of the guest");
        }
        Outcome::Done(0)
    }
}

impl<L: Link> VhostUserBackend for NetBackend<L> {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        usize::from(MAX_QUEUE_SIZE)
    }

    fn features(&self) -> u64 {
        self.config.features()
    }

    fn acked_features(&self, features: u64) {
        let size = if features & (1 << VIRTIO_F_VERSION_1) != 0 {
            HEADER_SIZE
        } else {
            LEGACY_HEADER_SIZE
        };
        match self.link.set_header_size(size) {
            Ok(()) => self.header_size.store(size, Ordering::Relaxed),
            Err(error) => tracing::error!(%error, size, "the link's header size cannot be set"),
        }
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The vrings know.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let space = self.config.space();
        let start = (offset as usize).min(space.len());
        let end = (offset as usize).saturating_add(size as usize);
        space[start..end.min(space.len())].to_vec()
    }

    fn set_config(&self, _offset: u32, _buf: &[u8]) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "no field of this interface's configuration space is writable",
        ))
    }

    fn update_memory(&self, memory: SharedMemory<()>) -> io::Result<()> {
        for id in [RX, TX] {
            self.pump(id)?.set_memory(memory.clone());
        }
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![1 << RX, 1 << TX]
    }

    /// Each worker has one ring: whatever the event, that is what there is to look at.
    fn handle_event(
        &self,
        _event: u16,
        _set: EventSet,
        vrings: &[VringRwLock],
        thread_id: usize,
    ) -> io::Result<()> {
        let Some(vring) = vrings.first() else {
            return Ok(());
        };
        let header = self.header_size.load(Ordering::Relaxed);
        self.pump(thread_id)?.run(vring, |memory, scratch| {
            if thread_id == RX {
                self.receive(memory, header, scratch)
            } else {
                self.transmit(memory, header, scratch)
            }
        })
    }
}
