//! One connection to a backend: the agreement on it, and the messages.

pub mod channel;
pub mod config;
pub mod device_state;
pub mod inflight;
pub mod memory;
pub mod negotiate;
pub mod page_log;
pub mod requests;
pub mod ring_errors;
pub mod shared_memory;

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostUserProtocolFeatures as Protocol, VhostUserVringAddr, VhostUserVringState,
};
use vhost_user_wire::features::VHOST_F_LOG_ALL;
use vhost_user_wire::frontend::*;
use vmm_sys_util::eventfd::EventFd;

use crate::deadline::Deadline;
use crate::vhost_user::Options;
use crate::vhost_user::error::Problem;
use crate::vhost_user::profile::Profile;
use crate::virtio::status::Status;
use channel::{Channel, ChannelError, Idle};
use inflight::Inflight;
use memory::MemoryTable;
use negotiate::Agreement;
use page_log::PageLog;
use requests::BackendRequests;
use ring_errors::RingErrors;
use shared_memory::SharedMemory;

/// A backend that features have been negotiated with.
pub struct Session {
    channel: Channel,
    agreement: Agreement,
    /// Bytes to read of the configuration space; 0 when there is none.
    config_size: u32,
    /// Sizes of the shared memory regions by number, in bytes; 0 where there is none.
    shared_memory: Vec<u64>,
    /// The memory regions that were added one by one, as they are removed again.
    added: Vec<RemoveMemoryRegion>,
    /// The driver's status as the backend has it.
    status: u32,
    /// Where the backend reports errors, if it can be told.
    ring_errors: Option<RingErrors>,
}

/// All that a backend has to know of one ring.
pub struct RingSetup {
    pub addresses: VhostUserVringAddr,
    /// In entries.
    pub size: u16,
    /// Where to begin: the available-ring entry to take first or, of a packed queue, both
    /// positions.
    pub base: u32,
    pub kick: EventFd,
    pub call: EventFd,
}

impl Session {
    /// Negotiates with a backend that has been asked for its features, and returns its
    /// configuration space too. Mappings that it requests are made in `given`.
    pub fn open(
        mut channel: Channel,
        options: &Options,
        profile: &Profile,
        given: Option<&Arc<SharedMemory>>,
        deadline: &Deadline,
    ) -> Result<(Self, Vec<u8>), Problem> {
        let agreement = negotiate::negotiate(&mut channel, options, profile, deadline)?;
        let offered = agreement.protocol.contains(Protocol::CONFIG);
        let sizes = if offered { profile.config_sizes } else { &[] };
        let (config_size, config) = match config::probe(&mut channel, sizes, deadline)? {
            Some(found) => found,
            None if profile.config_required => {
                return Err(Problem::NoConfig {
                    device_type: options.device_type,
                    offered,
                });
            }
            None => (0, Vec::new()),
        };
        let shared_memory = if agreement.protocol.contains(Protocol::SHMEM) {
            channel.ask(&GetShmemConfig, deadline)?.0
        } else {
            Vec::new()
        };
        // Before any ring runs, so that the backend can always send its own requests.
        if agreement.protocol.contains(Protocol::BACKEND_REQ) {
            let (mut ours, theirs) = BackendRequests::new().map_err(Problem::Events)?;
            ours.give_shared_memory(given.cloned());
            channel.serve_meanwhile(ours);
            let payload = ();
            let file = theirs.as_fd();
            channel.tell(&SetBackendReqFd { payload, file }, deadline)?;
        }
        // A backend that does not know the message can say so only in an acknowledgement.
        let ring_errors = match channel.acks() {
            true => Some(RingErrors::new(agreement.queues).map_err(Problem::Events)?),
            false => None,
        };
        let session = Self {
            channel,
            agreement,
            config_size,
            shared_memory,
            added: Vec::new(),
            status: 0,
            ring_errors,
        };
        Ok((session, config))
    }

    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// The backend's own requests, as long as they can be served.
    pub fn requests(&mut self) -> &mut Option<BackendRequests> {
        self.channel.requests()
    }

    /// Readable when the backend has reported an error, if it can.
    pub fn ring_errors(&self) -> Option<&RingErrors> {
        self.ring_errors.as_ref()
    }

    /// The queues that the backend has reported errors on since this was asked last.
    pub fn take_ring_errors(&self) -> Vec<u16> {
        let errors = self.ring_errors.as_ref();
        errors.map_or_else(Vec::new, RingErrors::take)
    }

    /// Serves the backend's own requests that have come.
    pub fn serve_meanwhile(&mut self) {
        if let Some(requests) = self.requests() {
            requests.serve_meanwhile();
        }
    }

    /// The shared memory regions that the backend wants: number and size in bytes.
    pub fn shared_memory(&self) -> impl Iterator<Item = (u8, u64)> {
        let sizes = (0..=u8::MAX).zip(self.shared_memory.iter().copied());
        sizes.filter(|(_, size)| *size != 0)
    }

