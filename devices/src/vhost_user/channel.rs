//! The message channel to a backend.
//!
//! The `vhost` crate's frontend waits for ever for a reply; this channel gives
//! up at a deadline and says which message it waited for. After any error but a
//! refusal, the two sides may be out of step: the connection is of no more use.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::files;
use super::message::{Message, Reply, Request};
use super::requests::BackendRequests;
use crate::deadline::Deadline;
use crate::virtio::status::Status;

/// Length of a message header: request, flags and payload size.
pub const HEADER_SIZE: usize = 12;

/// Header flags (vhost-user document, "Header").
pub const VERSION: u32 = 1;
pub const VERSION_MASK: u32 = 0x3;
pub const REPLY: u32 = 1 << 2;
pub const NEED_REPLY: u32 = 1 << 3;

/// How often who waits for long is told that it does.
const TURN: Duration = Duration::from_millis(500);

/// An exchange with the backend failed. `message` is what was being said.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error(
        "the backend did not answer {message:?} within {waited:?} ({received} of {expected} bytes came)"
    )]
    Late {
        message: FrontendReq,
        waited: Duration,
        received: usize,
        expected: usize,
    },
    #[error("the backend did not take {message:?} within {waited:?}")]
    Stuck {
        message: FrontendReq,
        waited: Duration,
    },
    #[error(
        "the backend closed the connection instead of {}; its own log may say why",
        instead(*.message, *.received, *.expected)
    )]
    Closed {
        message: FrontendReq,
        received: usize,
        expected: usize,
    },
    #[error("cannot exchange {message:?} with the backend")]
    Io {
        message: FrontendReq,
        source: io::Error,
    },
    #[error(
        "the backend answered {message:?} with request {found}, flags {flags:#x}: that is no reply to it"
    )]
    NotTheReply {
        message: FrontendReq,
        found: u32,
        flags: u32,
    },
    #[error(
        "the backend answered {message:?} with a payload of {found} bytes, which it cannot have"
    )]
    ReplySize { message: FrontendReq, found: usize },
    #[error("the backend refused {message:?} (it answered {code}){}", hint(*.message))]
    Refused { message: FrontendReq, code: u64 },
    #[error("the backend left {missing} out of its status ({found:#x}){}", status_hint(*.missing))]
    Status { missing: Status, found: u64 },
}

/// What a backend was to do that closed the connection. Nothing is expected of one that
/// has closed it before the message was said.
fn instead(message: FrontendReq, received: usize, expected: usize) -> String {
    match expected {
        0 => format!("taking {message:?}"),
        _ => format!("answering {message:?} ({received} of {expected} bytes came)"),
    }
}

/// What the user can do about a refusal.
fn hint(message: FrontendReq) -> &'static str {
    match message {
        FrontendReq::SET_VRING_NUM => "; its queues may be smaller: try another queue-size=",
        FrontendReq::SET_MEM_TABLE => "; it may be unable to map guest RAM",
        _ => "",
    }
}

/// What the user can do about a status.
fn status_hint(missing: Status) -> &'static str {
    if missing == Status::FEATURES_OK {
        ": it does not work with the features that the driver took; features= keeps some from the driver"
    } else {
        ""
    }
}

impl ChannelError {
    /// Whether the two sides are still in step.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Status { .. })
    }

    /// Whether the backend ended the connection. After any other error it may
    /// still be at work.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

/// What the backend did while nothing was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    Quiet,
    Closed,
    Spoke,
}

/// A connection to a backend.
pub struct Channel {
    stream: UnixStream,
    /// The socket for the backend's own requests, where it has some.
    requests: Option<BackendRequests>,
    /// Whether VHOST_USER_PROTOCOL_F_REPLY_ACK is negotiated.
    acks: bool,
}

