//! Telling the frontend that the configuration space has changed.
//!
//! vhost-user document, "Back-end message types", VHOST_USER_BACKEND_CONFIG_CHANGE_MSG. The
//! channel of the `vhost` crate has no such message.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use vhost::vhost_user::message::BackendReq;
use vhost_user_wire::{Connection, Deadline, Header};

use crate::patience::IO_DEADLINE;
use crate::ratelimit::RateLimit;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// Reaches the frontend of the moment, if there is one that listens.
#[derive(Debug, Clone, Default)]
pub struct ConfigNotifier {
    channel: Arc<Mutex<Option<Connection>>>,
}

impl ConfigNotifier {
    /// Tells the frontend. One that is not there will read the configuration space anyway.
    pub fn notify(&self) {
        // No answer is wanted.
        let header = Header::request(BackendReq::CONFIG_CHANGE_MSG, 0);
        let deadline = Deadline::after(IO_DEADLINE);
        if let Some(channel) = &*self.lock()
            && let Err(error) = channel.send(header, &[], &[], &deadline)
        {
            let error: &dyn std::error::Error = &error;
            warn_limited!(
                LOG,
                error,
                "the frontend was not told of a changed configuration"
            );
        }
    }

    /// The channel that the frontend has set up, or the end of it.
    pub(crate) fn set_channel(&self, channel: Option<UnixStream>) {
        *self.lock() = channel.map(Connection::to_frontend);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.channel.lock().unwrap_or_else(|e| e.into_inner())
    }
}