    fn has(&self, protocol: Protocol) -> bool {
        self.agreement.protocol.contains(protocol)
    }

    /// Hands over the driver's features and the guest's memory.
    pub fn activate(
        &mut self,
        features: u64,
        memory: &MemoryTable,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        let features = self.agreement.features_to_set(features);
        self.status = 0;
        self.channel.tell(&SetFeatures(features), deadline)?;
        self.add_status(
            &[Status::ACKNOWLEDGE, Status::DRIVER, Status::FEATURES_OK],
            deadline,
        )?;
        self.share(memory, deadline)?;
        self.wait_until_done(deadline)
    }

    /// The driver is ready, and the rings that it set up for that are started: a backend
    /// may look at them only now (virtio 1.3, section 3.1.1, steps 7 and 8). Rings that
    /// are started later do not change the status.
    pub fn begin(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        self.add_status(&[Status::DRIVER_OK], deadline)
    }

    /// Hands over the guest's memory: region by region where the backend says how
    /// many it takes (the caller has looked), all at once otherwise.
    fn share(&mut self, memory: &MemoryTable, deadline: &Deadline) -> Result<(), ChannelError> {
        if self.agreement.memory_slots.is_none() {
            return self.channel.tell(&memory.message(), deadline);
        }
        self.unshare(deadline)?;
        for add in memory.regions() {
            self.channel.tell(&add, deadline)?;
            self.added.push(RemoveMemoryRegion(add.payload));
        }
        Ok(())
    }

