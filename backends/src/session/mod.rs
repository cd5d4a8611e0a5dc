//! One frontend's connection: each request becomes a change of state and an answer.
//!
//! A request that cannot be served is logged, and answered as far as the document has an
//! answer for it ([`error::error_answer`]). The session then continues.
//!
//! vhost-user document, "Front-end message types".

pub mod error;
mod inflight;
mod log;
mod memory;
mod rings;
mod state;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vhost::vhost_user::Backend as BackendChannel;
use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures,
};
use vhost_user_backend::{VhostUserBackend, VringT};
use vhost_user_wire::payload::Config;
use vhost_user_wire::{Connection, Deadline, Message, Payload, WireError, features, name};
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::GuestMemoryMmap;
use vm_memory::mmap::NewBitmap;

use crate::device::Device;
use crate::inflight::Region;
use crate::memory::{MAX_SLOTS, MemoryTable};
use crate::page_log::Log;
use crate::patience::IO_DEADLINE;
use crate::ratelimit::RateLimit;
use crate::vring::{Flow, RingSetup};
use crate::warn_limited;
use error::{ErrorAnswer, RequestError, SessionError, error_answer};

/// End of the configuration space of any device (vhost-user document, VHOST_USER_GET_CONFIG).
const CONFIG_SPACE_END: u32 = 4096;

static LOG: RateLimit = RateLimit::for_logs();

/// The answer to a request that was served.
enum Answer {
    /// An acknowledgement, if the frontend asked for one.
    Done,
    /// The payload that this request is always answered with.
    Payload(Vec<u8>),
    /// The same with a file descriptor.
    File(Vec<u8>, File),
}

impl Answer {
    fn payload(payload: &impl Payload) -> Self {
        Answer::Payload(payload.to_bytes())
    }
}

/// A ring of this session.
#[derive(Debug, Default)]
struct Ring {
    setup: RingSetup,
    running: bool,
}

/// The state that one frontend has built up.
pub struct Session<'d, T: VhostUserBackend> {
    device: &'d Device<T>,
    rings: Vec<Ring>,
    memory: MemoryTable<T::Bitmap>,
    /// The record of requests in flight that the frontend keeps for this device.
    inflight: Option<Arc<Region>>,
    /// Where the frontend looks for the pages that the device has written.
    log: Option<Arc<Log>>,
    features: u64,
    protocol: Protocol,
    status: u8,
    /// Kept open for a device that does not care: to the frontend its end would be an error.
    backend_channel: Option<BackendChannel>,
}