impl Channel {
    /// `stream` is connected and in blocking mode.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            requests: None,
            acks: false,
        }
    }

    /// From now on the backend acknowledges what has no reply of its own.
    pub fn expect_acks(&mut self) {
        self.acks = true;
    }

    /// Whether a message told has been carried out when it returns.
    pub fn acks(&self) -> bool {
        self.acks
    }

    /// Has the backend's own requests served whenever it is waited for.
    pub fn serve_meanwhile(&mut self, requests: BackendRequests) {
        self.requests = Some(requests);
    }

    /// The backend's own requests, as long as they can be served.
    pub fn requests(&mut self) -> &mut Option<BackendRequests> {
        &mut self.requests
    }

    /// Sends a request and waits for its reply.
    pub fn ask<R: Request>(
        &mut self,
        request: &R,
        deadline: &Deadline,
    ) -> Result<R::Reply, ChannelError> {
        self.begin(request, deadline)?;
        self.complete::<R>(deadline)
    }

    /// The same for a reply that may take long: `waits` is called now and then.
    pub fn ask_patiently<R: Request>(
        &mut self,
        request: &R,
        deadline: &Deadline,
        mut waits: impl FnMut(),
    ) -> Result<R::Reply, ChannelError> {
        self.begin(request, deadline)?;
        let failed = |source| ChannelError::Io {
            message: R::CODE,
            source,
        };
        while let Some(left) = deadline.left() {
            let turn = left.min(TURN);
            let answers = is_ready(&self.stream, PollFlags::IN, &mut self.requests, turn);
            if answers.map_err(failed)? {
                break;
            }
            waits();
        }
        self.complete::<R>(deadline)
    }

    /// The first half of [`ask`](Self::ask): the channel becomes readable when
    /// the reply comes. Nothing else is said until it is complete.
    pub fn begin<R: Request>(
        &mut self,
        request: &R,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.send(request, 0, deadline)
    }

    /// The second half of [`ask`](Self::ask).
    pub fn complete<R: Request>(&mut self, deadline: &Deadline) -> Result<R::Reply, ChannelError> {
        self.receive(R::CODE, deadline)
    }

    /// Sends a request and waits for its reply and the file that comes with it.
    pub fn ask_for_file<R: Request>(
        &mut self,
        request: &R,
        deadline: &Deadline,
    ) -> Result<(R::Reply, Option<File>), ChannelError> {
        self.begin(request, deadline)?;
        let mut file = None;
        let reply = self.receive_with(R::CODE, deadline, |stream, buffer| {
            let (count, new) = files::receive(stream, buffer)?;
            file = new.or(file.take());
            Ok(count)
        })?;
        Ok((reply, file))
    }

    /// Sends a message without a reply, and waits for the acknowledgement where
    /// that is negotiated.
    pub fn tell<M: Message>(
        &mut self,
        message: &M,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        if !self.acks {
            return self.send(message, 0, deadline);
        }
        self.send(message, NEED_REPLY, deadline)?;
        match self.receive(M::CODE, deadline)? {
            0 => Ok(()),
            code => Err(ChannelError::Refused {
                message: M::CODE,
                code,
            }),
        }
    }

    /// Waits until `file`, which the backend has too, is ready for `events`. Its own
    /// requests are served meanwhile.
    pub fn wait_for(
        &mut self,
        file: &impl AsFd,
        events: PollFlags,
        deadline: &Deadline,
    ) -> io::Result<()> {
        loop {
            let left = deadline.left().ok_or(ErrorKind::TimedOut)?;
            if is_ready(file, events, &mut self.requests, left)? {
                return Ok(());
            }
        }
    }

    /// What happened on the connection while nothing was asked. Never blocks.
    pub fn idle(&mut self) -> io::Result<Idle> {
        self.stream.set_nonblocking(true)?;
        let result = (&self.stream).read(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match result {
            Ok(0) => Ok(Idle::Closed),
            Ok(_) => Ok(Idle::Spoke),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(Idle::Quiet),
                _ if is_hang_up(&error) => Ok(Idle::Closed),
                _ => Err(error),
            },
        }
    }

    fn send<M: Message>(
        &mut self,
        message: &M,
        flags: u32,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        let mut bytes = vec![0; HEADER_SIZE];
        message.encode(&mut bytes);
        let header = Header {
            request: M::CODE.into(),
            flags: VERSION | flags,
            size: (bytes.len() - HEADER_SIZE) as u32,
        };
        bytes[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
        self.write_all(M::CODE, &bytes, &message.fds(), deadline)
    }

    /// The descriptors go with the first byte.
    fn write_all(
        &mut self,
        message: FrontendReq,
        mut bytes: &[u8],
        mut fds: &[RawFd],
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        while !bytes.is_empty() {
            let Some(left) = deadline.left() else {
                let waited = deadline.budget();
                return Err(ChannelError::Stuck { message, waited });
            };
            let io_error = |source| ChannelError::Io { message, source };
            self.stream
                .set_write_timeout(Some(left))
                .map_err(io_error)?;
            match self.stream.send_with_fds(&[bytes], fds) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    fds = &[];
                }
                Err(error) => match io::Error::from(error) {
                    error if may_go_on(&error) => {}
                    error if is_hang_up(&error) => {
                        return Err(ChannelError::Closed {
                            message,
                            received: 0,
                            expected: 0,
                        });
                    }
                    error => return Err(io_error(error)),
                },
            }
        }
        Ok(())
    }

    /// Descriptors that come along unasked are closed by the kernel, since
    /// nothing here makes room for them.
    fn receive<R: Reply>(
        &mut self,
        message: FrontendReq,
        deadline: &Deadline,
    ) -> Result<R, ChannelError> {
        self.receive_with(message, deadline, |mut stream, buffer| stream.read(buffer))
    }

    fn receive_with<R: Reply>(
        &mut self,
        message: FrontendReq,
        deadline: &Deadline,
        mut read: impl FnMut(&UnixStream, &mut [u8]) -> io::Result<usize>,
    ) -> Result<R, ChannelError> {
        let mut header = [0; HEADER_SIZE];
        self.read_exact(message, &mut header, deadline, &mut read)?;
        let header = Header::from_bytes(header);
        let is_reply = header.request == u32::from(message)
            && header.flags & VERSION_MASK == VERSION
            && header.flags & REPLY != 0;
        if !is_reply {
            return Err(ChannelError::NotTheReply {
                message,
                found: header.request,
                flags: header.flags,
            });
        }
        let found = header.size as usize;
        let wrong_size = ChannelError::ReplySize { message, found };
        if found > R::MAX_SIZE {
            return Err(wrong_size);
        }
        let mut payload = vec![0; found];
        self.read_exact(message, &mut payload, deadline, &mut read)?;
        R::decode(&payload).ok_or(wrong_size)
    }

    fn read_exact(
        &mut self,
        message: FrontendReq,
        buffer: &mut [u8],
        deadline: &Deadline,
        read: &mut impl FnMut(&UnixStream, &mut [u8]) -> io::Result<usize>,
    ) -> Result<(), ChannelError> {
        let expected = buffer.len();
        let mut received = 0;
        while received < expected {
            let Some(left) = deadline.left() else {
                return Err(ChannelError::Late {
                    message,
                    waited: deadline.budget(),
                    received,
                    expected,
                });
            };
            let io_error = |source| ChannelError::Io { message, source };
            let answers = is_ready(&self.stream, PollFlags::IN, &mut self.requests, left);
            if !answers.map_err(io_error)? {
                continue;
            }
            self.stream.set_read_timeout(Some(left)).map_err(io_error)?;
            let closed = ChannelError::Closed {
                message,
                received,
                expected,
            };
            match read(&self.stream, &mut buffer[received..]) {
                Ok(0) => return Err(closed),
                Ok(count) => received += count,
                Err(error) if may_go_on(&error) => {}
                Err(error) if is_hang_up(&error) => return Err(closed),
                Err(error) => return Err(io_error(error)),
            }
        }
        Ok(())
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Waits for `file`, or for a request of the backend's own, which is served: one that
/// does nothing else before that is not late. `false` when `file` is to be waited for again.
fn is_ready(
    file: &impl AsFd,
    events: PollFlags,
    requests: &mut Option<BackendRequests>,
    left: Duration,
) -> io::Result<bool> {
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let requests = requests.as_mut().filter(|requests| requests.is_open());
    let mut fds = vec![PollFd::new(file, events)];
    fds.extend(
        requests
            .as_ref()
            .map(|requests| PollFd::new(&**requests, PollFlags::IN)),
    );
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let is_up = |fd: &PollFd| !fd.revents().is_empty();
    let (ready, asked) = (is_up(&fds[0]), fds.get(1).is_some_and(is_up));
    drop(fds);
    if let (false, true, Some(requests)) = (ready, asked, requests) {
        requests.serve_meanwhile();
    }
    Ok(ready)
}

/// A timeout, which the caller measures, or a signal to the thread.
fn may_go_on(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// A message header, in the byte order of the machine.
pub struct Header {
    pub request: u32,
    pub flags: u32,
    pub size: u32,
}

impl Header {
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let fields = [self.request, self.flags, self.size];
        for (to, from) in bytes.chunks_exact_mut(size_of::<u32>()).zip(fields) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Self {
        let [r0, r1, r2, r3, f0, f1, f2, f3, s0, s1, s2, s3] = bytes;
        Self {
            request: u32::from_ne_bytes([r0, r1, r2, r3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
        }
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod tests;