    /// Removes the regions that were added one by one. A backend that has
    /// forgotten them already may say so.
    fn unshare(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        while let Some(remove) = self.added.pop() {
            match self.channel.tell(&remove, deadline) {
                Err(error) if !error.is_refusal() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The backend's own state, where it has some to save. All rings are stopped.
    pub fn save_state(&mut self, deadline: &Deadline) -> Result<Option<Vec<u8>>, Problem> {
        if !self.has(Protocol::DEVICE_STATE) {
            return Ok(None);
        }
        device_state::save(&mut self.channel, deadline).map(Some)
    }

    /// Gives the backend the state that another one has saved. No ring is running yet.
    pub fn load_state(&mut self, state: &[u8], deadline: &Deadline) -> Result<(), Problem> {
        if !self.has(Protocol::DEVICE_STATE) {
            return Err(Problem::StateLost);
        }
        device_state::load(&mut self.channel, state, deadline)
    }

    /// Adds to the driver's status, where the backend wants to know it, and makes sure
    /// that the device accepts it: it refuses features by leaving FEATURES_OK out
    /// (virtio 1.3, section 3.1.1).
    fn add_status(&mut self, bits: &[Status], deadline: &Deadline) -> Result<(), ChannelError> {
        let added = bits.iter().fold(0, |bits, bit| bits | bit.bits());
        if !self.has(Protocol::STATUS) || self.status & added == added {
            return Ok(());
        }
        self.status |= added;
        self.channel
            .tell(&SetStatus(self.status.into()), deadline)?;
        let found = self.channel.ask(&GetStatus, deadline)?;
        let missing = bits.iter().find(|bit| found & u64::from(bit.bits()) == 0);
        missing.map_or(Ok(()), |missing| {
            let missing = *missing;
            Err(ChannelError::Status { missing, found })
        })
    }

    /// Whether the device says that it needs a reset (virtio 1.3, section 2.1.2). Before
    /// the driver is ready the backend has no status to say so in.
    pub fn needs_reset(&mut self, deadline: &Deadline) -> Result<bool, ChannelError> {
        if self.status & Status::DRIVER_OK.bits() == 0 {
            return Ok(false);
        }
        let status = self.channel.ask(&GetStatus, deadline)?;
        Ok(status & u64::from(Status::NEEDS_RESET.bits()) != 0)
    }

    /// The driver has reset the device, and its rings are stopped: the backend
    /// forgets all else, as far as it can be told to.
    pub fn reset(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        self.unshare(deadline)?;
        if self.has(Protocol::RESET_DEVICE) {
            self.channel.tell(&ResetDevice, deadline)?;
        }
        if self.has(Protocol::STATUS) {
            self.status = 0;
            self.channel.tell(&SetStatus(0), deadline)?;
        }
        Ok(())
    }

    /// Whether the backend can track requests in flight.
    pub fn can_track(&self) -> bool {
        self.has(Protocol::INFLIGHT_SHMFD)
    }

    /// A new region to track requests in, of so many queues of this size. `None`
    /// when the backend cannot track any.
    pub fn new_region(
        &mut self,
        queues: u16,
        queue_size: u16,
        deadline: &Deadline,
    ) -> Result<Option<Inflight>, ChannelError> {
        if !self.can_track() {
            return Ok(None);
        }
        let request = GetInflightFd { queues, queue_size };
        let (reply, file) = self.channel.ask_for_file(&request, deadline)?;
        Ok(Inflight::new(&reply, file, queues, queue_size))
    }

    /// Has the backend track requests in `region`, and resume those that it
    /// finds there. No ring is running yet.
    pub fn set_region(
        &mut self,
        region: &Inflight,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.channel.tell(&region.message(), deadline)
    }

    /// Whether the backend can log the pages that it writes.
    pub fn can_log(&self) -> bool {
        self.agreement.can_log()
    }

    /// Has the backend log the pages that it writes, or no longer. `features` are the
    /// driver's. Each ring says with its addresses whether it is logged.
    pub fn log(
        &mut self,
        log: Option<&PageLog>,
        features: u64,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        let mut features = self.agreement.features_to_set(features);
        if let Some(log) = log {
            self.channel.ask(&log.message(), deadline)?;
            features |= 1 << VHOST_F_LOG_ALL;
        }
        self.channel.tell(&SetFeatures(features), deadline)?;
        self.wait_until_done(deadline)
    }

    /// Sends the addresses of a running ring again.
    pub fn move_ring(
        &mut self,
        addresses: VhostUserVringAddr,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.channel.tell(&SetVringAddr(addresses), deadline)
    }

    /// Starts a ring, in the order of QEMU.
    pub fn start_ring(
        &mut self,
        ring: &RingSetup,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        let index = ring.addresses.index;
        let state = |num| VhostUserVringState::new(index, num);
        let channel = &mut self.channel;
        channel.tell(&SetVringNum(state(ring.size.into())), deadline)?;
        channel.tell(&SetVringBase(state(ring.base)), deadline)?;
        channel.tell(&SetVringAddr(ring.addresses), deadline)?;
        // An index has eight bits: there are no more queues than that.
        let short = index as u8;
        channel.tell(&SetVringCall::new(short, &ring.call), deadline)?;
        let errors = self.ring_errors.as_ref();
        if let Some(sign) = errors.and_then(|errors| errors.sign(short.into())) {
            match channel.tell(&SetVringErr::new(short, sign), deadline) {
                // The backend has no errors to report; all else works without.
                Err(error) if error.is_refusal() => {
                    tracing::debug!(index, %error, "errors on the queue will not show");
                }
                told => told?,
            }
        }
        channel.tell(&SetVringKick::new(short, &ring.kick), deadline)?;
        if self.agreement.has_vring_enable() {
            channel.tell(&SetVringEnable(state(1)), deadline)?;
        }
        self.wait_until_done(deadline)
    }

    /// Makes sure that the backend talks.
    pub fn ping(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        self.channel.ask(&GetFeatures, deadline).map(drop)
    }

    /// Makes sure that the backend is there, and has said nothing unasked.
    pub fn check(&mut self) -> Result<(), Problem> {
        match self.channel.idle() {
            Ok(Idle::Quiet) => Ok(()),
            Ok(Idle::Closed) => Err(Problem::Closed),
            Ok(Idle::Unsolicited) => Err(Problem::Unasked),
            Err(error) => Err(Problem::Socket(error)),
        }
    }

    /// Stops a ring and returns the backend's answer: the ring that it stopped,
    /// and the position where it would have continued. `waits` is called now
    /// and then.
    pub fn stop_ring(
        &mut self,
        index: u16,
        deadline: &Deadline,
        waits: impl FnMut(),
    ) -> Result<VhostUserVringState, ChannelError> {
        let state = VhostUserVringState::new(index.into(), 0);
        let request = GetVringBase(state);
        self.channel.ask_patiently(&request, deadline, waits)
    }

    /// Disables a ring that is stopped, where rings are enabled one by one.
    ///
    /// It is stopped before it is disabled. A disabled ring that is not stopped is to be
    /// processed without side effects (vhost-user document, "Ring states"): a pause
    /// would lose packets and writes.
    pub fn disable_ring(&mut self, index: u16, deadline: &Deadline) -> Result<(), ChannelError> {
        if !self.agreement.has_vring_enable() {
            return Ok(());
        }
        let state = VhostUserVringState::new(index.into(), 0);
        match self.channel.tell(&SetVringEnable(state), deadline) {
            // It is stopped, and only that counts.
            Err(error) if !error.is_refusal() => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads the configuration space; `None` when there is none.
    pub fn read_config(&mut self, deadline: &Deadline) -> Result<Option<Vec<u8>>, ChannelError> {
        match self.config_size {
            0 => Ok(None),
            size => config::read(&mut self.channel, size, deadline).map(Some),
        }
    }

    pub fn write_config(
        &mut self,
        offset: u32,
        data: &[u8],
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.channel.tell(&SetConfig { offset, data }, deadline)
    }

    /// Without acknowledgements, the answer to any request means that the
    /// backend has got through all the messages before it.
    fn wait_until_done(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        if self.channel.acks() {
            return Ok(());
        }
        self.ping(deadline)
    }
}

/// Readable when the backend closed the connection, or spoke unasked.
impl AsRawFd for Session {
    fn as_raw_fd(&self) -> RawFd {
        self.channel.as_raw_fd()
    }
}
