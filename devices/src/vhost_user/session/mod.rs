//! One connection to a backend: the agreement on it, and the messages.

pub mod channel;
pub mod channel_error;
pub mod config;
pub mod device_state;
mod driver_status;
pub mod inflight;
pub mod memory;
pub mod negotiate;
pub mod page_log;
pub mod requests;
pub mod ring_errors;
pub mod rings;
pub mod shared_memory;
mod sharing;

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostUserProtocolFeatures as Protocol, VhostUserVringAddr, VhostUserVringState,
};
use vhost_user_wire::features::VHOST_F_LOG_ALL;
use vhost_user_wire::frontend::*;

use crate::deadline::Deadline;
use crate::vhost_user::Options;
use crate::vhost_user::error::Problem;
use crate::vhost_user::profile::Profile;
use crate::virtio::status::Status;
use channel::{Channel, Idle};
use channel_error::ChannelError;
use driver_status::DriverStatus;
use inflight::Inflight;
use memory::MemoryTable;
use negotiate::Agreement;
use page_log::PageLog;
use requests::BackendRequests;
use ring_errors::RingErrors;
use rings::{RingSetup, Rings};
use shared_memory::SharedMemory;
use sharing::Sharing;

/// A backend that features have been negotiated with.
pub struct Session {
    channel: Channel,
    agreement: Agreement,
    /// Bytes to read of the configuration space; 0 when there is none.
    config_size: u32,
    /// Sizes of the shared memory regions by number, in bytes; 0 where there is none.
    shared_memory: Vec<u64>,
    sharing: Sharing,
    status: DriverStatus,
    rings: Rings,
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
            config_size,
            shared_memory,
            sharing: Sharing::new(agreement.memory_slots.is_some()),
            status: DriverStatus::new(agreement.protocol.contains(Protocol::STATUS)),
            rings: Rings::new(agreement.has_vring_enable(), ring_errors),
            agreement,
        };
        Ok((session, config))
    }

    /// The process at the other end of the socket, where there is one.
    pub fn peer(&self) -> Option<u32> {
        self.channel.peer()
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
        self.rings.errors()
    }

    /// The queues that the backend has reported errors on since this was asked last.
    pub fn take_ring_errors(&self) -> Vec<u16> {
        let errors = self.rings.errors();
        errors.map_or_else(Vec::new, RingErrors::take)
    }

    /// Whether the backend has a status to say in that the device needs a reset.
    pub fn has_status(&self) -> bool {
        self.has(Protocol::STATUS)
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
        self.status.forget();
        let channel = &mut self.channel;
        channel.tell(&SetFeatures(features), deadline)?;
        let accepted = [Status::ACKNOWLEDGE, Status::DRIVER, Status::FEATURES_OK];
        self.status.add(&accepted, channel, deadline)?;
        self.sharing.share(memory, channel, deadline)?;
        channel.settle(deadline)
    }

    /// The driver is ready, and the rings that it set up for that are started: a backend
    /// may look at them only now (virtio 1.3, section 3.1.1, steps 7 and 8). Rings that
    /// are started later do not change the status.
    pub fn begin(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        self.status
            .add(&[Status::DRIVER_OK], &mut self.channel, deadline)
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

    /// Whether the device says that it needs a reset.
    pub fn needs_reset(&mut self, deadline: &Deadline) -> Result<bool, ChannelError> {
        self.status.needs_reset(&mut self.channel, deadline)
    }

    /// The driver has reset the device, and its rings are stopped: the backend
    /// forgets all else, as far as it can be told to.
    pub fn reset(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        self.sharing.unshare(&mut self.channel, deadline)?;
        if self.has(Protocol::RESET_DEVICE) {
            self.channel.tell(&ResetDevice, deadline)?;
        }
        self.status.clear(&mut self.channel, deadline)
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
        self.channel.settle(deadline)
    }

    /// Sends the addresses of a running ring again.
    pub fn move_ring(
        &mut self,
        addresses: VhostUserVringAddr,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.channel.tell(&SetVringAddr(addresses), deadline)
    }

    /// Starts a ring.
    pub fn start_ring(
        &mut self,
        ring: &RingSetup,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.rings.start(ring, &mut self.channel, deadline)
    }

    /// Makes sure that the backend talks.
    pub fn ping(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        self.channel.ping(deadline)
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

    /// Stops a ring and returns the backend's answer; see [`Rings::stop`].
    pub fn stop_ring(
        &mut self,
        index: u16,
        deadline: &Deadline,
        waits: impl FnMut(),
    ) -> Result<VhostUserVringState, ChannelError> {
        self.rings.stop(index, &mut self.channel, deadline, waits)
    }

    /// Disables a ring that is stopped; see [`Rings::disable`].
    pub fn disable_ring(&mut self, index: u16, deadline: &Deadline) -> Result<(), ChannelError> {
        self.rings.disable(index, &mut self.channel, deadline)
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
}

/// Readable when the backend closed the connection, or spoke unasked.
impl AsRawFd for Session {
    fn as_raw_fd(&self) -> RawFd {
        self.channel.as_raw_fd()
    }
}
