//! The network device for the kit: queue pairs, a control queue, and the state between them.
//!
//! The link is watched edge-triggered: it is read until it is empty or the driver has no buffer
//! left, and a driver that then adds buffers kicks. So a guest that takes no packets costs
//! nothing, and packets queue up in the link, which bounds them.

use std::convert::Infallible;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_OK,
};

use super::MAX_QUEUE_SIZE;
use super::config::{Current, MacAddress, NetConfig};
use super::control::{self, Command, MAX_COMMAND, Mode};
use super::filter::Filter;
use super::link::Link;
use super::packet::{self, Given, HEADER_SIZE, Inbox, LEGACY_HEADER_SIZE, PacketError};
use super::pcap::Capture;
use super::wishes::Wishes;
use crate::page_log::GuestRam;
use crate::ratelimit::RateLimit;
use crate::request::{Finished, Outcome, Request};
use crate::virtio::VirtioDevice;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// The role of a queue; the negotiation decides which one is the control queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Receive(u16),
    Transmit(u16),
    Control,
}

/// An interface.
pub struct NetDevice<L> {
    link: L,
    config: NetConfig,
    capture: Option<Capture>,
    features: AtomicU64,
    wishes: RwLock<Wishes>,
    inboxes: Vec<Mutex<Inbox>>,
    /// The state of the link that the driver was last told.
    up: AtomicBool,
    /// The driver is to make itself known: this process has taken the place of another, perhaps
    /// elsewhere in the network (virtio 1.4, section 5.1.6.5.4).
    is_to_announce: AtomicBool,
    poll_time: Duration,
}

impl<L: Link> NetDevice<L> {
    /// An interface at `link`, whose packets go to `capture` too.
    pub fn new(link: L, config: NetConfig, capture: Option<Capture>) -> std::io::Result<Self> {
        link.configure(HEADER_SIZE, 0)?;
        Ok(NetDevice {
            inboxes: (0..link.pairs()).map(|_| Mutex::default()).collect(),
            up: AtomicBool::new(link.is_up()),
            is_to_announce: AtomicBool::new(false),
            poll_time: Duration::ZERO,
            link,
            wishes: RwLock::new(Wishes::new(config.mac.0)),
            config,
            capture,
            features: AtomicU64::new(0),
        })
    }

    /// Has the threads that send poll for more packets for so long before they sleep.
    pub fn polling(self, poll_time: Duration) -> Self {
        NetDevice { poll_time, ..self }
    }

    fn has(&self, feature: u32) -> bool {
        self.features.load(Ordering::Relaxed) & (1 << feature) != 0
    }

    fn header_size(&self) -> usize {
        if self.has(VIRTIO_F_VERSION_1) {
            HEADER_SIZE
        } else if self.has(VIRTIO_NET_F_MRG_RXBUF) {
            // Section 5.1.6.1: the field exists for merged buffers even before virtio 1.0.
            HEADER_SIZE
        } else {
            LEGACY_HEADER_SIZE
        }
    }

    /// virtio 1.3, section 5.1.2: the control queue comes behind the pairs there are, of which
    /// there is one where MQ is not negotiated.
    fn role(&self, queue: u16) -> Role {
        let pairs = if self.has(VIRTIO_NET_F_MQ) {
            self.link.pairs()
        } else {
            1
        };
        match queue {
            queue if queue >= 2 * pairs => Role::Control,
            queue if queue.is_multiple_of(2) => Role::Receive(queue / 2),
            queue => Role::Transmit(queue / 2),
        }
    }

