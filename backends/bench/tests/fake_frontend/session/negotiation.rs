//! What both sides agree on, up to FEATURES_OK.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use vhost_user_wire::Payload;

use super::super::breaks::Break;
use super::super::channel::Channel;
use super::super::link::{Done, Gone};
use super::Session;
use super::features::{
    BACKEND_REQ, BIT_30, CONFIG, EVENT_IDX, FEATURES, GPA_ADDRESSES, INDIRECT, INFLIGHT, MQ,
    PROTOCOL, REPLY_ACK, RESERVED, SHMEM, SLOTS, STATUS, VERSION_1,
};

impl Session<'_> {
    pub(super) fn negotiate(&mut self) -> Done {
        if !self.is(Break::OwnerLate) {
            self.link.tell(3, &[], &[])?;
        }
        if self.is(Break::OwnerTwice) {
            self.link.tell(3, &[], &[])?;
        }
        if self.is(Break::RemembersFeatures) && self.is_again() {
            return Ok(());
        }
        if self.is(Break::DoesNotAsk) {
            self.link.tell(2, &VERSION_1.to_bytes(), &[])?;
        }
        let offered = self.link.number(1)?;
        self.refuse(offered)?;
        self.offered = offered;
        self.features = offered & FEATURES;
        let has_protocol = offered & BIT_30 != 0;
        if self.is(Break::ProtocolUnasked) || (has_protocol && !self.is(Break::ProtocolLate)) {
            self.negotiate_protocol()?;
        }
        match self.what {
            Break::AcceptsAll => self.features |= 1,
            Break::WithoutVersion1 => self.features &= !VERSION_1,
            Break::AcceptsReserved => self.features |= offered & RESERVED,
            _ => {}
        }
        if self.protocol & STATUS != 0 {
            self.set_status_up()?;
        }
        if !self.is(Break::FeaturesLate) && !self.is(Break::FeaturesOkFirst) {
            self.set_features(self.features)?;
        }
        Ok(())
    }

    /// Gives up where it cannot do without something.
    fn refuse(&self, offered: u64) -> Done {
        let needed = match self.what {
            Break::NeedsBit30 => BIT_30,
            Break::NeedsEventIdx => EVENT_IDX,
            Break::NeedsIndirect => INDIRECT,
            Break::FailsOnReserved if offered & RESERVED != 0 => 1 << 63,
            _ => 0,
        };
        if needed & !offered == 0 {
            return Ok(());
        }
        if self.is(Break::NeedsBit30) || self.is(Break::NeedsEventIdx) {
            std::process::abort();
        }
        Err(Gone::Wrong(format!("{needed:#x} is needed")))
    }

    fn negotiate_protocol(&mut self) -> Done {
        let mut offered = PROTOCOL;
        if !self.is(Break::ProtocolBlind) {
            offered = self.link.number(15)?;
        }
        let needed = match self.what {
            Break::NeedsAcks => REPLY_ACK,
            Break::NeedsMq => MQ,
            Break::NeedsInflight => INFLIGHT,
            Break::NeedsSlots => SLOTS,
            Break::NeedsStatus => STATUS,
            Break::NeedsChannel => BACKEND_REQ,
            _ => 0,
        };
        if needed & !offered != 0 {
            return Err(Gone::Wrong(format!("{needed:#x} is needed")));
        }
        if self.is(Break::CrashesWithoutConfig) && offered & CONFIG == 0 {
            std::process::abort();
        }
        let wanted = match self.what {
            Break::ProtocolAll => offered | 1 << 18,
            Break::AcceptsUnknownProtocol => offered,
            // SET_MEM_TABLE has to be seen.
            what if what.uses_table() => offered & PROTOCOL & !SLOTS,
            Break::UserNotGuest => offered & (PROTOCOL | GPA_ADDRESSES),
            _ => offered & PROTOCOL,
        };
        self.protocol = wanted;
        self.link.tell(16, &wanted.to_bytes(), &[])?;
        self.link.acks = wanted & REPLY_ACK != 0;
        if wanted & MQ != 0 {
            let queues = self.link.number(17)?;
            if queues == 0 && !self.is(Break::IgnoresQueues) {
                return Err(Gone::Wrong("there is no queue".into()));
            }
            if self.is(Break::MakesAllQueues) && queues > 1 << 40 {
                std::process::abort();
            }
        }
        self.open_channel()
    }

    fn open_channel(&mut self) -> Done {
        if self.protocol & BACKEND_REQ == 0 {
            return Ok(());
        }
        let (near, far) = UnixStream::pair().unwrap();
        self.link.tell(21, &[], &[far.as_fd()])?;
        let mut channel = Channel::new(near, self.what, self.link.acks);
        if self.protocol & SHMEM != 0 {
            let reply = self.link.ask(44, &[])?;
            channel.allow_mappings(self.link.whole(&reply)?);
        }
        self.channel = Some(channel);
        Ok(())
    }

    fn set_status_up(&mut self) -> Done {
        match self.what {
            Break::StatusBits => self.set_status(0x1_0003)?,
            Break::StatusOrder => self.set_status(2)?,
            Break::FeaturesOkFirst => self.set_status(11)?,
            _ => self.set_status(3)?,
        }
        if self.is(Break::FeaturesOkFirst) {
            return self.set_features(self.features);
        }
        let features = match self.what {
            Break::FeaturesAfterOk => self.features & !EVENT_IDX,
            _ => self.features,
        };
        if self.is(Break::FeaturesLate) {
            return Ok(());
        }
        self.set_features(features)?;
        self.set_status(11)?;
        // Whether the device has taken the features (virtio 1.4, section 3.1.1).
        self.link.number(40)?;
        if self.is(Break::StatusClears) {
            self.set_status(3)?;
        }
        Ok(())
    }
}
