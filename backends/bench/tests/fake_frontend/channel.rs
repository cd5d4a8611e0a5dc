//! The frontend's end of the backend's channel.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost_user_wire::{Connection, Deadline, Payload};

use super::breaks::Break;

const CONFIG_CHANGE: u32 = 2;

pub struct Channel {
    connection: Connection,
    what: Break,
    acks: bool,
}

impl Channel {
    pub fn new(stream: UnixStream, what: Break, acks: bool) -> Self {
        Self {
            connection: Connection::to_backend(stream),
            what,
            acks,
        }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Answers what has come; whether the channel is still of use.
    pub fn serve(&mut self) -> bool {
        loop {
            let message = match self.connection.try_receive() {
                Ok(Some(message)) => message,
                Ok(None) => return true,
                Err(_) if self.what == Break::AbortsOnOddRequest => std::process::abort(),
                Err(_) => return false,
            };
            let header = message.header;
            let is_known = header.request == CONFIG_CHANGE && header.size == 0;
            if !is_known && self.what == Break::AbortsOnOddRequest {
                std::process::abort();
            }
            let wants = header.needs_reply() && self.acks || self.what == Break::AnswersAll;
            if !wants || !is_known && self.what == Break::IgnoresUnknown {
                continue;
            }
            let code = match self.what {
                Break::AnswersOne => 1u64,
                Break::AcceptsUnknown => 0,
                _ => u64::from(!is_known),
            };
            let deadline = Deadline::after(Duration::from_secs(5));
            let sent = self
                .connection
                .send(header.reply(8), &code.to_bytes(), &[], &deadline);
            if sent.is_err() {
                return false;
            }
        }
    }
}
