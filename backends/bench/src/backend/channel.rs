//! The channel for the backend's own requests ("Back-end communication").

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::message::BackendReq;
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
    Map,
    Call,
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

impl Question {
    fn bytes(self) -> Vec<u8> {
        let message = |request: u32, payload: &[u8]| {
            let header = Header::request(request, payload.len()).with_ack();
            [&header.to_bytes()[..], payload].concat()
        };
        let change = BackendReq::CONFIG_CHANGE_MSG as u32;
        match self {
            Self::ConfigChange => message(change, &[]),
            Self::ConfigChangeUnasked => Header::request(change, 0).to_bytes().to_vec(),
            Self::ConfigChanges => Header::request(change, 0).to_bytes().repeat(MANY),
            Self::Unknown => message(UNKNOWN, &[]),
            Self::Map => message(BackendReq::SHMEM_MAP as u32, &[0; 40]),
            Self::Call => message(BackendReq::VRING_CALL as u32, &[0; 8]),
            Self::TooLong => message(change, &[1, 2, 3]),
            Self::Huge => {
                let size = u32::MAX as usize;
                Header::request(change, size).with_ack().to_bytes().to_vec()
            }
            Self::Cut => vec![change as u8, 0, 0],
            Self::Close => Vec::new(),
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
        let deadline = Deadline::after(PATIENCE);
        if let Err(error) = self.0.send_bytes(&question.bytes(), &[], &deadline) {
            log.event(format!("on the backend's channel: {error}"));
        }
        !question.ends_the_channel()
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
