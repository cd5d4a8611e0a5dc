//! The message channel to a backend.
//!
//! The `vhost` crate's frontend waits for ever for a reply; this channel gives
//! up at a deadline and says which message it waited for. After any error but a
//! refusal, the two sides may be out of step: the connection is of no more use.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use host_io::sockets;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vhost::vhost_user::message::FrontendReq;
use vhost_user_wire::frontend::{FrontendMessage, FrontendRequest, GetFeatures};
use vhost_user_wire::{Connection, Header, Message, Payload, VERSION, WireError};

use super::channel_error::ChannelError;
use super::requests::BackendRequests;
use crate::deadline::Deadline;

/// The interval at which a caller that waits for long is told so.
const TURN: Duration = Duration::from_millis(500);

/// How long a backend that does not answer may itself wait for its driver to see a change of the
/// configuration space. Perhaps it answers only then.
const STANDOFF: Duration = Duration::from_millis(250);

/// The backend's activity while nothing was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    Quiet,
    Closed,
    /// It has sent something.
    Unsolicited,
}

/// A connection to a backend.
pub struct Channel {
    connection: Connection,
    /// The socket for the backend's own requests, where it has some.
    requests: Option<BackendRequests>,
    /// Whether VHOST_USER_PROTOCOL_F_REPLY_ACK is negotiated.
    acks: bool,
}

impl Channel {
    pub fn new(stream: UnixStream) -> Self {
        Self {
            connection: Connection::to_backend(stream),
            requests: None,
            acks: false,
        }
    }

    /// The process at the other end, if it is another one.
    pub fn peer(&self) -> Option<u32> {
        sockets::peer(self.connection.stream())
    }

    /// From now on the backend acknowledges messages that have no reply of their own.
    pub fn expect_acks(&mut self) {
        self.acks = true;
    }

    /// Whether a message told has been carried out when it returns.
    pub fn acks(&self) -> bool {
        self.acks
    }

    /// Serves the backend's own requests during every wait for the backend.
    pub fn serve_meanwhile(&mut self, requests: BackendRequests) {
        self.requests = Some(requests);
    }

    /// The backend's own requests, as long as they can be served.
    pub fn requests(&mut self) -> &mut Option<BackendRequests> {
        &mut self.requests
    }

    /// Sends a request and waits for its reply.
    pub fn ask<R: FrontendRequest>(
        &mut self,
        request: &R,
        deadline: &Deadline,
    ) -> Result<R::Reply, ChannelError> {
        self.begin(request, deadline)?;
        self.complete::<R>(deadline)
    }

    /// The same for a reply that may take long: `waits` is called now and then.
    pub fn ask_patiently<R: FrontendRequest>(
        &mut self,
        request: &R,
        deadline: &Deadline,
        mut waits: impl FnMut(),
    ) -> Result<R::Reply, ChannelError> {
        self.begin(request, deadline)?;
        while let Some(left) = deadline.left() {
            let turn = left.min(TURN);
            let answers = is_ready(&self.connection, PollFlags::IN, &mut self.requests, turn);
            if answers.map_err(|error| ChannelError::during(R::CODE, error.into()))? {
                break;
            }
            waits();
        }
        self.complete::<R>(deadline)
    }

    /// The first half of [`ask`](Self::ask): the channel becomes readable when
    /// the reply comes. Nothing else is said until it is complete.
    pub fn begin<R: FrontendRequest>(
        &mut self,
        request: &R,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.send(request, false, deadline)
    }

    /// The second half of [`ask`](Self::ask).
    pub fn complete<R: FrontendRequest>(
        &mut self,
        deadline: &Deadline,
    ) -> Result<R::Reply, ChannelError> {
        let (reply, _) = self.receive(R::CODE, deadline)?;
        Ok(reply)
    }

    /// Sends a request and waits for its reply and the file that comes with it.
    pub fn ask_for_file<R: FrontendRequest>(
        &mut self,
        request: &R,
        deadline: &Deadline,
    ) -> Result<(R::Reply, Option<File>), ChannelError> {
        self.begin(request, deadline)?;
        let (reply, message) = self.receive(R::CODE, deadline)?;
        Ok((reply, message.files.into_iter().next()))
    }

    /// Sends a message without a reply, and waits for the acknowledgement where
    /// that is negotiated.
    pub fn tell<M: FrontendMessage>(
        &mut self,
        message: &M,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        self.send(message, self.acks, deadline)?;
        if !self.acks {
            return Ok(());
        }
        match self.receive(M::CODE, deadline)? {
            (0, _) => Ok(()),
            (code, _) => Err(ChannelError::Refused {
                message: M::CODE,
                code,
            }),
        }
    }

