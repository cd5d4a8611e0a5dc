//! The record of requests in flight, which the next connection has too.

use std::os::fd::AsFd;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::Payload;

use super::super::breaks::Break;
use super::super::link::{Done, Gone};
use super::Session;
use super::features::INFLIGHT;

impl Session<'_> {
    pub(super) fn hand_over_inflight(&mut self) -> Done {
        if self.protocol & INFLIGHT == 0 || self.is(Break::InflightLate) && !self.is_again() {
            return Ok(());
        }
        if self.kept.inflight.is_none() || self.is(Break::OtherInflight) {
            let request = VhostUserInflight::new(0, 0, 1, 64);
            let mut reply = self.link.ask(31, &request.to_bytes())?;
            let record = self.link.whole::<VhostUserInflight>(&reply)?;
            let file = reply
                .take_file()
                .map_err(|error| Gone::Wrong(error.to_string()))?;
            self.kept.inflight = Some((record, file));
        }
        if self.is(Break::InflightForgotten) {
            return Ok(());
        }
        self.set_inflight()
    }

    fn set_inflight(&mut self) -> Done {
        let Some((record, file)) = &self.kept.inflight else {
            return Ok(());
        };
        let mut record = *record;
        match self.what {
            Break::InflightOther => record.mmap_size += 4096,
            Break::InflightSmall => record.queue_size = 32,
            _ => {}
        }
        self.link.tell(32, &record.to_bytes(), &[file.as_fd()])
    }

    pub(super) fn hand_over_late(&mut self) -> Done {
        let request = VhostUserInflight::new(0, 0, 1, 64);
        let mut reply = self.link.ask(31, &request.to_bytes())?;
        let record = self.link.whole::<VhostUserInflight>(&reply)?;
        let file = reply
            .take_file()
            .map_err(|error| Gone::Wrong(error.to_string()))?;
        self.kept.inflight = Some((record, file));
        self.set_inflight()
    }
}
