//! One direction of one socket.

use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::MutexGuard;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vhost_user_wire::{Connection, Deadline, HEADER_SIZE, Raw, WireError};

use crate::trace::decode::request_name;
use crate::trace::faults::{Action, Injector, Occurrence, ToldMemory};
use crate::trace::record::Side;
use crate::trace::recorder::ConnectionRecorder;

/// A message up to this length is passed on as a whole. No defined one is nearly as long; the
/// bytes of a longer one are passed on as they come.
const MOST: usize = 1 << 16;

/// The receiver has all the time it wants, as without the proxy: until one side hangs up.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

pub struct Relay<'a> {
    from: Connection,
    to: Connection,
    channel: Side,
    sender: Side,
    recorder: &'a ConnectionRecorder,
    injector: Option<&'a Injector>,
    /// What a fault has put behind the next message.
    held: Option<Raw>,
}

/// Which end of it failed, or has gone.
enum Error {
    Receiving(WireError),
    Sending(WireError),
    /// A fault has cut the connection.
    Cut,
}

/// How it ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// This side has gone.
    Closed(Side),
    Failed,
    Cut,
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::Receiving(error)
    }
}

/// Changes a message on its way.
pub type Edit<'a> = dyn FnMut(&mut Raw) -> io::Result<()> + 'a;

impl<'a> Relay<'a> {
    pub fn new(
        (from, to): (&UnixStream, &UnixStream),
        (channel, sender): (Side, Side),
        recorder: &'a ConnectionRecorder,
        injector: Option<&'a Injector>,
    ) -> io::Result<Self> {
        Ok(Self {
            from: Connection::to_either(from.try_clone()?),
            to: Connection::to_either(to.try_clone()?),
            channel,
            sender,
            recorder,
            injector,
            held: None,
        })
    }

    /// Passes on all that the sender sends, until one of both has gone, the socket fails or a
    /// fault cuts it.
    pub fn run(&mut self, edit: &mut Edit) -> End {
        let Err(error) = self.pass_all(edit);
        if matches!(error, Error::Cut) {
            return End::Cut;
        }
        if let Some(held) = self.held.take() {
            // If it cannot be sent, the receiver has gone too.
            let _ = self.send(&held);
        }
        let begun = self.from.take_received();
        if !begun.bytes.is_empty() {
            // If it cannot be sent, the receiver has gone too.
            let _ = self.pass(begun);
        }
        match error {
            Error::Receiving(error) if error.is_closed() => End::Closed(self.sender),
            Error::Sending(error) if error.is_closed() => End::Closed(self.sender.other()),
            Error::Receiving(_) | Error::Sending(_) => End::Failed,
            Error::Cut => End::Cut,
        }
    }

    fn pass_all(&mut self, edit: &mut Edit) -> Result<Infallible, Error> {
        loop {
            let Some(mut raw) = self.from.try_receive_raw(MOST)? else {
                self.wait()?;
                continue;
            };
            let size = raw.header().map_or(0, |header| header.size as usize);
            let rest = (HEADER_SIZE + size).saturating_sub(raw.bytes.len());
            self.record(&raw);
            // Only a message that is here as a whole can have a fault.
            let fault = (rest == 0).then(|| self.fault(&raw)).flatten();
            match fault {
                Some(Action::Drop) => continue,
                Some(Action::Cut) => return Err(Error::Cut),
                Some(Action::Fill) => return Err(self.leave_unread()?),
                _ => {}
            }
            edit(&mut raw).map_err(WireError::Socket)?;
            if fault == Some(Action::Reorder) && self.held.is_none() {
                self.held = Some(raw);
                continue;
            }
            self.deliver(raw, fault)?;
            self.pass_rest(rest)?;
            if let Some(held) = self.held.take() {
                self.send(&held)?;
            }
        }
    }

    fn fault(&self, raw: &Raw) -> Option<Action> {
        let name = request_name(self.channel, raw.header()?.request);
        let occurrence = Occurrence::Message {
            name: &name,
            from: self.sender,
            len: raw.bytes.len(),
        };
        self.injector?.next(&occurrence, self.recorder)
    }