    fn inbox(&self, pair: u16) -> MutexGuard<'_, Inbox> {
        let inbox = self.inboxes[usize::from(pair)].lock();
        inbox.unwrap_or_else(|e| e.into_inner())
    }

    fn receive(&self, pair: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let header = self.header_size();
        let mut inbox = self.inbox(pair);
        if inbox.is_empty() {
            match inbox.receive(&self.link, pair, header) {
                Ok(true) => (),
                Ok(false) => return Outcome::Wait,
                Err(error) => {
                    warn_limited!(LOG, %error, "the link cannot be read");
                    return Outcome::Wait;
                }
            }
            if !self.wants(inbox.frame(header)) {
                inbox.drop_packet();
                return Outcome::Untouched;
            }
            if let Some(capture) = &self.capture {
                let frame = inbox.frame(header);
                let copy = |bytes: &mut [u8]| {
                    bytes.copy_from_slice(frame);
                    Ok::<_, Infallible>(())
                };
                let Ok(()) = capture.add(frame.len(), copy);
            }
        }
        let mergeable = self.has(VIRTIO_NET_F_MRG_RXBUF);
        let buffer = &request.chain.writable;
        match inbox.give(memory, buffer, request.part(), header, mergeable) {
            Ok(Given::Last(len)) => Outcome::Done(len),
            Ok(Given::Part(len)) => request.continue_in_next(len),
            Ok(Given::TooLong) => {
                warn_limited!(
                    LOG,
                    room = buffer.len(),
                    "dropped a packet that is longer than the guest's buffer; \
                     the host's MTU must not exceed the guest's"
                );
                Outcome::Untouched
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a receive buffer of the driver");
                Outcome::Done(0)
            }
        }
    }

    fn wants(&self, frame: &[u8]) -> bool {
        frame.len() >= packet::MIN_FRAME && self.wishes().filter.accepts(frame)
    }

    fn wishes(&self) -> RwLockReadGuard<'_, Wishes> {
        self.wishes.read().unwrap_or_else(|e| e.into_inner())
    }

    fn wishes_mut(&self) -> RwLockWriteGuard<'_, Wishes> {
        self.wishes.write().unwrap_or_else(|e| e.into_inner())
    }

    fn transmit(&self, pair: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let Request { chain, room, .. } = request;
        let header = self.header_size();
        let capture = self.capture.as_ref();
        let sent = packet::transmit(&self.link, pair, memory, chain, header, room, capture);
        match sent {
            // The driver has been told that the link is down, or will be.
            Err(PacketError::Link(_)) if !self.link.is_up() => (),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a packet of the guest");
            }
            Ok(()) => (),
        }
        Outcome::Done(0)
    }

    fn control(&self, memory: &GuestRam, request: &mut Request) -> Outcome {
        let chain = &request.chain;
        let mut bytes = vec![0; chain.readable.len().min(MAX_COMMAND) as usize];
        let read = chain.readable.read(memory, 0, &mut bytes);
        let command = read.ok().and_then(|()| control::decode(&bytes));
        let done = command.as_ref().is_some_and(|command| self.obey(command));
        // Then the driver reads its own address there (virtio 1.4, section 5.1.6.5.2), or that
        // it has announced itself.
        let changes = matches!(command, Some(Command::Address(_) | Command::Announces));
        request.has_new_config = done && changes;
        tracing::debug!(?command, done, "control queue");
        let ack = [if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR } as u8];
        match chain.writable.write(memory, 0, &ack) {
            Ok(()) => Outcome::Done(1),
            Err(_) => Outcome::Done(0),
        }
    }

    /// Whether the command could be followed.
    fn obey(&self, command: &Command<'_>) -> bool {
        let mut wishes = self.wishes_mut();
        let filter = &mut wishes.filter;
        match *command {
            Command::Mode(mode, on) => *switch(filter, mode) = on,
            Command::Tables(unicast, multicast) => filter.set_tables(unicast, multicast),
            Command::Address(address) => filter.mac = address,
            Command::Announces => self.is_to_announce.store(false, Ordering::Relaxed),
            Command::Pairs(pairs) => {
                let possible = self.has(VIRTIO_NET_F_MQ)
                    && self.can_use(pairs)
                    && done(self.link.set_pairs(pairs));
                if possible {
                    wishes.pairs = pairs;
                }
                return possible;
            }
            Command::Offloads(features) => {
                let possible = self.can_do_without(features)
                    && done(self.link.configure(self.header_size(), features));
                if possible {
                    wishes.offloads = Some(features);
                }
                return possible;
            }
        }
        true
    }

    /// A frontend that keeps the control queue to itself, as QEMU does, enables the rings of
    /// the pairs that its driver uses.
    fn pairs_follow_rings(&self) -> bool {
        self.has(VIRTIO_NET_F_MQ) && !self.has(VIRTIO_NET_F_CTRL_VQ)
    }

    fn follow(&self, pairs: u16) {
        if done(self.link.set_pairs(pairs)) {
            self.wishes_mut().pairs = pairs;
        }
    }

    /// Whether so many queue pairs can be in use.
    fn can_use(&self, pairs: u16) -> bool {
        pairs == 1 || self.has(VIRTIO_NET_F_MQ) && (1..=self.link.pairs()).contains(&pairs)
    }

    /// Whether these offloads are among the features.
    fn can_do_without(&self, offloads: u64) -> bool {
        offloads & !self.features.load(Ordering::Relaxed) == 0
    }
}

fn done(result: std::io::Result<()>) -> bool {
    if let Err(error) = &result {
        warn_limited!(LOG, %error, "the link does not do what the driver asks for");
    }
    result.is_ok()
}

