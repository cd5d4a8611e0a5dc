//! A small entropy backend of its own, with one break in it if asked for.
//!
//! It is sound without a break. Each break is what somebody gets wrong in one line.

mod ring;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringState};
use vhost_user_wire::payload::{MemoryTable, VringFile};
use vhost_user_wire::{Connection, Deadline, Message, Payload};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use ring::Ring;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    Nothing,
    NoVersion1,
    ReservedBit,
    NoQueues,
    DisabledWithoutProtocolFeatures,
    AcksWithOne,
    AcksUnasked,
    RepliesTwice,
    IgnoresUnknown,
    HangsUpOnUnknown,
    AcceptsUnknown,
    RefusesFullTable,
    AcceptsMissingFiles,
    IgnoresMmapOffset,
    TakesGuestForUser,
    StartsWhenEnabled,
    LosesEarlyKick,
    WaitsForKick,
    NeedsCall,
    BaseOffByOne,
    BaseBeforeDrained,
    RunsWhenStopped,
    IgnoresBase,
    IndexWrapsWithRing,
    UsedIdIsSlot,
    LengthTooLong,
    WritesHalf,
    WritesDescriptors,
    WritesBehindBuffer,
    WritesAfterUse,
    RefusesSeveral,
    OneChainAKick,
    NeverNotifies,
    AlwaysNotifies,
    EventOffByOne,
    NeverResumesKicks,
    TakesSpuriousKicks,
    IgnoresIndirect,
    IndirectNeedsNoWrite,
    FollowsLoops,
    WritesNothing,
    SameBytes,
    UsesNothing,
    AnswersNothing,
}

/// A frontend's guest memory.
pub struct Memory {
    pub map: GuestMemoryMmap,
    /// User address, guest-physical address and size of each region.
    regions: Vec<[u64; 3]>,
}

impl Memory {
    fn new(table: &MemoryTable, files: Vec<File>, what: Break) -> Self {
        let mut ranges = Vec::new();
        let mut regions = Vec::new();
        for (region, file) in table.0.iter().zip(files) {
            let offset = if what == Break::IgnoresMmapOffset {
                0
            } else {
                region.mmap_offset
            };
            let start = GuestAddress(region.guest_phys_addr);
            let file = FileOffset::new(file, offset);
            ranges.push((start, region.memory_size as usize, Some(file)));
            regions.push([region.user_addr, start.0, region.memory_size]);
        }
        ranges.sort_by_key(|(start, ..)| *start);
        let map = match ranges.len() {
            0 => GuestMemoryMmap::new(),
            _ => GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
        };
        Self { map, regions }
    }

    fn guest(&self, user: u64, what: Break) -> GuestAddress {
        if what == Break::TakesGuestForUser {
            return GuestAddress(user);
        }
        let found = self
            .regions
            .iter()
            .find(|[begin, _, size]| user.checked_sub(*begin).is_some_and(|at| at < *size));
        found.map_or(GuestAddress(u64::MAX), |[begin, guest, _]| {
            GuestAddress(user - begin + guest)
        })
    }
}

/// One connection.
struct Session {
    connection: Connection,
    what: Break,
    protocol: u64,
    memory: Option<Memory>,
    ring: Ring,
}

const REPLY_ACK: u64 = 1 << 3;
/// VERSION_1, EVENT_IDX, INDIRECT_DESC and PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30;

/// Serves one connection after another on `path`, until the test is over.
pub fn listen(dir: &Path, what: Break) -> PathBuf {
    let path = dir.join("fake.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // The next one need not wait until this one has left.
            std::thread::spawn(move || serve(stream, what));
        }
    });
    path
}

fn serve(stream: UnixStream, what: Break) {
    let mut session = Session {
        connection: Connection::to_frontend(stream),
        what,
        protocol: 0,
        memory: None,
        ring: Ring::new(what),
    };
    while session.step().is_some() {}
}

impl Session {
    /// Waits for a message or a kick; `None` when the frontend has left or is not understood.
    fn step(&mut self) -> Option<()> {
        let mut fds = vec![PollFd::new(&self.connection, PollFlags::IN)];
        if let Some(kick) = &self.ring.kick {
            fds.push(PollFd::new(kick, PollFlags::IN));
        }
        poll(&mut fds, None).ok()?;
        let kicked = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        let spoken = !fds[0].revents().is_empty();
        if kicked {
            self.ring.take_kick();
            // This one is so slow that its ring is stopped first.
            if self.what != Break::BaseBeforeDrained {
                self.process();
            }
        }
        if spoken {
            let deadline = Deadline::after(Duration::from_secs(20));
            let message = self.connection.receive(&deadline).ok()?;
            self.handle(message)?;
        }
        Some(())
    }

    fn process(&mut self) {
        if let Some(memory) = &self.memory
            && self.what != Break::UsesNothing
        {
            self.ring.process(memory);
        }
    }

    fn handle(&mut self, mut message: Message) -> Option<()> {
        let done = match message.header.request {
            1 => return self.reply(&message, &self.features().to_bytes()),
            2 => self.set_features(message.body().ok()),
            3 | 4 => Some(()),
            5 => self.set_memory(&mut message),
            8 => self.set_num(message.body().ok()),
            9 => self.set_addresses(message.body().ok()),
            10 => self.set_base(message.body().ok()),
            11 => return self.stop(&message),
            12 => self.set_kick(&mut message),
            13 => self.set_call(&mut message),
            14 => Some(()),
            15 => return self.reply(&message, &(REPLY_ACK | 1).to_bytes()),
            16 => message.body().ok().map(|features| self.protocol = features),
            17 => {
                let queues = u64::from(self.what != Break::NoQueues);
                return self.reply(&message, &queues.to_bytes());
            }
            18 => self.enable(message.body().ok()),
            _ => match self.what {
                Break::IgnoresUnknown => return Some(()),
                Break::HangsUpOnUnknown => return None,
                Break::AcceptsUnknown => Some(()),
                _ => None,
            },
        };
        self.acknowledge(&message, done.is_some())
    }

