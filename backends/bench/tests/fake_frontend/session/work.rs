//! What a frontend does with a device that runs.

use rustix::event::{PollFd, PollFlags, poll};
use vhost_user_wire::Header;

use super::super::breaks::Break;
use super::super::guest::Guest;
use super::super::link::{Done, Gone, ignore_sigterm};
use super::super::migration;
use super::Session;
use super::features::{BIT_30, EVENT_IDX, INDIRECT, LOG_ALL, LOG_SHMFD, VERSION_1};

impl Session<'_> {
    /// Makes requests, and changes things meanwhile.
    pub(super) fn work(&mut self, guest: &mut Guest) -> Done {
        let quick = !self.is(Break::NoKickAfterStart);
        // It is asked to end while it still waits for its requests.
        let is_stubborn = self.is(Break::HangsOnSilence) || self.is(Break::AbortsOnBadRing);
        if is_stubborn {
            ignore_sigterm(true);
        }
        if quick && !guest.run(3) && self.is(Break::AbortsOnBadRing) {
            std::process::abort();
        }
        if is_stubborn {
            ignore_sigterm(false);
        }
        if self.is(Break::FeaturesWhileRunning) || self.is(Break::FeaturesAfterOk) {
            self.set_features(self.features | BIT_30 | EVENT_IDX | VERSION_1 | INDIRECT)?;
        }
        if self.is(Break::SizeWhileRunning) {
            self.vring(8, 0, 32)?;
        }
        if self.is(Break::StartsTwice) {
            self.set_events(guest)?;
        }
        if self.is(Break::AbortsInUse) {
            std::process::abort();
        }
        if self.protocol & LOG_SHMFD != 0 && self.offered & LOG_ALL != 0 {
            migration::log_writes(&mut self.link, guest, self.features)?;
        }
        self.restart(guest)?;
        self.change_memory(guest)?;
        if let Break::Sends(code) = self.what {
            self.link.send(Header::request(code, 0), &[], &[])?;
        }
        self.idle()
    }

    /// Serves the channel until the backend leaves.
    fn idle(&mut self) -> Done {
        loop {
            let mut fds = vec![PollFd::new(&self.link, PollFlags::IN)];
            if let Some(channel) = &self.channel {
                fds.push(PollFd::new(channel.connection(), PollFlags::IN));
            }
            poll(&mut fds, None).map_err(|_| Gone::Closed)?;
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] && self.link.connection().try_receive().is_err() {
                return Err(Gone::Closed);
            }
            let is_spoken = ready.get(1) == Some(&true);
            if is_spoken
                && self
                    .channel
                    .as_mut()
                    .is_some_and(|channel| !channel.serve())
            {
                self.channel = None;
            }
        }
    }
}
