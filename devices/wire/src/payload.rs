//! Payloads, as the `vhost` crate has them, and those for which that does not serve.
//!
//! vhost-user document, "Payload types".

use vhost::vhost_user::message::{
    VhostUserConfig, VhostUserConfigFlags, VhostUserInflight, VhostUserLog, VhostUserMMap,
    VhostUserMemory, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSingleMemoryRegion,
    VhostUserTransferDeviceState, VhostUserVringAddr, VhostUserVringState,
};
use vm_memory::ByteValued;

use crate::error::PayloadError;
use crate::limits::MAX_PAYLOAD;

/// The content of a message behind its header.
pub trait Payload: Sized {
    /// The longest that it can be, in bytes.
    const MAX_SIZE: usize;

    /// Appends it.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Reads it from the begin of `bytes`. What follows it is not looked at.
    fn decode(bytes: &[u8]) -> Result<Self, PayloadError>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }
}

/// The first bytes of `bytes` as a `T`, whatever their alignment.
fn read<T: ByteValued + Default>(bytes: &[u8]) -> Result<T, PayloadError> {
    let mut value = T::default();
    let head = take(bytes, size_of::<T>())?;
    value.as_mut_slice().copy_from_slice(head);
    Ok(value)
}

fn take(bytes: &[u8], want: usize) -> Result<&[u8], PayloadError> {
    let got = bytes.len();
    bytes.get(..want).ok_or(PayloadError::Short { got, want })
}

/// Payloads that are one plain value without padding.
macro_rules! plain {
    ($($payload:ty),* $(,)?) => {$(
        impl Payload for $payload {
            const MAX_SIZE: usize = size_of::<Self>();

            fn encode(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(self.as_slice());
            }

            fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
                read(bytes)
            }
        }
    )*};
}

plain!(
    u64,
    VhostUserConfig,
    VhostUserLog,
    VhostUserMMap,
    VhostUserMemoryRegion,
    VhostUserShMemConfig,
    VhostUserSingleMemoryRegion,
    VhostUserTransferDeviceState,
    VhostUserVringAddr,
    VhostUserVringState,
);

/// The message says all.
impl Payload for () {
    const MAX_SIZE: usize = 0;

    fn encode(&self, _bytes: &mut Vec<u8>) {}

    fn decode(_bytes: &[u8]) -> Result<Self, PayloadError> {
        Ok(())
    }
}

/// SET_MEM_TABLE. It comes with a file for each region.
#[derive(Clone, Default)]
pub struct MemoryTable(pub Vec<VhostUserMemoryRegion>);

impl Payload for MemoryTable {
    const MAX_SIZE: usize = MAX_PAYLOAD;

    fn encode(&self, bytes: &mut Vec<u8>) {
        let head = VhostUserMemory::new(self.0.len() as u32);
        bytes.extend_from_slice(head.as_slice());
        self.0.iter().for_each(|region| region.encode(bytes));
    }

    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let head: VhostUserMemory = read(bytes)?;
        let (begin, size) = (size_of_val(&head), size_of::<VhostUserMemoryRegion>());
        let want = (head.num_regions as usize).saturating_mul(size);
        let regions = take(bytes, want.saturating_add(begin))?[begin..].chunks(size);
        regions.map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR, which come with a file if they say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringFile {
    /// The ring's number.
    pub index: u8,
    pub has_file: bool,
}

/// The bit in a number that says that no file comes with it. (In SET_DEVICE_STATE_FD's
/// reply too.)
pub const NO_FILE: u64 = 0x100;

impl Payload for VringFile {
    const MAX_SIZE: usize = size_of::<u64>();

    fn encode(&self, bytes: &mut Vec<u8>) {
        let no_file = if self.has_file { 0 } else { NO_FILE };
        (u64::from(self.index) | no_file).encode(bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let value = u64::decode(bytes)?;
        Ok(Self {
            index: value as u8,
            has_file: value & NO_FILE == 0,
        })
    }
}

/// The reply to SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE: anything in these bits is an error.
pub const STATE_ERROR_MASK: u64 = 0xff;

/// GET_INFLIGHT_FD, its reply, and SET_INFLIGHT_FD.
impl Payload for VhostUserInflight {
    const MAX_SIZE: usize = INFLIGHT_SIZE + INFLIGHT_PADDING;

