//! What the frontend says to a backend, each request with its reply's type.
//! Payloads are those of the vhost-user document, as the `vhost` crate has them.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemory, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSingleMemoryRegion,
    VhostUserVringAddr, VhostUserVringState,
};
use vm_memory::ByteValued;
use vmm_sys_util::eventfd::EventFd;

use super::inflight::Inflight;
use super::page_log::PageLog;

/// A message to the backend.
pub trait Message {
    const CODE: FrontendReq;

    /// Appends the payload.
    fn encode(&self, payload: &mut Vec<u8>);

    /// The descriptors that go with it.
    fn fds(&self) -> Vec<RawFd> {
        Vec::new()
    }
}

/// A message that the protocol has a reply to.
pub trait Request: Message {
    type Reply: Reply;
}

/// The payload of a reply.
pub trait Reply: Sized {
    /// The longest payload in bytes.
    const MAX_SIZE: usize;

    /// `None` when `payload` has a length that makes no sense.
    fn decode(payload: &[u8]) -> Option<Self>;
}

/// A reply that is one plain value.
fn decode_value<T: ByteValued + Default>(payload: &[u8]) -> Option<T> {
    let mut value = T::default();
    let bytes = value.as_mut_slice();
    if bytes.len() != payload.len() {
        return None;
    }
    bytes.copy_from_slice(payload);
    Some(value)
}

impl Reply for u64 {
    const MAX_SIZE: usize = size_of::<Self>();

    fn decode(payload: &[u8]) -> Option<Self> {
        decode_value(payload)
    }
}

impl Reply for VhostUserVringState {
    const MAX_SIZE: usize = size_of::<Self>();

    fn decode(payload: &[u8]) -> Option<Self> {
        decode_value(payload)
    }
}

/// Declares messages whose payload is a single 64-bit number, or none.
macro_rules! simple_messages {
    ($($(#[$meta:meta])* $name:ident = $code:ident $(, payload $payload:ty)? $(, reply $reply:ty)?;)*) => {$(
        $(#[$meta])*
        pub struct $name $((pub $payload))?;

        impl Message for $name {
            const CODE: FrontendReq = FrontendReq::$code;

            fn encode(&self, _payload: &mut Vec<u8>) {
                $(let value: $payload = self.0; _payload.extend_from_slice(value.as_slice());)?
            }
        }

        $(impl Request for $name {
            type Reply = $reply;
        })?
    )*};
}

simple_messages! {
    SetOwner = SET_OWNER;
    GetFeatures = GET_FEATURES, reply u64;
    SetFeatures = SET_FEATURES, payload u64;
    GetProtocolFeatures = GET_PROTOCOL_FEATURES, reply u64;
    SetProtocolFeatures = SET_PROTOCOL_FEATURES, payload u64;
    GetQueueNum = GET_QUEUE_NUM, reply u64;
    SetVringNum = SET_VRING_NUM, payload VhostUserVringState;
    SetVringBase = SET_VRING_BASE, payload VhostUserVringState;
    SetVringAddr = SET_VRING_ADDR, payload VhostUserVringAddr;
    SetVringEnable = SET_VRING_ENABLE, payload VhostUserVringState;
    ResetDevice = RESET_DEVICE;
    SetStatus = SET_STATUS, payload u64;
    GetStatus = GET_STATUS, reply u64;
    GetMaxMemSlots = GET_MAX_MEM_SLOTS, reply u64;
    /// The sizes of the device's shared memory regions.
    GetShmemConfig = GET_SHMEM_CONFIG, reply SharedMemorySizes;
    /// Forgets a region, which is named as it was added.
    RemoveMemoryRegion = REM_MEM_REG, payload VhostUserSingleMemoryRegion;
    /// 0 when the state was saved or loaded completely.
    CheckDeviceState = CHECK_DEVICE_STATE, reply u64;
    /// Stops the ring; the payload's number does not count.
    GetVringBase = GET_VRING_BASE, payload VhostUserVringState, reply VhostUserVringState;
}

/// Replaces the backend's view of guest memory: as many descriptors as regions.
pub struct SetMemTable<'a> {
    pub regions: &'a [VhostUserMemoryRegion],
    pub files: &'a [RawFd],
}

impl Message for SetMemTable<'_> {
    const CODE: FrontendReq = FrontendReq::SET_MEM_TABLE;

    fn encode(&self, payload: &mut Vec<u8>) {
        let header = VhostUserMemory::new(self.regions.len() as u32);
        payload.extend_from_slice(header.as_slice());
        for region in self.regions {
            payload.extend_from_slice(region.as_slice());
        }
    }

    fn fds(&self) -> Vec<RawFd> {
        self.files.to_vec()
    }
}