    /// Sends a message with its fault.
    fn deliver(&self, mut raw: Raw, fault: Option<Action>) -> Result<(), Error> {
        match fault {
            Some(Action::Delay(time)) => self.pause(time)?,
            Some(Action::Truncate(Some(bytes))) => raw.bytes.truncate(bytes),
            Some(Action::Corrupt(Some(place))) => {
                if let Some(byte) = raw.bytes.get_mut(place) {
                    *byte = !*byte;
                }
            }
            _ => {}
        }
        self.send(&raw)?;
        match (fault, self.injector) {
            (Some(Action::Double), _) => self.send(&raw)?,
            (Some(Action::Shrink { region, bytes }), Some(injector)) => {
                injector.shrink(region, bytes);
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads nothing any more, until the sender hangs up.
    fn leave_unread(&self) -> Result<Error, WireError> {
        loop {
            let mut fds = [PollFd::new(&self.from, PollFlags::RDHUP)];
            match poll(&mut fds, None) {
                Ok(_) => return Ok(WireError::Closed(self.from.progress()).into()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(WireError::Socket(error.into())),
            }
        }
    }

    /// Waits for so long, or until the connection is over.
    fn pause(&self, time: Duration) -> Result<(), WireError> {
        let limit = Timespec::try_from(time).map_err(io::Error::other);
        let limit = limit.map_err(WireError::Socket)?;
        match poll(
            &mut [PollFd::new(&self.from, PollFlags::empty())],
            Some(&limit),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(WireError::Socket(error.into())),
        }
    }

    /// Passes on the bytes of a long message behind its header.
    fn pass_rest(&mut self, mut left: usize) -> Result<(), Error> {
        while left > 0 {
            match self.from.try_receive_some(left.min(MOST))? {
                Some(raw) => {
                    left -= raw.bytes.len();
                    self.pass(raw)?;
                }
                None => self.wait()?,
            }
        }
        Ok(())
    }

    fn pass(&self, raw: Raw) -> Result<(), Error> {
        self.record(&raw);
        self.send(&raw)
    }

    /// Before it is sent, so that the answer comes behind it in the trace.
    fn record(&self, raw: &Raw) {
        let Raw { bytes, files } = raw;
        self.recorder.sent(self.channel, self.sender, bytes, files);
    }

    fn send(&self, raw: &Raw) -> Result<(), Error> {
        let files: Vec<_> = raw.files.iter().map(AsFd::as_fd).collect();
        let deadline = Deadline::after(FOR_EVER);
        let _turn = self.turn(raw).map_err(WireError::Socket)?;
        let sent = self.to.send_bytes(&raw.bytes, &files, &deadline);
        sent.map_err(Error::Sending)
    }

    /// Nobody else sends to the backend while it lasts.
    fn turn(&self, raw: &Raw) -> io::Result<Option<MutexGuard<'_, ToldMemory>>> {
        let is_to_backend = (self.channel, self.sender) == (Side::Frontend, Side::Frontend);
        let injector = self.injector.filter(|_| is_to_backend);
        let turn = injector.map(|injector| injector.turn(raw)).transpose();
        Ok(turn?.flatten())
    }

    fn wait(&self) -> Result<(), WireError> {
        match poll(&mut [PollFd::new(&self.from, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(WireError::Socket(error.into())),
        }
    }

    /// Lets the receiver know that the sender has gone, as it would without the proxy. A sender
    /// that has closed its socket does not read either; one that has only shut down its
    /// own direction does.
    pub fn hang_up(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.from, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default()))?;
        let has_closed = fds[0].revents().contains(PollFlags::HUP);
        let how = if has_closed {
            Shutdown::Both
        } else {
            Shutdown::Write
        };
        self.to.stream().shutdown(how)?;
        // A receiver that has gone takes nothing more.
        self.from.stream().shutdown(Shutdown::Read)
    }
}