    /// With the padding, which libvhost-user and the rust-vmm crates expect. (Not `as_slice`: the
    /// padding of the type itself is whatever was in memory.)
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.mmap_size.encode(bytes);
        self.mmap_offset.encode(bytes);
        bytes.extend_from_slice(&self.num_queues.to_ne_bytes());
        bytes.extend_from_slice(&self.queue_size.to_ne_bytes());
        bytes.extend_from_slice(&[0; INFLIGHT_PADDING]);
    }

    /// With or without the padding.
    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let (sizes, queues) = take(bytes, INFLIGHT_SIZE)?.split_at(2 * size_of::<u64>());
        let [size, offset]: [u64; 2] = read(sizes)?;
        let [num_queues, queue_size]: [u16; 2] = read(queues)?;
        Ok(Self::new(size, offset, num_queues, queue_size))
    }
}

/// The fields of the payload, and what follows them up to the size of the C structure.
const INFLIGHT_SIZE: usize = 20;
const INFLIGHT_PADDING: usize = 4;

/// SET_CONFIG, GET_CONFIG, and the reply to that: part of a configuration space.
#[derive(Clone, Default)]
pub struct Config {
    /// Its size is that of `bytes`.
    pub access: VhostUserConfig,
    pub bytes: Vec<u8>,
}

impl Payload for Config {
    const MAX_SIZE: usize = MAX_PAYLOAD;

    fn encode(&self, bytes: &mut Vec<u8>) {
        self.access.encode(bytes);
        bytes.extend_from_slice(&self.bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let access: VhostUserConfig = read(bytes)?;
        let begin = size_of_val(&access);
        let whole = take(bytes, begin.saturating_add(access.size as usize))?;
        let bytes = whole[begin..].to_vec();
        Ok(Self { access, bytes })
    }
}

/// The bytes that a frontend reads of the configuration space; none when the backend
/// refused.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigReply(pub Vec<u8>);

impl Payload for ConfigReply {
    const MAX_SIZE: usize = MAX_PAYLOAD;

    /// A refusal has no payload at all, as the document says.
    fn encode(&self, bytes: &mut Vec<u8>) {
        if !self.0.is_empty() {
            let size = self.0.len() as u32;
            VhostUserConfig::new(0, size, VhostUserConfigFlags::empty()).encode(bytes);
            bytes.extend_from_slice(&self.0);
        }
    }

    /// A refusal is no payload at all (libvhost-user) or a header that says 0 bytes (rust-vmm),
    /// the latter with or without the bytes of the request.
    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        match bytes {
            [] => Ok(Self(Vec::new())),
            bytes => Config::decode(bytes).map(|config| Self(config.bytes)),
        }
    }
}

/// The reply to GET_SHMEM_CONFIG: sizes by region number, in bytes; 0 where there is no region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemorySizes(pub Vec<u64>);

impl Payload for SharedMemorySizes {
    const MAX_SIZE: usize = size_of::<VhostUserShMemConfig>();

    /// All 256 sizes, as in the document. Only those that are not 0 count in the number before
    /// them.
    fn encode(&self, bytes: &mut Vec<u8>) {
        let count = self.0.iter().filter(|size| **size != 0).count();
        VhostUserShMemConfig::new(count as u32, &self.0).encode(bytes);
    }

    /// As many sizes as there are: the number before them does not say where they end.
    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let got = bytes.len();
        let want = size_of::<u64>();
        let sizes = bytes.get(want..).ok_or(PayloadError::Short { got, want })?;
        match sizes.as_chunks() {
            (sizes, []) => Ok(Self(
                sizes.iter().copied().map(u64::from_ne_bytes).collect(),
            )),
            _ => Err(PayloadError::Size { got }),
        }
    }
}

/// The reply to SET_LOG_BASE: the log is in use. The document leaves open what says so:
/// libvhost-user sends a number, the `vhost` crate the payload of the request.
pub struct LogTaken;

impl Payload for LogTaken {
    const MAX_SIZE: usize = size_of::<VhostUserLog>();

    fn encode(&self, bytes: &mut Vec<u8>) {
        0u64.encode(bytes);
    }

    fn decode(_bytes: &[u8]) -> Result<Self, PayloadError> {
        Ok(Self)
    }
}

#[cfg(test)]
#[path = "payload_test.rs"]
mod tests;
