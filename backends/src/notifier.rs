//! Telling the frontend that the configuration space has changed.
//!
//! vhost-user document, "Back-end message types", VHOST_USER_BACKEND_CONFIG_CHANGE_MSG. The
//! channel of the `vhost` crate has no such message.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use vhost::vhost_user::message::BackendReq;

use crate::ratelimit::RateLimit;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// Flags of a message that no answer is wanted for: protocol version 1 and nothing else.
const FLAGS: u32 = 1;

/// Reaches the frontend of the moment, if there is one that listens.
#[derive(Debug, Clone, Default)]
pub struct ConfigNotifier {
    channel: Arc<Mutex<Option<UnixStream>>>,
}

impl ConfigNotifier {
    /// Tells the frontend. One that is not there will read the configuration space anyway.
    pub fn notify(&self) {
        if let Some(stream) = &mut *self.lock()
            && let Err(error) = send(stream)
        {
            warn_limited!(LOG, %error, "the frontend was not told of a changed configuration");
        }
    }

    /// The channel that the frontend has set up, or the end of it.
    pub(crate) fn set_channel(&self, channel: Option<UnixStream>) {
        *self.lock() = channel;
    }

    fn lock(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.channel.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn send(stream: &mut UnixStream) -> io::Result<()> {
    let mut message = [0; 12];
    message[..4].copy_from_slice(&u32::from(BackendReq::CONFIG_CHANGE_MSG).to_ne_bytes());
    message[4..8].copy_from_slice(&FLAGS.to_ne_bytes());
    stream.write_all(&message)
}