    /// Makes sure that the backend talks.
    pub fn ping(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        self.ask(&GetFeatures, deadline).map(drop)
    }

    /// Makes sure that the backend has carried out all messages so far. Without
    /// acknowledgements, the answer to any request means that.
    pub fn settle(&mut self, deadline: &Deadline) -> Result<(), ChannelError> {
        if self.acks {
            return Ok(());
        }
        self.ping(deadline)
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

    /// The connection's activity while nothing was asked. Never blocks.
    pub fn idle(&mut self) -> Result<Idle, WireError> {
        match self.connection.header() {
            Ok(_) if self.connection.progress().has_begun() => Ok(Idle::Unsolicited),
            Ok(_) => Ok(Idle::Quiet),
            Err(error) if error.is_closed() => Ok(Idle::Closed),
            Err(error) => Err(error),
        }
    }

    fn send<M: FrontendMessage>(
        &mut self,
        message: &M,
        wants_ack: bool,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        let mut payload = Vec::new();
        message.encode(&mut payload);
        let header = Header::request(M::CODE, payload.len());
        let header = if wants_ack { header.with_ack() } else { header };
        let sent = self
            .connection
            .send(header, &payload, &message.files(), deadline);
        sent.map_err(|error| match ChannelError::during(M::CODE, error) {
            ChannelError::Closed { message, .. } => ChannelError::ClosedBefore { message },
            error => error,
        })
    }

    /// The reply to `message`, and all that came with it.
    fn receive<R: Payload>(
        &mut self,
        message: FrontendReq,
        deadline: &Deadline,
    ) -> Result<(R, Message), ChannelError> {
        let reply = loop {
            if let Some(reply) = self.receive_next(message, R::MAX_SIZE, deadline)? {
                break reply;
            }
        };
        let found = reply.payload.len();
        match reply.body() {
            Ok(body) => Ok((body, reply)),
            Err(_) => Err(ChannelError::ReplySize { message, found }),
        }
    }

    /// Waits for more of the reply to `message`; `None` when it is not there as a whole.
    fn receive_next(
        &mut self,
        message: FrontendReq,
        max_size: usize,
        deadline: &Deadline,
    ) -> Result<Option<Message>, ChannelError> {
        let failed = |error| ChannelError::during(message, error);
        let Some(left) = deadline.left() else {
            return Err(ChannelError::Late {
                message,
                waited: deadline.budget(),
                progress: self.connection.progress(),
            });
        };
        let answers = is_ready(&self.connection, PollFlags::IN, &mut self.requests, left);
        if !answers.map_err(|error| failed(error.into()))? {
            return Ok(None);
        }
        let Some(header) = self.connection.header().map_err(failed)? else {
            return Ok(None);
        };
        check_reply(&header, message, max_size)?;
        self.connection.try_receive().map_err(failed)
    }
}

/// Whether this may be the header of the reply to `message`, before its payload is read.
fn check_reply(header: &Header, message: FrontendReq, max_size: usize) -> Result<(), ChannelError> {
    let is_reply =
        header.request == u32::from(message) && header.version() == VERSION && header.is_reply();
    if !is_reply {
        return Err(ChannelError::NotTheReply {
            message,
            found: header.request,
            flags: header.flags,
        });
    }
    match header.size as usize {
        found if found > max_size => Err(ChannelError::ReplySize { message, found }),
        _ => Ok(()),
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.connection.as_raw_fd()
    }
}

/// Waits for `file`, or for a request of the backend's own, which is served: a backend that
/// waits for its answer first is not late. `false` when `file` is to be waited for again.
///
/// The answer to a change of the configuration space has to wait until the driver can read the
/// new one, which is after this wait: so for [`STANDOFF`] at most.
fn is_ready(
    file: &impl AsFd,
    events: PollFlags,
    requests: &mut Option<BackendRequests>,
    left: Duration,
) -> io::Result<bool> {
    let requests = requests.as_mut().filter(|requests| requests.is_open());
    let is_awaited = requests
        .as_ref()
        .is_some_and(|requests| requests.is_awaited());
    let wait = if is_awaited { left.min(STANDOFF) } else { left };
    let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
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
    match requests {
        Some(requests) if asked && !ready => requests.serve_meanwhile(),
        Some(requests) if is_awaited && !ready => requests.wait_no_longer(),
        _ => {}
    }
    Ok(ready)
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod tests;
