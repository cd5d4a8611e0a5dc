//! The messages of a frontend to a backend, each request with the type of its reply.
//!
//! vhost-user document, "Front-end message types".
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use vhost::vhost_user::message::{
    FrontendReq, VhostTransferStateDirection as Direction, VhostTransferStatePhase as Phase,
    VhostUserConfig, VhostUserConfigFlags, VhostUserInflight, VhostUserLog, VhostUserMemoryRegion,
    VhostUserSingleMemoryRegion, VhostUserTransferDeviceState, VhostUserVringAddr,
    VhostUserVringState,
};
use vmm_sys_util::eventfd::EventFd;

use crate::payload::{
    Config, ConfigReply, LogTaken, MemoryTable, Payload, SharedMemorySizes, VringFile,
};

/// A message to a backend.
pub trait FrontendMessage {
    const CODE: FrontendReq;

    /// Appends the payload.
    fn encode(&self, payload: &mut Vec<u8>);

    /// The file that goes with it, or the files.
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

/// A message that the protocol has a reply to.
pub trait FrontendRequest: FrontendMessage {
    type Reply: Payload;
}

/// Declares messages whose payload is one value, or none.
macro_rules! simple_messages {
    ($($(#[$meta:meta])* $name:ident = $code:ident $(, payload $payload:ty)? $(, reply $reply:ty)?;)*) => {$(
        $(#[$meta])*
        pub struct $name $((pub $payload))?;

        impl FrontendMessage for $name {
            const CODE: FrontendReq = FrontendReq::$code;

            fn encode(&self, _payload: &mut Vec<u8>) {
                $(<$payload as Payload>::encode(&self.0, _payload);)?
            }
        }

        $(impl FrontendRequest for $name {
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

/// Replaces the backend's view of guest memory: as many files as regions.
pub struct SetMemTable<'a> {
    pub regions: Vec<VhostUserMemoryRegion>,
    pub files: Vec<BorrowedFd<'a>>,
}

impl FrontendMessage for SetMemTable<'_> {
    const CODE: FrontendReq = FrontendReq::SET_MEM_TABLE;

    fn encode(&self, payload: &mut Vec<u8>) {
        MemoryTable(self.regions.clone()).encode(payload);
    }

    fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.files.clone()
    }
}

/// Declares messages of a payload and the one file that comes with it.
macro_rules! messages_with_file {
    ($($(#[$meta:meta])* $name:ident = $code:ident, payload $payload:ty;)*) => {$(
        $(#[$meta])*
        pub struct $name<'a> {
            pub payload: $payload,
            pub file: BorrowedFd<'a>,
        }

        impl FrontendMessage for $name<'_> {
            const CODE: FrontendReq = FrontendReq::$code;

            fn encode(&self, payload: &mut Vec<u8>) {
                self.payload.encode(payload);
            }

            fn files(&self) -> Vec<BorrowedFd<'_>> {
                vec![self.file]
            }
        }
    )*};
}

messages_with_file! {
    /// Adds one region to the backend's view of guest memory.
    AddMemoryRegion = ADD_MEM_REG, payload VhostUserSingleMemoryRegion;
    /// Hands over the eventfd that is signalled when a ring has new buffers.
    SetVringKick = SET_VRING_KICK, payload VringFile;
    /// Hands over the eventfd to signal when buffers of a ring are used.
    SetVringCall = SET_VRING_CALL, payload VringFile;
    /// Hands over the eventfd to signal when a ring cannot be processed.
    SetVringErr = SET_VRING_ERR, payload VringFile;
    /// Hands over the socket for the backend's own requests.
    SetBackendReqFd = SET_BACKEND_REQ_FD, payload ();
    /// Hands over the record of requests in flight, of this backend or of the one before it.
    SetInflightFd = SET_INFLIGHT_FD, payload VhostUserInflight;
    /// Hands over another log of written pages.
    SetLogBase = SET_LOG_BASE, payload VhostUserLog;
    /// Has the backend write its state to the file, or read it from there. The reply may come
    /// with a file to use instead.
    SetDeviceStateFd = SET_DEVICE_STATE_FD, payload VhostUserTransferDeviceState;
}

impl FrontendRequest for SetLogBase<'_> {
    type Reply = LogTaken;
}

impl FrontendRequest for SetDeviceStateFd<'_> {
    type Reply = u64;
}

impl<'a> SetDeviceStateFd<'a> {
    /// The device is stopped meanwhile: the protocol has no other phase.
    pub fn new(direction: Direction, file: BorrowedFd<'a>) -> Self {
        let payload = VhostUserTransferDeviceState::new(direction, Phase::STOPPED);
        Self { payload, file }
    }
}

/// Declares how the eventfds of rings are handed over.
macro_rules! vring_files {
    ($($name:ident),*) => {$(
        impl<'a> $name<'a> {
            pub fn new(index: u8, event: &'a EventFd) -> Self {
                let payload = VringFile { index, has_file: true };
                let file = borrow(event);
                Self { payload, file }
            }
        }
    )*};
}

vring_files!(SetVringKick, SetVringCall, SetVringErr);

/// `EventFd` does not implement `AsFd`.
fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is the eventfd's own, and open as long as that is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Asks for a record of requests in flight, for so many queues of this size.
pub struct GetInflightFd {
    pub queues: u16,
    /// In entries.
    pub queue_size: u16,
}

impl FrontendMessage for GetInflightFd {
    const CODE: FrontendReq = FrontendReq::GET_INFLIGHT_FD;

    fn encode(&self, payload: &mut Vec<u8>) {
        VhostUserInflight::new(0, 0, self.queues, self.queue_size).encode(payload);
    }
}

/// Where the record is in the file that comes with the reply. Its size is 0 when there is none.
impl FrontendRequest for GetInflightFd {
    type Reply = VhostUserInflight;
}

/// Reads `size` bytes of the device configuration space from its start: backends based on
/// libvhost-user ignore any other offset.
pub struct GetConfig {
    pub size: u32,
}

impl FrontendMessage for GetConfig {
    const CODE: FrontendReq = FrontendReq::GET_CONFIG;

    fn encode(&self, payload: &mut Vec<u8>) {
        let access = VhostUserConfig::new(0, self.size, VhostUserConfigFlags::empty());
        let bytes = vec![0; self.size as usize];
        Config { access, bytes }.encode(payload);
    }
}

impl FrontendRequest for GetConfig {
    type Reply = ConfigReply;
}

/// Changes part of the device configuration space on behalf of the driver.
///
/// In the vhost-user document, flags of 0 mean that, and 1 is for migration only, which
/// libvhost-user's devices refuse. (The `vhost` crate's WRITABLE is 1.)
pub struct SetConfig<'a> {
    pub offset: u32,
    pub data: &'a [u8],
}

impl FrontendMessage for SetConfig<'_> {
    const CODE: FrontendReq = FrontendReq::SET_CONFIG;

    fn encode(&self, payload: &mut Vec<u8>) {
        let size = self.data.len() as u32;
        let access = VhostUserConfig::new(self.offset, size, VhostUserConfigFlags::empty());
        let bytes = self.data.to_vec();
        Config { access, bytes }.encode(payload);
    }
}
