//! A device whose other half is a vhost-user backend.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostUserProtocolFeatures as Protocol, VhostUserVringAddr, VhostUserVringAddrFlags,
    VhostUserVringState,
};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::channel::{Channel, ChannelError, Idle};
use super::deadline::Deadline;
use super::error::{Error, Problem};
use super::events::Events;
use super::memory::MemoryTable;
use super::message::*;
use super::negotiate::{self, Agreement};
use super::profile::{self, Profile};
use super::{Options, config, connect};
use crate::virtio::{
    Device, DeviceError, DeviceEvent, DeviceType, GuestMemory, QueueConfig, features,
};

/// A device of any type, served by a vhost-user backend.
pub struct Frontend {
    id: String,
    socket: PathBuf,
    device_type: DeviceType,
    profile: Profile,
    deadline: Duration,
    agreement: Agreement,
    queue_sizes: Vec<u16>,
    running: Vec<bool>,
    /// Bytes to read of the configuration space; 0 when there is none.
    config_size: u32,
    memory: Arc<MemoryTable>,
    /// `None` once the connection is lost.
    channel: Option<Channel>,
    events: Events,
}

impl Frontend {
    /// Connects to the backend and finds out what it is. The guest's memory is
    /// handed over when the driver is ready.
    pub fn connect(options: Options, memory: Arc<GuestMemory>) -> Result<Self, Error> {
        let (id, socket) = (options.id.clone(), options.socket.clone());
        Self::try_connect(options, memory).map_err(|problem| Error {
            id,
            socket,
            problem,
        })
    }

    fn try_connect(options: Options, memory: Arc<GuestMemory>) -> Result<Self, Problem> {
        let memory = Arc::new(MemoryTable::new(memory)?);
        let profile = profile::profile(options.device_type);
        let stream = connect::connect(&options.socket, options.connect_deadline)?;
        let mut channel = Channel::new(stream);
        let deadline = Deadline::after(options.deadline);
        let agreement = negotiate::negotiate(
            &mut channel,
            options.device_type,
            &profile,
            options.queues,
            &deadline,
        )?;
        let config_size = probe_config(&mut channel, &options, &profile, &agreement, &deadline)?;
        negotiate::log(&options.id, options.device_type, &agreement);
        let events = Events::new().map_err(Problem::Events)?;
        events.watch(&channel).map_err(Problem::Events)?;
        let queues = usize::from(agreement.queues);
        let queue_size = options.queue_size.unwrap_or(profile.queue_size);
        Ok(Self {
            id: options.id,
            socket: options.socket,
            device_type: options.device_type,
            profile,
            deadline: options.deadline,
            agreement,
            queue_sizes: vec![queue_size; queues],
            running: vec![false; queues],
            config_size,
            memory,
            channel: Some(channel),
            events,
        })
    }

    fn error(&self, problem: Problem) -> Error {
        Error {
            id: self.id.clone(),
            socket: self.socket.clone(),
            problem,
        }
    }

    /// Has `exchange` talk to the backend, within one deadline. If that fails
    /// otherwise than by a refusal, the connection is given up.
    fn exchange<T>(
        &mut self,
        exchange: impl FnOnce(&mut Channel, &Deadline) -> Result<T, ChannelError>,
    ) -> Result<T, Error> {
        let deadline = Deadline::after(self.deadline);
        let result = match self.channel.as_mut() {
            Some(channel) => exchange(channel, &deadline),
            None => return Err(self.error(Problem::Lost)),
        };
        result.map_err(|error| {
            if !error.is_refusal() {
                self.lose();
            }
            self.error(error.into())
        })
    }

    /// Closing the socket also takes it out of `events`.
    fn lose(&mut self) {
        self.channel = None;
        self.running.fill(false);
    }

    fn ring_address(&self, queue: u16, address: GuestAddress) -> Result<u64, Error> {
        let address = address.0;
        self.memory
            .user_address(GuestAddress(address))
            .map(|user| user.raw())
            .ok_or_else(|| self.error(Problem::OutsideMemory { queue, address }))
    }

    fn ring_addresses(&self, index: u16, queue: &QueueConfig) -> Result<VhostUserVringAddr, Error> {
        Ok(VhostUserVringAddr::new(
            index.into(),
            VhostUserVringAddrFlags::empty(),
            self.ring_address(index, queue.descriptors)?,
            self.ring_address(index, queue.used)?,
            self.ring_address(index, queue.available)?,
            0,
        ))
    }