/// Adds one region to the backend's view of guest memory.
pub struct AddMemoryRegion {
    pub region: VhostUserSingleMemoryRegion,
    pub file: RawFd,
}

impl Message for AddMemoryRegion {
    const CODE: FrontendReq = FrontendReq::ADD_MEM_REG;

    fn encode(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(self.region.as_slice());
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.file]
    }
}

/// Which way a backend's own state goes, as seen from the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    Save = 0,
    Load = 1,
}

/// Has the backend write its state to the descriptor, or read it from there. The
/// device is stopped meanwhile, which is the only phase there is (0).
pub struct SetDeviceStateFd {
    pub direction: Direction,
    pub fd: RawFd,
}

impl Message for SetDeviceStateFd {
    const CODE: FrontendReq = FrontendReq::SET_DEVICE_STATE_FD;

    fn encode(&self, payload: &mut Vec<u8>) {
        const STOPPED: u32 = 0;
        payload.extend_from_slice((self.direction as u32).as_slice());
        payload.extend_from_slice(STOPPED.as_slice());
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.fd]
    }
}

impl Request for SetDeviceStateFd {
    type Reply = u64;
}

/// Hands over the descriptor that is signalled when a ring has new buffers.
pub struct SetVringKick<'a> {
    pub index: u8,
    pub fd: &'a EventFd,
}

impl Message for SetVringKick<'_> {
    const CODE: FrontendReq = FrontendReq::SET_VRING_KICK;

    fn encode(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(u64::from(self.index).as_slice());
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.fd.as_raw_fd()]
    }
}

/// Hands over the descriptor to signal when buffers of a ring are used.
pub struct SetVringCall<'a> {
    pub index: u8,
    pub fd: &'a EventFd,
}

impl Message for SetVringCall<'_> {
    const CODE: FrontendReq = FrontendReq::SET_VRING_CALL;

    fn encode(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(u64::from(self.index).as_slice());
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.fd.as_raw_fd()]
    }
}

/// Hands over the descriptor to signal when a ring cannot be processed.
pub struct SetVringErr<'a> {
    pub index: u8,
    pub fd: &'a EventFd,
}

impl Message for SetVringErr<'_> {
    const CODE: FrontendReq = FrontendReq::SET_VRING_ERR;

    fn encode(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(u64::from(self.index).as_slice());
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.fd.as_raw_fd()]
    }
}

/// Hands over the socket for the backend's own requests.
pub struct SetBackendReqFd<'a>(pub &'a UnixStream);

impl Message for SetBackendReqFd<'_> {
    const CODE: FrontendReq = FrontendReq::SET_BACKEND_REQ_FD;

    fn encode(&self, _payload: &mut Vec<u8>) {}

    fn fds(&self) -> Vec<RawFd> {
        vec![self.0.as_raw_fd()]
    }
}

/// Asks for a region to track requests in, for so many queues of this size.
pub struct GetInflightFd {
    pub queues: u16,
    /// In entries.
    pub queue_size: u16,
}

/// Appends the fields and the padding that backends expect behind them.
fn encode_inflight(place: &VhostUserInflight, payload: &mut Vec<u8>) {
    payload.extend_from_slice(&place.mmap_size.to_ne_bytes());
    payload.extend_from_slice(&place.mmap_offset.to_ne_bytes());
    payload.extend_from_slice(&place.num_queues.to_ne_bytes());
    payload.extend_from_slice(&place.queue_size.to_ne_bytes());
    payload.extend_from_slice(&[0; INFLIGHT_PADDING]);
}

/// Between the fields' end and the size of the C structure, which libvhost-user
/// and the rust-vmm crates send.
const INFLIGHT_PADDING: usize = 4;

impl Message for GetInflightFd {
    const CODE: FrontendReq = FrontendReq::GET_INFLIGHT_FD;

    fn encode(&self, payload: &mut Vec<u8>) {
        let place = VhostUserInflight::new(0, 0, self.queues, self.queue_size);
        encode_inflight(&place, payload);
    }
}

impl Request for GetInflightFd {
    type Reply = InflightReply;
}

/// Where the region is in the file that comes with the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightReply {
    /// In bytes; 0 when there is none.
    pub size: u64,
    /// In bytes.
    pub offset: u64,
}

impl Reply for InflightReply {
    const MAX_SIZE: usize = size_of::<VhostUserInflight>();