fn switch(filter: &mut Filter, mode: Mode) -> &mut bool {
    match mode {
        Mode::Promiscuous => &mut filter.promiscuous,
        Mode::AllMulticast => &mut filter.all_multicast,
        Mode::AllUnicast => &mut filter.all_unicast,
        Mode::NoMulticast => &mut filter.no_multicast,
        Mode::NoUnicast => &mut filter.no_unicast,
        Mode::NoBroadcast => &mut filter.no_broadcast,
    }
}

impl<L: Link> VirtioDevice for NetDevice<L> {
    fn queues(&self) -> u16 {
        2 * self.link.pairs() + 1
    }

    fn max_queue_size(&self) -> u16 {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        self.config.features(self.link.pairs()) | self.link.offloads()
    }

    fn negotiated(&self, features: u64) {
        self.features.store(features, Ordering::Relaxed);
        let mut wishes = self.wishes_mut();
        (wishes.pairs, wishes.offloads) = (1, None);
        let size = self.header_size();
        let configured = self.link.configure(size, features);
        if let Err(error) = configured.and_then(|()| self.link.set_pairs(1)) {
            tracing::error!(%error, size, "the link cannot be set to what was negotiated");
        }
    }

    fn reset(&self) {
        *self.wishes_mut() = Wishes::new(self.config.mac.0);
        self.is_to_announce.store(false, Ordering::Relaxed);
        done(self.link.set_pairs(1));
    }

    fn stopped(&self, queue: u16) {
        if let Role::Receive(pair) = self.role(queue)
            && self.pairs_follow_rings()
            && pair < self.wishes().pairs
        {
            self.follow(pair.max(1));
        }
    }

    /// Packets sent on a pair that is not used any more are lost (vhost-user document,
    /// "Ring states"). A queue with an odd number transmits, whatever was negotiated.
    fn discards_disabled(&self, queue: u16) -> bool {
        !queue.is_multiple_of(2)
    }

    fn config(&self) -> Vec<u8> {
        let current = Current {
            mac: MacAddress(self.wishes().filter.mac),
            is_up: self.link.is_up(),
            speed: self.link.speed(),
            is_to_announce: self.is_to_announce.load(Ordering::Relaxed),
        };
        self.config.space(&current, self.link.pairs()).to_vec()
    }

    /// Packets may come twice, and a command that is repeated sets the same state.
    fn resumable(&self) -> bool {
        true
    }

    fn state(&self) -> Option<Vec<u8>> {
        Some(self.wishes().to_bytes())
    }

    /// The driver does not repeat the commands that have been done.
    fn restore(&self, state: &[u8]) -> io::Result<()> {
        let wishes = Wishes::from_bytes(state)?;
        let offloads = wishes.offloads.unwrap_or_default();
        if !self.can_use(wishes.pairs) || !self.can_do_without(offloads) {
            return Err(io::Error::other("it is of a device with other features"));
        }
        if let Some(offloads) = wishes.offloads {
            self.link.configure(self.header_size(), offloads)?;
        }
        self.link.set_pairs(wishes.pairs)?;
        *self.wishes_mut() = wishes;
        let announces = self.has(VIRTIO_NET_F_GUEST_ANNOUNCE);
        self.is_to_announce.store(announces, Ordering::Relaxed);
        Ok(())
    }

    fn poll_time(&self) -> Duration {
        self.poll_time
    }

    fn events(&self, queue: u16) -> Vec<RawFd> {
        let receives = queue.is_multiple_of(2) && queue < 2 * self.link.pairs();
        let ready = receives.then(|| self.link.ready_fd(queue / 2));
        ready.into_iter().collect()
    }

    fn config_event(&self) -> Option<RawFd> {
        self.link.change_fd()
    }

    fn config_changed(&self) -> bool {
        self.link.changed();
        let up = self.link.is_up();
        let changed = self.up.swap(up, Ordering::Relaxed) != up;
        if changed {
            tracing::info!(up, "the link has changed");
        }
        changed
    }

    /// Sends the packets that `process` has only collected.
    fn poll(&self, queue: u16, _finished: &mut Finished) {
        if let Role::Transmit(_) = self.role(queue) {
            self.link.flush();
        }
    }

    fn process(&self, queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        match self.role(queue) {
            Role::Receive(pair) => {
                if self.pairs_follow_rings() && pair >= self.wishes().pairs {
                    self.follow(pair + 1);
                }
                self.receive(pair, memory, request)
            }
            Role::Transmit(pair) => self.transmit(pair, memory, request),
            Role::Control => {
                request.has_new_state = true;
                self.control(memory, request)
            }
        }
    }
}
