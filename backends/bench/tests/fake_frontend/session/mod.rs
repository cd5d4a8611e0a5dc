//! One connection of the small frontend.

mod features;
mod in_flight;
mod memory;
mod negotiation;
mod ring;
mod setup;
mod work;

use std::fs::File;
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::Payload;

use self::features::{EVENT_IDX, PACKED};
use super::breaks::Break;
use super::channel::Channel;
use super::guest::Guest;
use super::link::{Done, Link};

/// What outlives a connection.
#[derive(Default)]
pub struct Kept {
    guest: Option<Guest>,
    inflight: Option<(VhostUserInflight, File)>,
    connections: usize,
}

pub struct Session<'a> {
    link: Link,
    what: Break,
    kept: &'a mut Kept,
    offered: u64,
    features: u64,
    protocol: u64,
    channel: Option<Channel>,
}

impl<'a> Session<'a> {
    pub fn new(stream: UnixStream, what: Break, kept: &'a mut Kept) -> Self {
        kept.connections += 1;
        Self {
            link: Link::new(stream, what),
            what,
            kept,
            offered: 0,
            features: 0,
            protocol: 0,
            channel: None,
        }
    }

    fn is(&self, what: Break) -> bool {
        self.what == what
    }

    fn is_again(&self) -> bool {
        self.kept.connections > 1
    }

    pub fn run(mut self) -> Done {
        self.negotiate()?;
        let event_idx = self.features & EVENT_IDX != 0;
        let mut guest = match self.kept.guest.take() {
            Some(guest) => guest,
            None => Guest::new(self.what, event_idx, self.features & PACKED != 0),
        };
        let done = self.set_up(&mut guest).and_then(|()| self.work(&mut guest));
        self.kept.guest = Some(guest);
        done
    }

    fn set_features(&mut self, features: u64) -> Done {
        self.link.tell(2, &features.to_bytes(), &[])
    }

    fn set_status(&mut self, status: u64) -> Done {
        self.link.tell(39, &status.to_bytes(), &[])
    }
}
