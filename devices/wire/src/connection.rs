//! One end of a vhost-user socket.
//!
//! No call blocks for longer than its deadline, whatever the peer does, and none changes the
//! socket's own mode: the peer of a descriptor that is handed on may share it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::deadline::Deadline;
use crate::error::WireError;
use crate::header::{HEADER_SIZE, Header, VERSION};
use crate::limits::{BACKEND_FILES, FRONTEND_FILES, MAX_PAYLOAD};
use crate::message::{Message, Raw};
use crate::progress::{HEADER, PAYLOAD, Progress};

/// A connected socket, and the received part of the next message.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// The most files that a message may have.
    most_files: usize,
    /// Header and payload, as far as they have come.
    received: Vec<u8>,
    files: Vec<File>,
}

impl Connection {
    /// The end of a frontend.
    pub fn to_backend(stream: UnixStream) -> Self {
        Self::new(stream, BACKEND_FILES)
    }

    /// The end of a backend.
    pub fn to_frontend(stream: UnixStream) -> Self {
        Self::new(stream, FRONTEND_FILES)
    }

    /// An end of somebody in between, who passes on what either side sends.
    pub fn to_either(stream: UnixStream) -> Self {
        Self::new(stream, FRONTEND_FILES)
    }

    fn new(stream: UnixStream, most_files: usize) -> Self {
        Self {
            stream,
            most_files,
            received: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The socket, to wait on or to shut down.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// How much of the next message has come.
    pub fn progress(&self) -> Progress {
        let (part, begin, expected) = match self.whole_header() {
            Some(header) => (PAYLOAD, HEADER_SIZE, header.size as usize),
            None => (HEADER, 0, HEADER_SIZE),
        };
        Progress {
            part,
            received: self.received.len() - begin,
            expected,
        }
    }

    /// The header of the next message, once it has come. Never waits. It is not checked: the
    /// caller may do that before [`try_receive`](Self::try_receive) makes room for the payload.
    pub fn header(&mut self) -> Result<Option<Header>, WireError> {
        self.fill(HEADER_SIZE)?;
        Ok(self.whole_header())
    }

    /// The next message, once it has come as a whole. Never waits.
    pub fn try_receive(&mut self) -> Result<Option<Message>, WireError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        if header.version() != VERSION {
            return Err(WireError::Version(header.version()));
        }
        let size = header.size as usize;
        if size > MAX_PAYLOAD {
            let most = MAX_PAYLOAD;
            return Err(WireError::Oversized { size, most });
        }
        if !self.fill(HEADER_SIZE + size)? {
            return Ok(None);
        }
        let payload = self.received.split_off(HEADER_SIZE);
        self.received.clear();
        Ok(Some(Message {
            header,
            payload,
            files: std::mem::take(&mut self.files),
        }))
    }

    /// The next message as it is, once it has come as a whole: no header is refused. Of a message
    /// longer than `most` bytes it is the header alone; [`try_receive_some`](Self::try_receive_some)
    /// gives what follows. Never waits.
    pub fn try_receive_raw(&mut self, most: usize) -> Result<Option<Raw>, WireError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let len = HEADER_SIZE + header.size as usize;
        if len <= most && !self.fill(len)? {
            return Ok(None);
        }
        Ok(Some(self.take_received()))
    }

    /// Bytes as they come, at most `most`, and the files that come with them. Never waits.
    pub fn try_receive_some(&mut self, most: usize) -> Result<Option<Raw>, WireError> {
        let is_some = self.read_up_to(most)?.is_some();
        Ok(is_some.then(|| self.take_received()))
    }

    /// What has come of the next message: all that there will be of it at the end.
    pub fn take_received(&mut self) -> Raw {
        Raw {
            bytes: std::mem::take(&mut self.received),
            files: std::mem::take(&mut self.files),
        }
    }

