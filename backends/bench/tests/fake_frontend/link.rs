//! Messages of the small frontend, and the replies to them.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost_user_wire::{Connection, Deadline, Header, Message, Payload};

use super::breaks::Break;

/// The connection is of no more use.
#[derive(Debug)]
pub enum Gone {
    /// The backend hung up.
    Closed,
    /// Its reply was wrong, or it refused.
    Wrong(String),
}

pub type Done<T = ()> = Result<T, Gone>;

/// One end of a connection.
pub struct Link {
    connection: Connection,
    what: Break,
    /// REPLY_ACK is negotiated.
    pub acks: bool,
}

const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const PATIENCE: Duration = Duration::from_secs(60);

impl Link {
    pub fn new(stream: UnixStream, what: Break) -> Self {
        Self {
            connection: Connection::to_backend(stream),
            what,
            acks: false,
        }
    }

    pub fn what(&self) -> Break {
        self.what
    }

    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn header(&self, code: u32, size: usize) -> Header {
        let mut header = Header::request(code, size);
        match self.what {
            Break::Version2 => header.flags = 2,
            Break::ReplyFlag => header.flags |= 4,
            Break::ReservedFlag => header.flags |= 0x100,
            _ => {}
        }
        header
    }

    pub fn send(&mut self, header: Header, payload: &[u8], files: &[BorrowedFd]) -> Done {
        let deadline = Deadline::after(PATIENCE);
        self.connection
            .send(header, payload, files, &deadline)
            .map_err(|_| Gone::Closed)
    }

    /// Sends a message that has no reply, and waits for its acknowledgement if there are such.
    pub fn tell(&mut self, code: u32, payload: &[u8], files: &[BorrowedFd]) -> Done {
        let mut header = self.header(code, payload.len());
        if !self.acks && self.what != Break::AsksForAcks {
            return self.send(header, payload, files);
        }
        header = header.with_ack();
        self.send(header, payload, files)?;
        if !self.acks {
            return Ok(());
        }
        let ack = self.reply(code)?;
        let number = self.whole::<u64>(&ack)?;
        if number != 0 && !self.what.ignores_refusals() {
            return Err(Gone::Wrong(format!("request {code} was refused")));
        }
        Ok(())
    }

    /// Sends a request, and waits for its reply.
    pub fn ask(&mut self, code: u32, payload: &[u8]) -> Done<Message> {
        self.ask_with(code, payload, &[])
    }

    pub fn ask_with(&mut self, code: u32, payload: &[u8], files: &[BorrowedFd]) -> Done<Message> {
        let header = self.header(code, payload.len());
        self.send(header, payload, files)?;
        self.reply(code)
    }

    pub fn number(&mut self, code: u32) -> Done<u64> {
        let message = self.ask(code, &[])?;
        self.whole(&message)
    }

    /// A payload that is neither shorter nor longer.
    pub fn whole<T: Payload>(&self, message: &Message) -> Done<T> {
        let len = message.payload.len();
        if len > T::MAX_SIZE && self.what != Break::TrustsLength {
            return Err(Gone::Wrong(format!("a reply of {len} bytes")));
        }
        let mut payload = message.payload.clone();
        if self.what == Break::TrustsShort {
            payload.resize(T::MAX_SIZE, 0xff);
        }
        T::decode(&payload).map_err(|error| Gone::Wrong(error.to_string()))
    }

    fn reply(&mut self, code: u32) -> Done<Message> {
        let patience = match self.what {
            Break::Impatient => Duration::from_millis(500),
            _ => PATIENCE,
        };
        let is_deaf =
            self.what == Break::DeafWhileItWaits && [GET_FEATURES, GET_VRING_BASE].contains(&code);
        if is_deaf {
            ignore_sigterm(true);
        }
        let received = match self.what {
            Break::TrustsVersion | Break::WaitsForAll if code == GET_FEATURES => self.receive_raw(),
            _ => self.connection.receive(&Deadline::after(patience)),
        };
        if is_deaf {
            ignore_sigterm(false);
        }
        let message = received.map_err(|error| match error.is_closed() {
            true => Gone::Closed,
            false => Gone::Wrong(error.to_string()),
        })?;
        let header = message.header;
        let is_reply = header.is_reply() || self.what == Break::TrustsFlag;
        let is_it = header.request == code || self.what == Break::TrustsRequest;
        if is_reply && is_it {
            return Ok(message);
        }
        Err(Gone::Wrong(format!("{header:?} is no reply to {code}")))
    }

    /// A message whose header is not looked at, however long it says that it is.
    fn receive_raw(&mut self) -> Result<Message, vhost_user_wire::WireError> {
        let (mut header, mut payload) = ([0u8; 12], Vec::new());
        let stream = self.connection.stream();
        let closed = |_| std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let read = |bytes: &mut [u8]| -> std::io::Result<()> {
            use std::io::Read;
            let mut stream: &UnixStream = stream;
            stream.read_exact(bytes)
        };
        read(&mut header).map_err(closed)?;
        let header = Header::from_bytes(header);
        let rest = if self.what == Break::WaitsForAll {
            header.size as usize
        } else {
            (header.size as usize).min(4096)
        };
        for _ in 0..rest {
            let mut byte = [0];
            read(&mut byte).map_err(closed)?;
            payload.push(byte[0]);
        }
        Ok(Message {
            header,
            payload,
            files: Vec::new(),
        })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

pub fn ignore_sigterm(on: bool) {
    let action = if on { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: the disposition is a constant, and no handler of this process runs.
    unsafe { libc::signal(libc::SIGTERM, action) };
}