impl<'d, T> Session<'d, T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    /// A session in which no message has come yet.
    pub fn new(device: &'d Device<T>) -> Self {
        Session {
            device,
            rings: (0..device.queues()).map(|_| Ring::default()).collect(),
            memory: MemoryTable::default(),
            inflight: None,
            log: None,
            features: 0,
            protocol: Protocol::empty(),
            status: 0,
            backend_channel: None,
        }
    }

    /// Serves one request and answers it.
    pub fn handle(
        &mut self,
        connection: &Connection,
        mut request: Message,
    ) -> Result<(), SessionError> {
        tracing::trace!(request = %name::frontend(request.header.request),
            bytes = request.payload.len(), fds = request.files.len(), "received");
        let result = self.serve(&mut request);
        // Checked afterwards: the SET_PROTOCOL_FEATURES that turns acknowledgements on is
        // itself acknowledged. user-mode-linux waits for that.
        let wants_ack = self.protocol.contains(Protocol::REPLY_ACK) && request.header.needs_reply();
        match result {
            Ok(Answer::Payload(payload)) => reply(connection, &request, &payload, None)?,
            Ok(Answer::File(payload, file)) => {
                reply(connection, &request, &payload, Some(&file))?;
            }
            Ok(Answer::Done) if wants_ack => reply(connection, &request, &0u64.to_bytes(), None)?,
            Ok(Answer::Done) => (),
            Err(error) => self.refuse(connection, &request, wants_ack, error)?,
        }
        Ok(())
    }

    /// Answers a request that could not be served.
    fn refuse(
        &mut self,
        connection: &Connection,
        request: &Message,
        wants_ack: bool,
        error: RequestError,
    ) -> Result<(), SessionError> {
        let name = name::frontend(request.header.request);
        warn_limited!(
            LOG,
            request = %name,
            error = &error as &dyn std::error::Error,
            "refused a request of the frontend"
        );
        let error = match error {
            RequestError::Worker(e) => return Err(e.into()),
            other => other,
        };
        match error_answer(kind(request), self.protocol) {
            ErrorAnswer::Payload(payload) => reply(connection, request, &payload, None)?,
            ErrorAnswer::HangUp => {
                return Err(SessionError::Unanswerable {
                    request: name,
                    source: error,
                });
            }
            ErrorAnswer::Ack if wants_ack => reply(connection, request, &1u64.to_bytes(), None)?,
            ErrorAnswer::Ack => (),
        }
        Ok(())
    }

    fn serve(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        use FrontendReq as R;
        if request.header.is_reply() {
            return Err(RequestError::Reply);
        }
        let unknown = RequestError::Unknown(request.header.request);
        let kind = kind(request).ok_or(unknown)?;
        match kind {
            R::GET_FEATURES => Ok(Answer::payload(&self.offered_features())),
            R::SET_FEATURES => self.set_features(request.body()?),
            R::SET_OWNER => Ok(Answer::Done),
            R::RESET_OWNER => self.disable_rings(),
            R::GET_PROTOCOL_FEATURES => Ok(Answer::payload(&self.offered_protocol().bits())),
            R::SET_PROTOCOL_FEATURES => self.set_protocol_features(request.body()?),
            R::GET_QUEUE_NUM => Ok(Answer::payload(&(self.rings.len() as u64))),
            R::SET_MEM_TABLE => self.set_mem_table(request),
            R::GET_MAX_MEM_SLOTS => Ok(Answer::payload(&(MAX_SLOTS as u64))),
            R::SET_LOG_BASE => self.set_log_base(request),
            R::ADD_MEM_REG => self.add_mem_region(request),
            R::REM_MEM_REG => self.remove_mem_region(request),
            R::SET_VRING_NUM => self.set_vring_num(request.body()?),
            R::SET_VRING_ADDR => self.set_vring_addr(request.body()?),
            R::SET_VRING_BASE => self.set_vring_base(request.body()?),
            R::GET_VRING_BASE => self.get_vring_base(request.body()?),
            R::SET_VRING_KICK => self.set_vring_kick(request),
            R::SET_VRING_CALL => self.set_vring_call(request),
            R::SET_VRING_ERR => self.set_vring_err(request),
            R::SET_VRING_ENABLE => self.set_vring_enable(request.body()?),
            R::GET_CONFIG => self.get_config(request.body()?),
            R::SET_CONFIG => self.set_config(request),
            R::GET_INFLIGHT_FD => self.get_inflight_fd(request),
            R::SET_INFLIGHT_FD => self.set_inflight_fd(request),
            R::SET_BACKEND_REQ_FD => self.set_backend_channel(request),
            R::GET_SHMEM_CONFIG => self.get_shmem_config(),
            R::SET_DEVICE_STATE_FD => self.set_device_state_fd(request),
            R::CHECK_DEVICE_STATE => self.check_device_state(),
            R::RESET_DEVICE => self.reset_device(),
            R::GET_STATUS => self.get_status(),
            R::SET_STATUS => self.set_status(request.body()?),
            _ => Err(RequestError::Unsupported),
        }
    }

    /// The backend's features; those that would need the kit's help and do not get it are hidden.
    fn offered_features(&self) -> u64 {
        // A backend that does not use the kit's records knows the crate's split rings only.
        let packed = u64::from(!self.device.tracks()) << VIRTIO_F_RING_PACKED;
        let log = VhostUserVirtioFeatures::LOG_ALL.bits();
        let added = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | if Self::can_log() { log } else { 0 };
        self.device.backend.features() & !(log | packed) | added
    }

    /// The features that the kit serves by itself, and those that the backend offers and the kit
    /// passes on. BACKEND_REQ is offered for devices without requests too: user-mode-linux gets
    /// its interrupt number from setting that channel up.
    fn offered_protocol(&self) -> Protocol {
        let kit = Protocol::MQ
            | Protocol::REPLY_ACK
            | Protocol::BACKEND_REQ
            | Protocol::CONFIGURE_MEM_SLOTS
            | Protocol::RESET_DEVICE
            | Protocol::STATUS;
        let passed_on =
            Protocol::CONFIG | Protocol::BACKEND_SEND_FD | Protocol::SHMEM | Protocol::DEVICE_STATE;
        let tracking = if self.device.tracks() {
            Protocol::INFLIGHT_SHMFD
        } else {
            Protocol::empty()
        };
        let logging = if Self::can_log() {
            Protocol::LOG_SHMFD
        } else {
            Protocol::empty()
        };
        kit | tracking | logging | self.device.backend.protocol_features() & passed_on
    }

    fn set_features(&mut self, features: u64) -> Result<Answer, RequestError> {
        let refused = features & !self.offered_features();
        if refused != 0 {
            let refused = features::names(refused, &[]);
            return Err(RequestError::Features { refused });
        }
        let changed = self.features ^ features;
        self.features = features;
        self.apply_log(&self.memory)?;
        // Logging begins and ends while rings run, and is none of the backend's business.
        if changed == VhostUserVirtioFeatures::LOG_ALL.bits() {
            return Ok(Answer::Done);
        }
        let backend = &self.device.backend;
        backend.set_event_idx(self.event_idx());
        backend.acked_features(features & !VhostUserVirtioFeatures::LOG_ALL.bits());
        for index in 0..self.rings.len() {
            let vring = self.device.vring(index);
            vring.set_queue_event_idx(self.event_idx());
        }
        // Only the device knows the names of its own.
        tracing::debug!(
            features = format_args!("{features:#x}"),
            "features negotiated"
        );
        // vhost-user document, "Ring states": without the bit there is no SET_VRING_ENABLE.
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            self.every_ring(|session, index| {
                session.rings[index].setup.flow = Flow::Passed;
                session.start_if_ready(index)
            })?;
        }
        Ok(Answer::Done)
    }

    fn is_packed(&self) -> bool {
        self.features & (1 << VIRTIO_F_RING_PACKED) != 0
    }

    fn event_idx(&self) -> bool {
        self.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0
    }

    fn set_protocol_features(&mut self, bits: u64) -> Result<Answer, RequestError> {
        let refused = bits & !self.offered_protocol().bits();
        self.protocol = Protocol::from_bits_truncate(bits & !refused);
        tracing::debug!(features = ?self.protocol, "protocol features negotiated");
        if refused != 0 {
            let refused = features::protocol_names(refused);
            return Err(RequestError::Features { refused });
        }
        Ok(Answer::Done)
    }

    fn get_config(&mut self, access: VhostUserConfig) -> Result<Answer, RequestError> {
        let (offset, size) = (access.offset, access.size);
        let fits = offset
            .checked_add(size)
            .is_some_and(|end| end <= CONFIG_SPACE_END);
        if !fits || !self.offered_protocol().contains(Protocol::CONFIG) {
            return Err(RequestError::Unsupported);
        }
        let mut bytes = self.device.backend.get_config(offset, size);
        // Newer frontends ask for fields that an older device does not have: those read as zero.
        bytes.resize(size as usize, 0);
        Ok(Answer::payload(&Config { access, bytes }))
    }

    fn set_config(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        let Config { access, bytes } = request.body()?;
        self.device
            .backend
            .set_config(access.offset, &bytes)
            .map_err(RequestError::Backend)?;
        Ok(Answer::Done)
    }

    /// GET_SHMEM_CONFIG: the sizes of the device's shared memory regions.
    fn get_shmem_config(&mut self) -> Result<Answer, RequestError> {
        if !self.offered_protocol().contains(Protocol::SHMEM) {
            return Err(RequestError::Unsupported);
        }
        let config = self.device.backend.get_shmem_config();
        let config = config.map_err(RequestError::Backend)?;
        Ok(Answer::payload(&config))
    }

    /// SET_BACKEND_REQ_FD: a second socket, for the device's requests to the frontend.
    fn set_backend_channel(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        let stream = UnixStream::from(OwnedFd::from(request.take_file()?));
        // Fails on anything that is not a Unix socket; the timeouts bound the device's waits.
        stream
            .peer_addr()
            .and_then(|_| stream.set_read_timeout(Some(IO_DEADLINE)))
            .and_then(|()| stream.set_write_timeout(Some(IO_DEADLINE)))
            .map_err(RequestError::NotASocket)?;
        if self.protocol.contains(Protocol::CONFIG) {
            let notifications = stream.try_clone().map_err(RequestError::NotASocket)?;
            // The device waits for answers of its own where it has files mapped.
            let acks = self.protocol.contains(Protocol::REPLY_ACK)
                && !self.protocol.contains(Protocol::SHMEM);
            self.device.notifier.set_channel(Some(notifications), acks);
        }
        let channel = BackendChannel::from_stream(stream);
        channel.set_reply_ack_flag(self.protocol.contains(Protocol::REPLY_ACK));
        channel.set_shmem_flag(self.protocol.contains(Protocol::SHMEM));
        self.device.backend.set_backend_req_fd(channel.clone());
        self.backend_channel = Some(channel);
        Ok(Answer::Done)
    }

    /// RESET_DEVICE: everything about the device is forgotten; the connection, its protocol
    /// features and the memory table stay.
    fn reset_device(&mut self) -> Result<Answer, RequestError> {
        let stopped = self.forget_rings();
        let forgotten = self.forget_record();
        self.features = 0;
        self.status = 0;
        self.device.needs_reset.clear();
        self.device.backend.reset_device();
        stopped.and(forgotten).map(|()| Answer::Done)
    }

    /// The recorded requests are void, and so is the state that the driver has set.
    fn forget_record(&mut self) -> Result<(), RequestError> {
        self.inflight = None;
        Ok(self.device.state_record().forget()?)
    }

    /// GET_STATUS: what the driver has set, and whether it has to reset the device.
    fn get_status(&self) -> Result<Answer, RequestError> {
        let status = self.status | self.device.needs_reset.bit();
        Ok(Answer::payload(&u64::from(status)))
    }

    /// SET_STATUS: the driver's own status (virtio 1.3, section 2.1). 0 is a device reset.
    fn set_status(&mut self, value: u64) -> Result<Answer, RequestError> {
        let status = value as u8;
        if status == 0 && self.status != 0 {
            self.stop_all()?;
            self.forget_record()?;
            self.device.needs_reset.clear();
            self.device.backend.reset_device();
        }
        self.status = status;
        Ok(Answer::Done)
    }

    /// Ends the session: the device returns to its initial state, and nothing of the frontend's is
    /// kept.
    pub fn end(mut self) -> Result<(), SessionError> {
        self.device.notifier.set_channel(None, false);
        self.device.state_record().end();
        match self.forget_rings() {
            Err(RequestError::Worker(e)) => return Err(e.into()),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "a ring did not stop cleanly");
            }
            Ok(()) => (),
        }
        if let Err(error) = self.device.replace_memory(GuestMemoryMmap::new()) {
            tracing::debug!(%error, "the device did not take an empty memory table");
        }
        self.device.needs_reset.clear();
        self.device.backend.reset_device();
        Ok(())
    }
}

/// The request's type, if it is a defined one.
fn kind(request: &Message) -> Option<FrontendReq> {
    FrontendReq::try_from(request.header.request).ok()
}

/// Answers a request.
fn reply(
    connection: &Connection,
    to: &Message,
    payload: &[u8],
    file: Option<&File>,
) -> Result<(), WireError> {
    let header = to.header.reply(payload.len());
    let files: Vec<_> = file.map(AsFd::as_fd).into_iter().collect();
    connection.send(header, payload, &files, &Deadline::after(IO_DEADLINE))
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
