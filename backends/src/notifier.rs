//! Telling the frontend that the configuration space has changed.
//!
//! vhost-user document, "Back-end message types", VHOST_USER_BACKEND_CONFIG_CHANGE_MSG. The
//! channel of the `vhost` crate has no such message.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use vhost::vhost_user::message::BackendReq;
use vhost_user_wire::{Connection, Deadline, Header, WireError};

use crate::patience::PUBLISH_DEADLINE;
use crate::ratelimit::RateLimit;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// Reaches the frontend of the moment, if there is one that listens.
#[derive(Debug, Clone, Default)]
pub struct ConfigNotifier {
    channel: Arc<Mutex<Option<Arc<Channel>>>>,
}

/// The socket for the backend's own requests.
#[derive(Debug)]
struct Channel {
    /// Held while an answer is waited for: nobody else reads any.
    connection: Mutex<Answers>,
    /// Whether the frontend acknowledges a request that asks for it.
    acks: bool,
}

/// The connection, and the answers that are still to come on it.
#[derive(Debug)]
struct Answers {
    connection: Connection,
    outstanding: u32,
}

impl ConfigNotifier {
    /// Tells the frontend. One that is not there will read the configuration space anyway.
    pub fn notify(&self) {
        if let Some(channel) = self.channel() {
            report(channel.lock().tell(false));
        }
    }

    /// Tells the frontend, and waits until the driver can read the new configuration: for
    /// [`PUBLISH_DEADLINE`] at most, and only where the frontend says when that is.
    pub fn publish(&self) {
        if let Some(channel) = self.channel() {
            let mut answers = channel.lock();
            let told = answers.tell(channel.acks);
            report(told.and_then(|()| answers.wait(&Deadline::after(PUBLISH_DEADLINE))));
        }
    }

    /// The channel that the frontend has set up, or the end of it. With `acks` it acknowledges
    /// requests, and no one else waits for answers on the channel.
    pub(crate) fn set_channel(&self, channel: Option<UnixStream>, acks: bool) {
        let channel = channel.map(|stream| {
            let answers = Answers {
                connection: Connection::to_frontend(stream),
                outstanding: 0,
            };
            let connection = Mutex::new(answers);
            Arc::new(Channel { connection, acks })
        });
        *self.lock() = channel;
    }

    fn channel(&self) -> Option<Arc<Channel>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Channel>>> {
        self.channel.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.connection.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Answers {
    fn tell(&mut self, wants_ack: bool) -> Result<(), WireError> {
        let header = Header::request(BackendReq::CONFIG_CHANGE_MSG, 0);
        if !wants_ack {
            return self.tell_now(header);
        }
        let deadline = Deadline::after(PUBLISH_DEADLINE);
        self.connection
            .send(header.with_ack(), &[], &[], &deadline)?;
        self.outstanding += 1;
        Ok(())
    }

    /// Waits for nobody: a queue's worker may call this. A socket that has no room is full of
    /// messages that say the same, and none of them has been read.
    fn tell_now(&self, header: Header) -> Result<(), WireError> {
        match self.connection.send_now(header, &[]) {
            Err(WireError::Socket(error)) if error.kind() == ErrorKind::WouldBlock => {
                tracing::debug!("the frontend has not read the changes before this one");
                Ok(())
            }
            sent => sent,
        }
    }

    /// Waits for all answers, also those that did not come in time before.
    fn wait(&mut self, deadline: &Deadline) -> Result<(), WireError> {
        while self.outstanding > 0 {
            self.connection.receive(deadline)?;
            self.outstanding -= 1;
        }
        Ok(())
    }
}

fn report(told: Result<(), WireError>) {
    if let Err(error) = told {
        let error: &dyn std::error::Error = &error;
        warn_limited!(
            LOG,
            error,
            "the frontend was not told of a changed configuration, or has not said that it is \
             published"
        );
    }
}

#[cfg(test)]
#[path = "notifier_test.rs"]
mod tests;
