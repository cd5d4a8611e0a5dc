//! The ring, from its start to its restart.

use std::os::fd::AsFd;

use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::Payload;
use vhost_user_wire::payload::VringFile;

use super::super::breaks::Break;
use super::super::guest::Guest;
use super::super::link::Done;
use super::super::migration;
use super::Session;
use super::features::{BIT_30, DEVICE_STATE};

impl Session<'_> {
    pub(super) fn start(&mut self, guest: &mut Guest, base: u32) -> Done {
        if self.is(Break::EnablesEarly) {
            self.vring(18, 0, 1)?;
        }
        self.set_size(guest)?;
        let base = match self.what {
            Break::BaseHighBits => base | 1 << 20,
            Break::PackedBaseFar => base | 99,
            Break::PackedWrapZero => 0,
            _ => base,
        };
        if !self.is(Break::NoBase) {
            self.vring(10, 0, base)?;
        }
        if !self.is(Break::NoAddresses) {
            self.set_addresses(guest)?;
        }
        self.set_events(guest)?;
        if self.is(Break::InflightLate) {
            self.hand_over_late()?;
        }
        let negotiated = self.features & BIT_30 != 0 || self.is(Break::EnablesUnnegotiated);
        if negotiated && !self.is(Break::NeverEnables) && !self.is(Break::EnablesEarly) {
            let value = if self.is(Break::EnablesWithTwo) { 2 } else { 1 };
            self.vring(18, 0, value)?;
        }
        if !self.is(Break::NoKickAfterStart) && !self.is(Break::NeverKicks) {
            guest.queue.kick();
        }
        Ok(())
    }

    pub(super) fn vring(&mut self, code: u32, index: u32, value: u32) -> Done {
        let mut payload = VhostUserVringState::new(index, value).to_bytes();
        if self.is(Break::LongPayload) {
            payload.extend([0; 4]);
        }
        self.link.tell(code, &payload, &[])
    }

    pub(super) fn set_addresses(&mut self, guest: &Guest) -> Done {
        let mut addresses = migration::addresses(guest, None);
        if self.is(Break::AddressFlags) {
            addresses.flags = 4;
        }
        self.link.tell(9, &addresses.to_bytes(), &[])
    }

    fn set_size(&mut self, guest: &Guest) -> Done {
        let size = match self.what {
            Break::OddSize => 63,
            Break::HugeSize => 1 << 16,
            _ => guest.queue.size().into(),
        };
        if self.is(Break::FarIndex) {
            self.vring(8, 77, size)?;
        }
        if self.is(Break::NoSize) {
            return Ok(());
        }
        self.vring(8, 0, size)
    }

    pub(super) fn set_events(&mut self, guest: &Guest) -> Done {
        let mut payload = ring_zero().to_bytes();
        if self.is(Break::EventBits) {
            payload[2] = 1;
        }
        let queue = &guest.queue;
        if !self.is(Break::NoCall) {
            self.link
                .tell(13, &payload, &[queue.call_event().as_fd()])?;
        }
        let kick = match self.what {
            Break::OneEvent => queue.call_event(),
            _ => queue.kick_event(),
        };
        self.link.tell(12, &payload, &[kick.as_fd()])
    }

    pub(super) fn restart(&mut self, guest: &mut Guest) -> Done {
        if self.is(Break::StartsNothingAgain) && self.is_again() {
            return Ok(());
        }
        if self.is(Break::StopsUnknown) {
            self.link
                .ask(11, &VhostUserVringState::new(5, 0).to_bytes())?;
        }
        let has_state = self.protocol & DEVICE_STATE != 0;
        if has_state && self.is(Break::StateWhileRunning) {
            migration::carry_state(&mut self.link)?;
        }
        let number = u32::from(self.is(Break::StopNumber));
        let state = VhostUserVringState::new(0, number);
        let reply = self.link.ask(11, &state.to_bytes())?;
        let mut base = self.link.whole::<VhostUserVringState>(&reply)?.num;
        if self.is(Break::BaseOther) {
            base += 5;
        }
        if has_state && !self.is(Break::StateWhileRunning) {
            migration::carry_state(&mut self.link)?;
        }
        guest.queue.renew_events().unwrap();
        self.start(guest, base)?;
        if !self.is(Break::NoKickAfterStart) && !self.is(Break::BaseOther) {
            guest.run(1);
        }
        Ok(())
    }
}

fn ring_zero() -> VringFile {
    VringFile {
        index: 0,
        has_file: true,
    }
}