    /// Waits for the next message.
    pub fn receive(&mut self, deadline: &Deadline) -> Result<Message, WireError> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
            if !self.wait(PollFlags::IN, deadline)? {
                return Err(WireError::Late {
                    waited: deadline.budget(),
                    progress: self.progress(),
                });
            }
        }
    }

    fn whole_header(&self) -> Option<Header> {
        self.received.first_chunk().copied().map(Header::from_bytes)
    }

    /// Reads until `len` bytes of the message are there; `false` when they have not come yet.
    fn fill(&mut self, len: usize) -> Result<bool, WireError> {
        while self.received.len() < len {
            if self.read_up_to(len)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads once, so that there are at most `len` bytes of the message; `None` when no more have
    /// come yet.
    fn read_up_to(&mut self, len: usize) -> Result<Option<()>, WireError> {
        let begin = self.received.len();
        self.received.resize(len, 0);
        let read = self.read(begin);
        let count = read.as_ref().map_or(0, |count| count.unwrap_or(0));
        self.received.truncate(begin + count);
        match read? {
            None => Ok(None),
            Some(0) => Err(WireError::Closed(self.progress())),
            Some(_) => Ok(Some(())),
        }
    }

    /// Reads into `received` from `begin` on, and takes the files that come along, which programs
    /// that this process starts do not get. `None` when nothing has come, 0 at the end.
    fn read(&mut self, begin: usize) -> Result<Option<usize>, WireError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FRONTEND_FILES))];
        let room = cmsg_space!(ScmRights(self.most_files));
        let mut control = RecvAncillaryBuffer::new(&mut space[..room]);
        let mut bytes = [IoSliceMut::new(&mut self.received[begin..])];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let read = match recvmsg(&self.stream, &mut bytes, &mut control, flags) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            // The peer has gone and left messages unread.
            Err(Errno::CONNRESET) => return Ok(Some(0)),
            Err(error) => return Err(WireError::Socket(error.into())),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files.map(File::from));
            }
        }
        // The kernel closes files that there is no room for. It pads the room, so that a few
        // files more may have come.
        if read.flags.contains(ReturnFlags::CTRUNC) || self.files.len() > self.most_files {
            self.files.clear();
            let most = self.most_files;
            return Err(WireError::Descriptors { most });
        }
        Ok(Some(read.bytes))
    }

    /// Sends a message. The header goes out as it is.
    pub fn send(
        &self,
        header: Header,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
        deadline: &Deadline,
    ) -> Result<(), WireError> {
        let bytes = [&header.to_bytes()[..], payload].concat();
        self.send_bytes(&bytes, files, deadline)
    }

    /// Sends any bytes. The files go with the first of them.
    pub fn send_bytes(
        &self,
        mut bytes: &[u8],
        mut files: &[BorrowedFd<'_>],
        deadline: &Deadline,
    ) -> Result<(), WireError> {
        while !bytes.is_empty() {
            if deadline.left().is_none() {
                let waited = deadline.budget();
                return Err(WireError::Stuck { waited });
            }
            // The socket may take something long before it is ready by poll's rules.
            match self.write(bytes, files)? {
                Some(sent) => {
                    bytes = &bytes[sent..];
                    files = &[];
                }
                None => _ = self.wait(PollFlags::OUT, deadline)?,
            }
        }
        Ok(())
    }

    /// Sends a message if the socket takes all of it at once. After an error some of it may have
    /// been sent, and the connection is of no more use.
    pub fn send_now(&self, header: Header, payload: &[u8]) -> Result<(), WireError> {
        let bytes = [&header.to_bytes()[..], payload].concat();
        match self.write(&bytes, &[])? {
            Some(sent) if sent == bytes.len() => Ok(()),
            _ => Err(WireError::Socket(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// `None` when the socket takes nothing now.
    fn write(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Result<Option<usize>, WireError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FRONTEND_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            let most = FRONTEND_FILES;
            let text = format!("a message cannot have more than {most} file descriptors");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(sent) => Ok(Some(sent)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(WireError::Closed(self.progress())),
            Err(error) => Err(WireError::Socket(error.into())),
        }
    }

    /// Waits until the socket is ready; `false` when the deadline is over.
    fn wait(&self, events: PollFlags, deadline: &Deadline) -> Result<bool, WireError> {
        while let Some(left) = deadline.left() {
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.stream, events)], Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(WireError::Socket(error.into())),
            }
        }
        Ok(false)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Readable when the peer has sent something or has gone.
impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