    /// With or without the padding.
    fn decode(payload: &[u8]) -> Option<Self> {
        if payload.len() + INFLIGHT_PADDING < Self::MAX_SIZE {
            return None;
        }
        let (size, rest) = payload.split_at(size_of::<u64>());
        let (offset, _) = rest.split_at(size_of::<u64>());
        Some(Self {
            size: decode_value(size)?,
            offset: decode_value(offset)?,
        })
    }
}

/// Hands over the region of this backend, or of the one before it.
pub struct SetInflightFd<'a>(pub &'a Inflight);

impl Message for SetInflightFd<'_> {
    const CODE: FrontendReq = FrontendReq::SET_INFLIGHT_FD;

    fn encode(&self, payload: &mut Vec<u8>) {
        encode_inflight(self.0.place(), payload);
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.0.file().as_raw_fd()]
    }
}

/// Hands over another log of written pages.
pub struct SetLogBase<'a>(pub &'a PageLog);

impl Message for SetLogBase<'_> {
    const CODE: FrontendReq = FrontendReq::SET_LOG_BASE;

    fn encode(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(self.0.place().as_slice());
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.0.file().as_raw_fd()]
    }
}

impl Request for SetLogBase<'_> {
    type Reply = LogTaken;
}

/// The log is in use. The document leaves open what says so: libvhost-user sends a
/// number, the `vhost` crate the request's payload.
pub struct LogTaken;

impl Reply for LogTaken {
    const MAX_SIZE: usize = size_of::<VhostUserLog>();

    fn decode(_payload: &[u8]) -> Option<Self> {
        Some(Self)
    }
}

/// Reads `size` bytes of the device configuration space from its start:
/// backends based on libvhost-user ignore any other offset.
pub struct GetConfig {
    pub size: u32,
}

impl Message for GetConfig {
    const CODE: FrontendReq = FrontendReq::GET_CONFIG;

    fn encode(&self, payload: &mut Vec<u8>) {
        let header = VhostUserConfig::new(0, self.size, VhostUserConfigFlags::empty());
        payload.extend_from_slice(header.as_slice());
        payload.resize(payload.len() + self.size as usize, 0);
    }
}

impl Request for GetConfig {
    type Reply = ConfigReply;
}

/// The bytes read; none when the backend refused.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigReply(pub Vec<u8>);

impl Reply for ConfigReply {
    const MAX_SIZE: usize = size_of::<VhostUserConfig>() + crate::virtio::page::CONFIG_MAX;

    /// A refusal is no payload at all (libvhost-user) or a header that says 0
    /// bytes (rust-vmm), the latter with or without the bytes of the request.
    fn decode(payload: &[u8]) -> Option<Self> {
        if payload.is_empty() {
            return Some(Self(Vec::new()));
        }
        let (header, bytes) = payload.split_at_checked(size_of::<VhostUserConfig>())?;
        let header: VhostUserConfig = decode_value(header)?;
        let size = header.size as usize;
        bytes.get(..size).map(|bytes| Self(bytes.to_vec()))
    }
}

/// By region number, in bytes; 0 where there is no such region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemorySizes(pub Vec<u64>);

impl Reply for SharedMemorySizes {
    const MAX_SIZE: usize = size_of::<VhostUserShMemConfig>();

    /// The document's payload has all 256 sizes. Their number comes first, but only
    /// those that are not 0 count in it, so that it does not say where they end.
    fn decode(payload: &[u8]) -> Option<Self> {
        let (_count, sizes) = payload.split_at_checked(size_of::<u64>())?;
        let (sizes, rest) = sizes.as_chunks();
        rest.is_empty()
            .then(|| Self(sizes.iter().map(|size| u64::from_ne_bytes(*size)).collect()))
    }
}

/// Changes part of the device configuration space on behalf of the driver.
///
/// In the vhost-user document, flags of 0 mean that, and 1 is for migration
/// only, which libvhost-user's devices refuse. (The `vhost` crate's WRITABLE is 1.)
pub struct SetConfig<'a> {
    pub offset: u32,
    pub data: &'a [u8],
}

impl Message for SetConfig<'_> {
    const CODE: FrontendReq = FrontendReq::SET_CONFIG;

    fn encode(&self, payload: &mut Vec<u8>) {
        let size = self.data.len() as u32;
        let header = VhostUserConfig::new(self.offset, size, VhostUserConfigFlags::empty());
        payload.extend_from_slice(header.as_slice());
        payload.extend_from_slice(self.data);
    }
}
