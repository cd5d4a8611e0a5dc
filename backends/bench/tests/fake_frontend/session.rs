//! One connection of the small frontend.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::message::{
    VhostUserInflight, VhostUserSingleMemoryRegion, VhostUserVringState,
};
use vhost_user_wire::payload::{Config, ConfigReply, MemoryTable, VringFile};
use vhost_user_wire::{Header, Payload};

use super::breaks::Break;
use super::channel::Channel;
use super::guest::Guest;
use super::link::{Done, Gone, Link, ignore_sigterm};
use super::migration;

const MQ: u64 = 1;
const REPLY_ACK: u64 = 1 << 3;
const BACKEND_REQ: u64 = 1 << 5;
const CONFIG: u64 = 1 << 9;
const INFLIGHT: u64 = 1 << 12;
const SLOTS: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const GPA_ADDRESSES: u64 = 1 << 21;
const LOG_SHMFD: u64 = 1 << 1;
const SEND_FD: u64 = 1 << 10;
const DEVICE_STATE: u64 = 1 << 19;
const SHMEM: u64 = 1 << 22;
const USUAL: u64 = MQ | REPLY_ACK | BACKEND_REQ | CONFIG | INFLIGHT | SLOTS | STATUS;
const PROTOCOL: u64 = USUAL | LOG_SHMFD | SEND_FD | DEVICE_STATE | SHMEM;

const EVENT_IDX: u64 = 1 << 29;
const INDIRECT: u64 = 1 << 28;
const BIT_30: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
const RESERVED: u64 = 1 << 45;
const PACKED: u64 = 1 << 34;
const LOG_ALL: u64 = 1 << 26;
const FEATURES: u64 = EVENT_IDX | BIT_30 | VERSION_1 | PACKED;

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

    fn negotiate(&mut self) -> Done {
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

    fn set_features(&mut self, features: u64) -> Done {
        self.link.tell(2, &features.to_bytes(), &[])
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

    fn set_status(&mut self, status: u64) -> Done {
        self.link.tell(39, &status.to_bytes(), &[])
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

    fn set_up(&mut self, guest: &mut Guest) -> Done {
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

    fn hand_over_inflight(&mut self) -> Done {
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

    fn share(&mut self, guest: &Guest) -> Done {
        let regions = guest.regions();
        if self.protocol & SLOTS == 0 {
            let table = MemoryTable(regions.iter().map(|(region, _)| *region).collect());
            let files: Vec<_> = regions.iter().map(|(_, file)| *file).collect();
            return self.link.tell(5, &table.to_bytes(), &files);
        }
        if !self.is(Break::SlotsNotAsked) {
            let slots = self.link.number(36)?;
            if slots < 2 && !self.is(Break::IgnoresSlots) {
                return Err(Gone::Wrong("two slots are needed".into()));
            }
        }
        for (region, file) in &regions {
            let files = [*file];
            let files = if self.is(Break::NoMemoryFile) {
                &[][..]
            } else {
                &files
            };
            self.link.tell(37, &single(region).to_bytes(), files)?;
        }
        Ok(())
    }

    fn vring(&mut self, code: u32, index: u32, value: u32) -> Done {
        let mut payload = VhostUserVringState::new(index, value).to_bytes();
        if self.is(Break::LongPayload) {
            payload.extend([0; 4]);
        }
        self.link.tell(code, &payload, &[])
    }

    fn set_addresses(&mut self, guest: &Guest) -> Done {
        let mut addresses = migration::addresses(guest, None);
        if self.is(Break::AddressFlags) {
            addresses.flags = 4;
        }
        self.link.tell(9, &addresses.to_bytes(), &[])
    }

    fn start(&mut self, guest: &mut Guest, base: u32) -> Done {
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

    fn hand_over_late(&mut self) -> Done {
        let request = VhostUserInflight::new(0, 0, 1, 64);
        let mut reply = self.link.ask(31, &request.to_bytes())?;
        let record = self.link.whole::<VhostUserInflight>(&reply)?;
        let file = reply
            .take_file()
            .map_err(|error| Gone::Wrong(error.to_string()))?;
        self.kept.inflight = Some((record, file));
        self.set_inflight()
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

    fn set_events(&mut self, guest: &Guest) -> Done {
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

    /// Makes requests, and changes things meanwhile.
    fn work(&mut self, guest: &mut Guest) -> Done {
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

    fn restart(&mut self, guest: &mut Guest) -> Done {
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

    fn change_memory(&mut self, guest: &Guest) -> Done {
        if self.protocol & SLOTS == 0 {
            return Ok(());
        }
        let (region, file) = guest.extra();
        let named = single(&region).to_bytes();
        self.link.tell(37, &named, &[file])?;
        let mut removed = region;
        if self.is(Break::RemovesUnknown) {
            removed.user_addr += 0x1000;
        }
        let files = [file];
        let files = if self.is(Break::RemovesWithFile) {
            &files[..]
        } else {
            &[]
        };
        self.link.tell(38, &single(&removed).to_bytes(), files)
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

fn ring_zero() -> VringFile {
    VringFile {
        index: 0,
        has_file: true,
    }
}

fn single(
    region: &vhost::vhost_user::message::VhostUserMemoryRegion,
) -> VhostUserSingleMemoryRegion {
    VhostUserSingleMemoryRegion::new(
        region.guest_phys_addr,
        region.memory_size,
        region.user_addr,
        region.mmap_offset,
    )
}
