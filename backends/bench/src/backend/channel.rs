//! The channel for the backend's own requests ("Back-end communication").

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::message::{BackendReq, VhostUserMMap, VhostUserMMapFlags};
use vhost_user_wire::{Connection, Deadline, Header, Payload};

use super::history::{Answer, History};
use crate::driver::MessageLog;

/// What is asked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The configuration space has changed, with NEED_REPLY.
    ConfigChange,
    /// The same without NEED_REPLY.
    ConfigChangeUnasked,
    /// A thousand of them.
    ConfigChanges,
    /// A request that nobody has defined, with NEED_REPLY.
    Unknown,
    /// SHMEM_MAP and VRING_CALL, whose protocol features are not negotiated.
    MapUnnegotiated,
    Call,
    /// SHMEM_MAP of a file to the begin of region 0.
    Map,
    MapTwice,
    MapAndUnmap,
    MapAndUnmapHalf,
    /// To the end of the region and behind it.
    MapBeyond,
    /// To a region that there is not.
    MapElsewhere,
    /// SHMEM_UNMAP where nothing is mapped.
    Unmap,
    /// A known request with a payload of 3 bytes where it has none.
    TooLong,
    /// A header that says that 4 GiB follow.
    Huge,
    /// The begin of a header, and then the end of the channel.
    Cut,
    /// The end of the channel.
    Close,
}

const UNKNOWN: u32 = 0x7fff;
const MANY: usize = 1000;
/// How long the frontend may take to take a question.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of the device's only shared memory region, for GET_SHMEM_CONFIG.
pub const SHARED_MEMORY: u64 = 1 << 20;
/// Bytes of a mapping.
const MAPPED: u64 = 2 * 4096;

/// Bytes that are sent at once, and whether a file goes with them.
type Packet = (Vec<u8>, bool);

fn message(request: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header::request(request, payload.len()).with_ack();
    [&header.to_bytes()[..], payload].concat()
}

fn mapping(region: u8, shm_offset: u64, len: u64) -> Vec<u8> {
    VhostUserMMap {
        shmid: region,
        shm_offset,
        len,
        flags: VhostUserMMapFlags::WRITABLE.bits(),
        ..VhostUserMMap::default()
    }
    .to_bytes()
}

fn map(region: u8, shm_offset: u64) -> Packet {
    let payload = mapping(region, shm_offset, MAPPED);
    (message(BackendReq::SHMEM_MAP as u32, &payload), true)
}

fn unmap(len: u64) -> Packet {
    let payload = mapping(0, 0, len);
    (message(BackendReq::SHMEM_UNMAP as u32, &payload), false)
}

impl Question {
    fn packets(self) -> Vec<Packet> {
        match self {
            Self::Map => vec![map(0, 0)],
            Self::MapTwice => vec![map(0, 0), map(0, 0)],
            Self::MapAndUnmap => vec![map(0, 0), unmap(MAPPED)],
            Self::MapAndUnmapHalf => vec![map(0, 0), unmap(MAPPED / 2)],
            Self::MapBeyond => vec![map(0, SHARED_MEMORY - MAPPED / 2)],
            Self::MapElsewhere => vec![map(77, 0)],
            Self::Unmap => vec![unmap(MAPPED)],
            _ => vec![(self.bytes(), false)],
        }
    }

    /// Of a question without a file.
    fn bytes(self) -> Vec<u8> {
        let change = BackendReq::CONFIG_CHANGE_MSG as u32;
        match self {
            Self::ConfigChangeUnasked => Header::request(change, 0).to_bytes().to_vec(),
            Self::ConfigChanges => Header::request(change, 0).to_bytes().repeat(MANY),
            Self::Unknown => message(UNKNOWN, &[]),
            Self::MapUnnegotiated => message(BackendReq::SHMEM_MAP as u32, &[0; 40]),
            Self::Call => message(BackendReq::VRING_CALL as u32, &[0; 8]),
            Self::TooLong => message(change, &[1, 2, 3]),
            Self::Huge => {
                let size = u32::MAX as usize;
                Header::request(change, size).with_ack().to_bytes().to_vec()
            }
            Self::Cut => vec![change as u8, 0, 0],
            Self::Close => Vec::new(),
            _ => message(change, &[]),
        }
    }

    fn ends_the_channel(self) -> bool {
        matches!(self, Self::Cut | Self::Close)
    }
}

/// The backend's end of it.
#[derive(Debug)]
pub struct Channel(Connection);

impl Channel {
    pub fn new(file: File) -> Self {
        let stream = UnixStream::from(OwnedFd::from(file));
        Self(Connection::to_frontend(stream))
    }

    /// Whether there is more to say on the channel afterwards.
    pub fn ask(&self, question: Question, history: &mut History, log: &MessageLog) -> bool {
        log.event(format!("on the backend's channel: {question:?}"));
        history.asked();
        if let Err(why) = self.send(question) {
            log.event(format!("on the backend's channel: {why}"));
        }
        !question.ends_the_channel()
    }

    fn send(&self, question: Question) -> Result<(), String> {
        let file = host_io::files::sealed_memfd("mapped", MAPPED);
        let file = file.map_err(|error| error.to_string())?;
        let deadline = Deadline::after(PATIENCE);
        for (bytes, has_file) in question.packets() {
            let files = [file.as_fd()];
            let files = if has_file { &files[..] } else { &[] };
            let sent = self.0.send_bytes(&bytes, files, &deadline);
            sent.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Takes what has come; whether the channel is still open.
    pub fn receive(&mut self, history: &mut History, log: &MessageLog) -> bool {
        loop {
            match self.0.try_receive() {
                Ok(Some(message)) => {
                    let answer = Answer {
                        request: message.header.request,
                        flags: message.header.flags,
                        number: u64::decode(&message.payload).ok(),
                    };
                    log.event(format!("on the backend's channel: {answer:?}"));
                    history.answered(answer);
                }
                Ok(None) => return true,
                Err(error) => {
                    log.event(format!("on the backend's channel: {error}"));
                    history.channel_closed();
                    return false;
                }
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