    /// Tells the backend all about one ring, in the order of QEMU. The base is
    /// 0 whatever the driver has put in the ring already: all of it is new to
    /// the device.
    fn set_up_ring(
        &mut self,
        addresses: VhostUserVringAddr,
        size: u16,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), Error> {
        let index = addresses.index;
        let has_enable = self.agreement.has_vring_enable();
        self.exchange(|channel, deadline| {
            let state = |num| VhostUserVringState::new(index, num);
            channel.tell(&SetVringNum(state(size.into())), deadline)?;
            channel.tell(&SetVringBase(state(0)), deadline)?;
            channel.tell(&SetVringAddr(addresses), deadline)?;
            // An index has eight bits: there are no more queues than that.
            let index = index as u8;
            channel.tell(&SetVringCall { index, fd: call }, deadline)?;
            channel.tell(&SetVringKick { index, fd: kick }, deadline)?;
            if has_enable {
                channel.tell(&SetVringEnable(state(1)), deadline)?;
            }
            wait_until_done(channel, deadline)
        })
    }

    fn try_stop(&mut self, index: u16) -> Result<u16, Error> {
        let has_enable = self.agreement.has_vring_enable();
        let state = VhostUserVringState::new(index.into(), 0);
        let base = self.exchange(|channel, deadline| {
            if has_enable {
                channel.tell(&SetVringEnable(state), deadline)?;
            }
            channel.ask(&GetVringBase(state), deadline)
        })?;
        let found = base.index;
        if found != u32::from(index) {
            self.lose();
            return Err(self.error(Problem::WrongQueue {
                asked: index,
                found,
            }));
        }
        // A split ring's index has 16 bits.
        Ok(base.num as u16)
    }

    fn is_running(&self, index: u16) -> bool {
        self.running.get(usize::from(index)) == Some(&true)
    }

    fn mark(&mut self, index: u16, running: bool) {
        if let Some(mark) = self.running.get_mut(usize::from(index)) {
            *mark = running;
        }
    }
}

impl Device for Frontend {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.agreement.features
    }

    fn activate(&mut self, features: u64) -> Result<(), DeviceError> {
        let to_set = SetFeatures(self.agreement.features_to_set(features));
        let memory = self.memory.clone();
        self.exchange(|channel, deadline| {
            channel.tell(&to_set, deadline)?;
            channel.tell(&memory.message(), deadline)?;
            wait_until_done(channel, deadline)
        })?;
        tracing::debug!(
            device = self.id,
            features = features::names(self.device_type, features).join(", "),
            "the driver is ready"
        );
        Ok(())
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), DeviceError> {
        let addresses = self.ring_addresses(index, queue)?;
        self.set_up_ring(addresses, queue.size, kick, call)?;
        self.mark(index, true);
        // A kick from before the ring was enabled may have been dropped.
        kick.write(1).map_err(|source| {
            let queue = index;
            self.error(Problem::Kick { queue, source })
        })?;
        Ok(())
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16, DeviceError> {
        if !self.is_running(index) {
            return Ok(0);
        }
        self.mark(index, false);
        Ok(self.try_stop(index)?)
    }

    fn read_config(&mut self) -> Result<Vec<u8>, DeviceError> {
        let size = self.config_size;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = self.exchange(|channel, deadline| config::read(channel, size, deadline))?;
        if let Some(count) = &self.profile.queue_count {
            count.limit(&mut bytes, self.agreement.features, self.agreement.queues);
        }
        Ok(bytes)
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), DeviceError> {
        self.exchange(|channel, deadline| channel.tell(&SetConfig { offset, data }, deadline))?;
        Ok(())
    }

    fn reset(&mut self) {}

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }

    fn handle_event(&mut self) -> DeviceEvent {
        let Some(channel) = self.channel.as_mut() else {
            return DeviceEvent::Nothing;
        };
        let problem = match channel.idle() {
            Ok(Idle::Quiet) => return DeviceEvent::Nothing,
            Ok(Idle::Closed) => Problem::Closed,
            Ok(Idle::Spoke) => Problem::Unasked,
            Err(error) => Problem::Events(error),
        };
        self.lose();
        DeviceEvent::Broken(Box::new(self.error(problem)))
    }
}

/// Without acknowledgements, the answer to any request means that the backend
/// has got through all the messages before it.
fn wait_until_done(channel: &mut Channel, deadline: &Deadline) -> Result<(), ChannelError> {
    if channel.acks() {
        return Ok(());
    }
    channel.ask(&GetFeatures, deadline).map(drop)
}

fn probe_config(
    channel: &mut Channel,
    options: &Options,
    profile: &Profile,
    agreement: &Agreement,
    deadline: &Deadline,
) -> Result<u32, Problem> {
    let offered = agreement.protocol.contains(Protocol::CONFIG);
    let sizes = if offered { profile.config_sizes } else { &[] };
    match config::probe(channel, sizes, deadline)? {
        Some((size, _)) => Ok(size),
        None if profile.config_required => Err(Problem::NoConfig {
            device_type: options.device_type,
            offered,
        }),
        None => Ok(0),
    }
}
