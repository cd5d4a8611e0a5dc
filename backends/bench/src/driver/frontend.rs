//! The end of a frontend: messages, their replies, and a log of both.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost_user_wire::frontend::{FrontendMessage, FrontendRequest, GetFeatures};
use vhost_user_wire::name;
use vhost_user_wire::{Connection, Deadline, Header, Message, WireError};

use super::error::DriverError;
use super::log::MessageLog;
use super::patience::{Awaited, Patience};
use super::wait::DEADLINE;

/// What came back for a message that need not have an answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An acknowledgement: 0 is success.
    Acked(u64),
    /// A reply that is no number.
    Other,
    /// The backend hung up.
    Closed,
    /// Nothing came, and the connection is still open.
    Silent,
}

impl Answer {
    /// Whether the backend said, or showed by hanging up, that it did not do it.
    pub fn is_refusal(self) -> bool {
        !matches!(self, Self::Acked(0) | Self::Silent)
    }
}

/// A connection to a backend.
#[derive(Debug)]
pub struct Frontend {
    connection: Connection,
    log: MessageLog,
    patience: Patience,
    /// REPLY_ACK is negotiated.
    acks: bool,
}

impl Frontend {
    pub fn new(stream: UnixStream) -> Self {
        Self::with_log(stream, MessageLog::default())
    }

    /// Writes to `log` what is sent and received.
    pub fn with_log(stream: UnixStream, log: MessageLog) -> Self {
        log.event("connected");
        Self {
            connection: Connection::to_backend(stream),
            log,
            patience: Patience::default(),
            acks: false,
        }
    }

    /// Shares its patience with others.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    pub fn log(&self) -> &MessageLog {
        &self.log
    }

    pub fn stream(&self) -> &UnixStream {
        self.connection.stream()
    }

    /// Whether messages are acknowledged that have no reply of their own.
    pub fn has_acks(&self) -> bool {
        self.acks
    }

    /// REPLY_ACK has been negotiated, or has not.
    pub fn set_acks(&mut self, acks: bool) {
        self.acks = acks;
    }

    /// Sends a message and waits for nothing.
    pub fn send<M: FrontendMessage>(&mut self, message: &M) -> Result<(), DriverError> {
        let payload = payload(message);
        let header = Header::request(M::CODE, payload.len());
        self.send_message(header, &payload, &message.files())
    }

    /// Sends a request and waits for its reply.
    pub fn request<M: FrontendRequest>(&mut self, message: &M) -> Result<M::Reply, DriverError> {
        Ok(self.request_with_files(message)?.0)
    }

    /// The same for a reply that may come with files.
    pub fn request_with_files<M: FrontendRequest>(
        &mut self,
        message: &M,
    ) -> Result<(M::Reply, Vec<File>), DriverError> {
        self.send(message)?;
        let reply = self.reply_to(M::CODE.into())?;
        let body = reply.body().map_err(|source| DriverError::Payload {
            name: name::frontend(M::CODE),
            source,
        })?;
        Ok((body, reply.files))
    }

    /// Sends a message and makes sure that the backend has dealt with it: by its acknowledgement,
    /// or, without REPLY_ACK, by the reply to a request behind it.
    pub fn execute<M: FrontendMessage>(&mut self, message: &M) -> Result<(), DriverError> {
        if !self.acks {
            self.send(message)?;
            self.request(&GetFeatures)?;
            return Ok(());
        }
        match self.acknowledge(message)? {
            0 => Ok(()),
            code => Err(DriverError::Refused {
                name: name::frontend(M::CODE),
                code,
            }),
        }
    }

    /// Sends a message that wants an acknowledgement, and returns that.
    pub fn acknowledge<M: FrontendMessage>(&mut self, message: &M) -> Result<u64, DriverError> {
        let payload = payload(message);
        let header = Header::request(M::CODE, payload.len()).with_ack();
        self.send_message(header, &payload, &message.files())?;
        let reply = self.reply_to(M::CODE.into())?;
        reply.body().map_err(|source| DriverError::Payload {
            name: name::frontend(M::CODE),
            source,
        })
    }

    /// The next message, which has to be the reply to request `code`.
    pub fn reply_to(&mut self, code: u32) -> Result<Message, DriverError> {
        let message = self.receive()?;
        let header = message.header;
        if header.request == code && header.is_reply() {
            return Ok(message);
        }
        let reply = if header.is_reply() { "reply to " } else { "" };
        Err(DriverError::Unexpected {
            name: name::frontend(code),
            got: format!("{reply}{}", name::frontend(header.request)),
        })
    }

    pub fn receive(&mut self) -> Result<Message, DriverError> {
        let limit = self.patience.limit(Awaited::Message, DEADLINE);
        self.receive_within(limit).inspect_err(|error| {
            if let DriverError::Wire(WireError::Late { .. }) = error {
                self.patience.ran_out(Awaited::Message);
            }
        })
    }

    pub fn receive_within(&mut self, time: Duration) -> Result<Message, DriverError> {
        match self.connection.receive(&Deadline::after(time)) {
            Ok(message) => {
                self.log.received(&message);
                Ok(message)
            }
            Err(error) => {
                self.log.event(error.to_string());
                Err(error.into())
            }
        }
    }

    /// Sends a header as it is, and what belongs to it or not.
    pub fn send_message(
        &mut self,
        header: Header,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), DriverError> {
        self.log.sent(header, payload, files.len());
        let deadline = self.sending();
        let sent = self.connection.send(header, payload, files, &deadline);
        self.note_sent(sent)
    }

    /// Sends any bytes. The files go with the first of them.
    pub fn send_bytes(
        &mut self,
        bytes: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), DriverError> {
        self.log.sent_bytes(bytes, files.len());
        let deadline = self.sending();
        let sent = self.connection.send_bytes(bytes, files, &deadline);
        self.note_sent(sent)
    }

    /// By when a message has to be taken.
    fn sending(&self) -> Deadline {
        Deadline::after(self.patience.limit(Awaited::Message, DEADLINE))
    }

    fn note_sent(&self, sent: Result<(), WireError>) -> Result<(), DriverError> {
        if let Err(WireError::Stuck { .. }) = sent {
            self.patience.ran_out(Awaited::Message);
        }
        Ok(sent?)
    }

    /// Sends any message with NEED_REPLY, and says what became of it.
    pub fn try_message(
        &mut self,
        code: u32,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Answer, DriverError> {
        let header = Header::request(code, payload.len()).with_ack();
        match self.send_message(header, payload, files) {
            Err(error) if error.is_closed() => return Ok(Answer::Closed),
            sent => sent?,
        }
        self.answer()
    }

    /// What comes next, whether it is an answer or not.
    pub fn answer(&mut self) -> Result<Answer, DriverError> {
        match self.receive() {
            Ok(reply) if reply.payload.len() == size_of::<u64>() => {
                Ok(reply.body::<u64>().map_or(Answer::Other, Answer::Acked))
            }
            Ok(_) => Ok(Answer::Other),
            Err(DriverError::Wire(WireError::Late { .. })) => Ok(Answer::Silent),
            Err(error) if error.is_closed() => Ok(Answer::Closed),
            Err(error) => Err(error),
        }
    }

    /// Whether the backend answers, or has hung up: not that it keeps silent.
    pub fn is_there_or_gone(&mut self) -> bool {
        match self.request(&GetFeatures) {
            Ok(_) => true,
            Err(error) => error.is_closed(),
        }
    }

    /// Whether the backend still answers.
    pub fn is_served(&mut self) -> bool {
        self.request(&GetFeatures).is_ok()
    }
}

fn payload<M: FrontendMessage>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}
