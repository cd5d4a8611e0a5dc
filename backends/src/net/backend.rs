//! The network device as a [`VirtioDevice`]: one thread for each direction.
//!
//! The link is watched edge-triggered: it is read until it is empty or the driver has no buffer
//! left, and a driver that then adds buffers kicks. So a guest that takes no packets costs
//! nothing, and packets queue up in the link, which bounds them.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::GuestMemoryMmap;

use super::MAX_QUEUE_SIZE;
use super::config::NetConfig;
use super::link::Link;
use super::packet::{self, HEADER_SIZE, LEGACY_HEADER_SIZE, PacketError, Received};
use crate::pump::{Outcome, Scratch};
use crate::ratelimit::RateLimit;
use crate::virtio::VirtioDevice;
use crate::warn_limited;

/// Queue of packets to the guest.
const RX: u16 = 0;

static LOG: RateLimit = RateLimit::for_logs();

/// An interface with one pair of queues.
pub struct NetDevice<L> {
    link: L,
    config: NetConfig,
    header_size: AtomicUsize,
}

impl<L: Link> NetDevice<L> {
    /// An interface at `link`.
    pub fn new(link: L, config: NetConfig) -> io::Result<Self> {
        link.set_header_size(HEADER_SIZE)?;
        Ok(NetDevice {
            link,
            config,
            header_size: AtomicUsize::new(HEADER_SIZE),
        })
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

impl<L: Link + 'static> VirtioDevice for NetDevice<L> {
    fn queues(&self) -> u16 {
        2
    }

    fn max_queue_size(&self) -> u16 {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        self.config.features()
    }

    fn negotiated(&self, features: u64) {
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

    fn config(&self) -> Vec<u8> {
        self.config.space().to_vec()
    }

    fn event(&self, queue: u16) -> Option<RawFd> {
        (queue == RX).then(|| self.link.as_fd().as_raw_fd())
    }

    fn process(&self, queue: u16, memory: &GuestMemoryMmap, scratch: &mut Scratch) -> Outcome {
        let header = self.header_size.load(Ordering::Relaxed);
        if queue == RX {
            self.receive(memory, header, scratch)
        } else {
            self.transmit(memory, header, scratch)
        }
    }
}