    fn features(&self) -> u64 {
        match self.what {
            Break::NoVersion1 => FEATURES & !(1 << 32),
            Break::ReservedBit => FEATURES | 1 << 45,
            _ => FEATURES,
        }
    }

    fn reply(&self, message: &Message, payload: &[u8]) -> Option<()> {
        let header = message.header.reply(payload.len());
        let deadline = Deadline::after(Duration::from_secs(5));
        self.connection.send(header, payload, &[], &deadline).ok()?;
        if self.what == Break::RepliesTwice && message.header.needs_reply() {
            self.connection.send(header, payload, &[], &deadline).ok()?;
        }
        Some(())
    }

    fn acknowledge(&self, message: &Message, done: bool) -> Option<()> {
        let asked = message.header.needs_reply() || self.what == Break::AcksUnasked;
        if self.protocol & REPLY_ACK == 0 || !asked || self.what == Break::AnswersNothing {
            return done.then_some(());
        }
        let code = match (done, self.what) {
            (true, Break::AcksWithOne) => 1u64,
            (done, _) => u64::from(!done),
        };
        self.reply(message, &code.to_bytes())
    }

    fn set_features(&mut self, features: Option<u64>) -> Option<()> {
        let features = features.filter(|features| features & !self.features() == 0)?;
        self.ring.event_idx = features & 1 << 29 != 0;
        if features & 1 << 30 == 0 && self.what != Break::DisabledWithoutProtocolFeatures {
            self.ring.enabled = true;
        }
        Some(())
    }

    fn set_memory(&mut self, message: &mut Message) -> Option<()> {
        let table: MemoryTable = message.body().ok()?;
        if self.what == Break::RefusesFullTable && message.payload.len() > 8 + 32 * table.0.len() {
            return None;
        }
        let files = std::mem::take(&mut message.files);
        if files.len() != table.0.len() && self.what != Break::AcceptsMissingFiles {
            return None;
        }
        self.memory = Some(Memory::new(&table, files, self.what));
        Some(())
    }

    fn set_num(&mut self, state: Option<VhostUserVringState>) -> Option<()> {
        let state = first(state)?;
        let num = state.num;
        self.ring.size = u16::try_from(num)
            .ok()
            .filter(|size| (1..=1024).contains(size))?;
        Some(())
    }

    fn set_addresses(&mut self, addresses: Option<VhostUserVringAddr>) -> Option<()> {
        let (addresses, memory) = (addresses?, self.memory.as_ref()?);
        let guest = |user| memory.guest(user, self.what);
        self.ring.descriptors = guest(addresses.descriptor);
        self.ring.available = guest(addresses.available);
        self.ring.used = guest(addresses.used);
        Some(())
    }

    fn set_base(&mut self, state: Option<VhostUserVringState>) -> Option<()> {
        let state = first(state)?;
        if self.what != Break::IgnoresBase {
            self.ring.set_base(state.num as u16);
        }
        Some(())
    }

    fn set_kick(&mut self, message: &mut Message) -> Option<()> {
        let file: VringFile = message.body().ok()?;
        if file.index != 0 {
            return None;
        }
        let kick = message.files.pop();
        if kick.is_none() == file.has_file {
            return None;
        }
        self.ring.kick = kick;
        self.ring.started = true;
        if self.what != Break::WaitsForKick {
            self.process();
        }
        Some(())
    }

    fn set_call(&mut self, message: &mut Message) -> Option<()> {
        let file: VringFile = message.body().ok()?;
        self.ring.call = message.files.pop();
        (file.index == 0).then_some(())
    }

    fn enable(&mut self, state: Option<VhostUserVringState>) -> Option<()> {
        let state = first(state)?;
        self.ring.enabled = state.num == 1;
        if self.what == Break::StartsWhenEnabled {
            self.ring.started = true;
        }
        if self.what != Break::LosesEarlyKick {
            self.process();
        }
        Some(())
    }

    fn stop(&mut self, message: &Message) -> Option<()> {
        if self.what == Break::AnswersNothing {
            return Some(());
        }
        let state = first(message.body().ok())?;
        let base = self.ring.base();
        if self.what == Break::BaseBeforeDrained {
            self.reply(
                message,
                &VhostUserVringState::new(state.index, base).to_bytes(),
            )?;
            std::thread::sleep(Duration::from_millis(5));
            self.process();
            self.ring.started = false;
            return Some(());
        }
        if self.what != Break::RunsWhenStopped {
            self.ring.started = false;
            self.ring.kick = None;
        }
        let reply = VhostUserVringState::new(state.index, base);
        self.reply(message, &reply.to_bytes())
    }
}

fn first(state: Option<VhostUserVringState>) -> Option<VhostUserVringState> {
    state.filter(|state| state.index == 0)
}

/// Adds to an eventfd.
pub fn signal(file: &File) {
    let _ = rustix::io::write(file.as_fd(), &1u64.to_ne_bytes());
}
