//! What is told between the negotiation and the first request.

use vhost_user_wire::Payload;
use vhost_user_wire::payload::{Config, ConfigReply};

use super::super::breaks::Break;
use super::super::guest::Guest;
use super::super::link::{Done, Gone};
use super::Session;
use super::features::{BIT_30, CONFIG, MQ, STATUS};

impl Session<'_> {
    pub(super) fn set_up(&mut self, guest: &mut Guest) -> Done {
        self.read_config()?;
        self.hand_over_inflight()?;
        if self.is(Break::MemoryLate) {
            self.set_addresses(guest)?;
        }
        let keeps = self.is(Break::RemembersMemory) && self.is_again();
        if !keeps {
            self.share(guest)?;
        }
        if self.is(Break::OwnerLate) {
            self.link.tell(3, &[], &[])?;
        }
        if self.is(Break::StartsNothingAgain) && self.is_again() {
            return Ok(());
        }
        self.start(guest, guest.queue.used_base())?;
        if self.is(Break::FeaturesLate) {
            self.set_features(self.features)?;
        }
        if self.is(Break::ProtocolLate) && self.features & BIT_30 != 0 {
            self.link.number(15)?;
            self.link.tell(16, &MQ.to_bytes(), &[])?;
        }
        if self.protocol & STATUS != 0 && !self.is(Break::NoDriverOk) {
            self.set_status(15)?;
        }
        Ok(())
    }

    fn read_config(&mut self) -> Done {
        if self.protocol & CONFIG == 0 {
            return Ok(());
        }
        let size = if self.is(Break::ConfigEmpty) {
            0u32
        } else {
            16
        };
        let flags = if self.is(Break::ConfigFlags) { 2u32 } else { 0 };
        let payload = [
            [0u32, size, flags].map(u32::to_ne_bytes).concat(),
            vec![0; size as usize],
        ];
        let reply = self.link.ask(24, &payload.concat())?;
        if self.is(Break::TrustsConfig) {
            return Ok(());
        }
        let bytes = self.link.whole::<ConfigReply>(&reply)?.0;
        let is_whole =
            Config::decode(&reply.payload).is_ok_and(|it| it.to_bytes() == reply.payload);
        if is_whole && bytes.len() == size as usize {
            return Ok(());
        }
        Err(Gone::Wrong(format!(
            "{} bytes of configuration",
            bytes.len()
        )))
    }
}
