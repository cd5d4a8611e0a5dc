//! A device whose other half is a vhost-user backend.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringAddrFlags};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::channel::{Channel, ChannelError};
use super::connect::Dial;
use super::connector::{self, Connector};
use super::deadline::Deadline;
use super::error::{Error, Problem};
use super::events::{Events, Source};
use super::inflight::Inflight;
use super::listen::Listener;
use super::memory::MemoryTable;
use super::negotiate;
use super::page_log::PageLog;
use super::profile::{self, ConfigWrites, Profile};
use super::reconnect::Schedule;
use super::ring::Ring;
use super::session::{RingSetup, Session};
use super::shared_memory::SharedMemory;
use super::{Address, Options};
use crate::virtio::rate_limit::RateLimit;
use crate::virtio::{
    Device, DeviceError, DeviceEvent, DeviceType, Format, GuestMemory, Presence, QueueConfig,
    SharedRegion, features,
};

/// Log lines about backends that come and go: this many in this time.
const LOG: RateLimit = RateLimit::new(20, Duration::from_secs(10));

/// A device of any type, served by a vhost-user backend.
///
/// When the backend goes away, the device keeps what the driver has set up and
/// hands it to the next backend (`recovery`). Meanwhile the driver may do
/// anything; its requests wait in the queues.
pub struct Frontend {
    pub(super) options: Options,
    /// Where backends come from.
    pub(super) connector: Box<dyn Connector>,
    pub(super) presence: Arc<Presence>,
    pub(super) profile: Profile,
    pub(super) memory: Arc<MemoryTable>,
    /// Where the backend logs the pages that it writes, if somebody wants to know.
    pub(super) page_log: Option<Arc<PageLog>>,
    /// Where the backend has files mapped, if it does so at all.
    pub(super) shared_memory: Option<Arc<SharedMemory>>,
    /// What the device can do, with the last backend.
    pub(super) features: u64,
    /// How many queues the last backend has.
    pub(super) backend_queues: u16,
    /// How many memory regions it takes, if it says so.
    pub(super) memory_slots: Option<u64>,
    queue_sizes: Vec<u16>,
    /// The configuration space as last read.
    pub(super) config: Vec<u8>,
    pub(super) driver: Driver,
    pub(super) link: Link,
    /// Rings stand still, also those of a backend that comes back.
    pub(super) is_paused: bool,
    pub(super) schedule: Schedule,
    pub(super) events: Events,
    pub(super) log: RateLimit,
}

/// What the driver has set up, as far as a backend has to know.
#[derive(Default)]
pub(super) struct Driver {
    /// The features it took, once it is ready.
    pub(super) features: Option<u64>,
    /// The queues it started, by number.
    pub(super) rings: Vec<Option<Ring>>,
    /// What it wrote to the configuration space, where that is [`ConfigWrites::Questions`].
    question: Vec<u8>,
    /// Where the backend tracks its requests, if it does.
    pub(super) inflight: Option<Inflight>,
    /// What a backend has saved of its own for the one that takes its place.
    pub(super) state: Option<Vec<u8>>,
    /// The device has failed it. Nothing works until it resets the device.
    pub(super) failed: bool,
}

impl Driver {
    fn new(queues: usize) -> Self {
        let rings = std::iter::repeat_with(|| None).take(queues).collect();
        Self {
            rings,
            ..Self::default()
        }
    }

    /// Nothing of what it set up counts any more.
    pub(super) fn fail(&mut self) {
        *self = Self {
            failed: true,
            ..Self::new(self.rings.len())
        };
    }
}

/// Whether there is a backend.
pub(super) enum Link {
    Up(Session),
    /// It is waited for. A channel is there while one that took the connection
    /// has yet to answer.
    Away(Option<Channel>),
    /// Not any more.
    GivenUp,
}

impl Frontend {
    /// Connects to the backend and finds out what it is. The guest's memory is
    /// handed over when the driver is ready.
    pub fn connect(options: Options, memory: Arc<GuestMemory>) -> Result<Self, Error> {
        let (id, address) = (options.id.clone(), options.address.clone());
        let connector: Result<Box<dyn Connector>, _> = match &address {
            Address::Socket(path) => Ok(Box::new(Dial(path.clone()))),
            Address::Listen(path) => match Listener::bind(path) {
                Ok(listener) => Ok(Box::new(listener)),
                Err(error) => Err(Problem::Listen(error)),
            },
            Address::Command(_) => Err(Problem::NotSupervised),
        };
        match connector {
            Ok(connector) => Self::with(options, memory, connector),
            Err(problem) => Err(Error {
                id,
                address,
                problem,
            }),
        }
    }

    /// The same, with connections from `connector`.
    pub fn with(
        options: Options,
        memory: Arc<GuestMemory>,
        mut connector: Box<dyn Connector>,
    ) -> Result<Self, Error> {
        let (id, address) = (options.id.clone(), options.address.clone());
        let session = Self::open(&options, connector.as_mut());
        let made = session.and_then(|session| Self::assemble(options, memory, connector, session));
        made.map_err(|problem| Error {
            id,
            address,
            problem,
        })
    }

    /// The first session and the configuration space read in it.
    fn open(
        options: &Options,
        connector: &mut dyn Connector,
    ) -> Result<(Session, Vec<u8>), Problem> {
        let profile = profile::profile(options.device_type);
        let stream = connector::wait(connector, options.connect_deadline)?;
        let mut channel = Channel::new(stream);
        let deadline = Deadline::after(options.deadline);
        let opened = negotiate::greet(&mut channel, &deadline)
            .map_err(Problem::from)
            .and_then(|()| Session::open(channel, options, &profile, None, &deadline));
        opened.map_err(|problem| match connector.last_words() {
            Some(last_words) if problem.is_closed() => last_words,
            _ => problem,
        })
    }

    fn assemble(
        options: Options,
        memory: Arc<GuestMemory>,
        connector: Box<dyn Connector>,
        (mut session, config): (Session, Vec<u8>),
    ) -> Result<Self, Problem> {
        let memory = Arc::new(MemoryTable::new(memory)?);
        let profile = profile::profile(options.device_type);
        let schedule = Schedule::new(options.reconnect).map_err(Problem::Events)?;
        let events = Events::new().map_err(Problem::Events)?;
        events
            .watch(&schedule, Source::Timer)
            .map_err(Problem::Events)?;
        negotiate::log(&options.id, options.device_type, session.agreement());
        events
            .watch(&session, Source::Backend)
            .map_err(Problem::Events)?;
        watch_requests(&events, &mut session)?;
        let queues = usize::from(session.agreement().queues);
        let queue_size = options.queue_size.unwrap_or(profile.queue_size);
        let presence = Arc::new(Presence::new(options.address.to_string()));
        presence.connected();
        let frontend = Self {
            options,
            connector,
            presence,
            profile,
            memory,
            page_log: None,
            shared_memory: None,
            features: session.agreement().features,
            backend_queues: session.agreement().queues,
            memory_slots: session.agreement().memory_slots,
            queue_sizes: vec![queue_size; queues],
            config,
            driver: Driver::new(queues),
            link: Link::Up(session),
            is_paused: false,
            schedule,
            events,
            log: LOG,
        };
        frontend.check_memory_slots()?;
        Ok(frontend)
    }

    /// The shared memory regions that the backend wants: number and size in bytes.
    pub fn wanted_shared_memory(&self) -> Vec<(u8, u64)> {
        match &self.link {
            Link::Up(session) => session.shared_memory().collect(),
            Link::Away(_) | Link::GivenUp => Vec::new(),
        }
    }

    /// Gives the backend the regions that it wants. Not after the device is in use.
    pub fn give_shared_memory(&mut self, memory: SharedMemory) {
        let memory = Arc::new(memory);
        if let Link::Up(session) = &mut self.link
            && let Some(requests) = session.requests()
        {
            requests.give_shared_memory(Some(memory.clone()));
        }
        self.shared_memory = Some(memory);
    }

    pub(super) fn error(&self, problem: Problem) -> Error {
        Error {
            id: self.options.id.clone(),
            address: self.options.address.clone(),
            problem,
        }
    }

    /// Has `exchange` talk to the backend, within one deadline. `None` when the
    /// backend is away and waited for, or went away over it.
    pub(super) fn exchange<T>(
        &mut self,
        exchange: impl FnOnce(&mut Session, &Deadline) -> Result<T, ChannelError>,
    ) -> Result<Option<T>, Error> {
        if self.driver.failed {
            return Err(self.error(Problem::Lost));
        }
        let deadline = Deadline::after(self.options.deadline);
        let result = match &mut self.link {
            Link::Up(session) => exchange(session, &deadline),
            Link::Away(_) => return Ok(None),
            Link::GivenUp => return Err(self.error(Problem::Lost)),
        };
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_refusal() => Err(self.error(error.into())),
            Err(error) => self.lose(error.into()).map_or(Ok(None), Err),
        }
    }

    /// The features that the driver took, as long as the backend has them.
    pub(super) fn check_features(&self, taken: u64) -> Result<(), Problem> {
        let lost = taken & !self.features;
        if lost == 0 {
            return Ok(());
        }
        let names = features::names(self.options.device_type, lost);
        Err(Problem::FeaturesLost(names))
    }

    /// The memory regions, as long as the backend takes so many.
    pub(super) fn check_memory_slots(&self) -> Result<(), Problem> {
        let needed = self.memory.regions().len();
        match self.memory_slots {
            Some(found) if found < needed as u64 => {
                Err(Problem::TooFewMemorySlots { needed, found })
            }
            _ => Ok(()),
        }
    }

    /// The regions that the driver has been told of, as long as they are the backend's.
    pub(super) fn check_shared_memory(&self, session: &Session) -> Result<(), Problem> {
        let given = self.shared_memory().iter();
        let given = given.map(|region| (region.id, region.len));
        if session.shared_memory().eq(given) {
            return Ok(());
        }
        Err(Problem::SharedMemoryChanged)
    }

    /// The driver's queues, as long as the backend has them.
    pub(super) fn check_queue(&self, queue: u16) -> Result<(), Problem> {
        let found = self.backend_queues;
        if queue < found {
            return Ok(());
        }
        Err(Problem::QueueLost { queue, found })
    }

    /// How many queues are tracked, and how large they can be.
    pub(super) fn tracked(&self) -> (u16, u16) {
        let largest = self.queue_sizes.iter().copied().max();
        (self.backend_queues, largest.unwrap_or_default())
    }

    fn ring_address(&self, queue: u16, address: GuestAddress) -> Result<u64, Problem> {
        let address = address.0;
        self.memory
            .user_address(GuestAddress(address))
            .map(|user| user.raw())
            .ok_or(Problem::OutsideMemory { queue, address })
    }

    pub(super) fn ring_addresses(
        &self,
        index: u16,
        queue: &QueueConfig,
    ) -> Result<VhostUserVringAddr, Problem> {
        let flags = match self.page_log {
            Some(_) => VhostUserVringAddrFlags::VHOST_VRING_F_LOG,
            None => VhostUserVringAddrFlags::empty(),
        };
        // What the device writes of the ring itself.
        let written = match queue.format {
            Format::Split => queue.used,
            Format::Packed => queue.descriptors,
        };
        Ok(VhostUserVringAddr::new(
            index.into(),
            flags,
            self.ring_address(index, queue.descriptors)?,
            self.ring_address(index, queue.used)?,
            self.ring_address(index, queue.available)?,
            written.0,
        ))
    }

    /// Whether the configuration space, as last read, has these bytes there.
    fn has_in_config(&self, offset: u32, data: &[u8]) -> bool {
        let there = self.config.get(offset as usize..);
        there.is_some_and(|there| there.starts_with(data))
    }

    /// All that the driver has written to the configuration space, these bytes last, with
    /// zeroes where it has written nothing. What it reads there is another matter: an
    /// answer need not repeat the question.
    fn question_with(&mut self, offset: u32, data: &[u8]) -> Vec<u8> {
        let question = &mut self.driver.question;
        question.resize(self.config.len(), 0);
        let there = question.get_mut(offset as usize..).unwrap_or_default();
        for (there, byte) in there.iter_mut().zip(data) {
            *there = *byte;
        }
        question.clone()
    }

    fn ring_mut(&mut self, index: u16) -> Option<&mut Option<Ring>> {
        self.driver.rings.get_mut(usize::from(index))
    }

    /// Notes a ring that the driver starts, and returns where it is and where its backend
    /// begins.
    fn note_ring(
        &mut self,
        index: u16,
        mut ring: Ring,
    ) -> Result<(VhostUserVringAddr, u32), Problem> {
        let base = ring.began();
        if matches!(self.link, Link::Up(_)) {
            self.check_queue(index)?;
            ring.mark_running(base);
        }
        let addresses = self.ring_addresses(index, &ring.queue)?;
        if let Some(slot) = self.ring_mut(index) {
            *slot = Some(ring);
        }
        Ok((addresses, base))
    }

    fn try_start(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), Error> {
        let noted = Ring::new(queue, kick, call)
            .map_err(|source| Problem::EventFd {
                queue: index,
                source,
            })
            .and_then(|ring| self.note_ring(index, ring));
        let (addresses, base) = noted.map_err(|problem| self.error(problem))?;
        let setup = RingSetup {
            addresses,
            size: queue.size,
            base,
            kick,
            call,
        };
        self.exchange(|session, deadline| session.start_ring(&setup, deadline))?;
        Ok(())
    }

    fn try_stop(&mut self, index: u16) -> Result<u32, Error> {
        let answer = self.exchange(|session, deadline| session.stop_ring(index, deadline))?;
        let Some(base) = answer else {
            return Ok(0);
        };
        let found = base.index;
        if found == u32::from(index) {
            return Ok(base.num);
        }
        let problem = Problem::WrongQueue {
            asked: index,
            found,
        };
        self.lose(problem).map_or(Ok(0), Err)
    }
}

impl Device for Frontend {
    fn device_type(&self) -> DeviceType {
        self.options.device_type
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn shared_memory(&self) -> &[SharedRegion] {
        let memory = self.shared_memory.as_ref();
        memory.map_or(&[], |memory| memory.regions())
    }

    fn activate(&mut self, features: u64) -> Result<(), DeviceError> {
        self.check_features(features)
            .and_then(|()| self.check_memory_slots())
            .map_err(|problem| self.error(problem))?;
        self.driver.features = Some(features);
        let (memory, log) = (self.memory.clone(), self.page_log.clone());
        let (queues, size) = self.tracked();
        let region = self.exchange(|session, deadline| {
            session.activate(features, &memory, deadline)?;
            if let Some(log) = &log {
                session.log(Some(log), features, deadline)?;
            }
            let region = session.new_region(queues, size, deadline)?;
            if let Some(region) = &region {
                session.set_region(region, deadline)?;
            }
            Ok(region)
        })?;
        self.driver.inflight = region.flatten();
        tracing::debug!(
            device = self.options.id,
            features = features::names(self.options.device_type, features).join(", "),
            "the driver is ready"
        );
        Ok(())
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), DeviceError> {
        if let Err(error) = self.try_start(index, queue, kick, call) {
            // A backend that has refused a part of it may have begun with the rest.
            let ring = self.ring_mut(index).and_then(Option::take);
            if ring.is_some_and(|ring| ring.is_running())
                && let Err(error) = self.try_stop(index)
            {
                tracing::debug!(device = self.options.id, index, %error, "cannot stop it either");
            }
            return Err(error.into());
        }
        // A kick from before the ring was enabled may have been dropped.
        kick.write(1).map_err(|source| {
            let queue = index;
            self.error(Problem::Kick { queue, source })
        })?;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), DeviceError> {
        self.exchange(|session, deadline| session.begin(deadline))?;
        Ok(())
    }

    fn stop_queue(&mut self, index: u16) -> Result<u32, DeviceError> {
        match self.ring_mut(index).and_then(Option::take) {
            Some(ring) if ring.is_running() => {
                // One that hangs over this is not waited for a second time.
                if let Err(problem) = self.let_finish(index, &ring) {
                    return Ok(self.lose(problem).map_or(Ok(0), Err)?);
                }
                Ok(self.try_stop(index)?)
            }
            _ => Ok(0),
        }
    }

    fn read_config(&mut self) -> Result<Vec<u8>, DeviceError> {
        let read = self.exchange(|session, deadline| session.read_config(deadline))?;
        if let Some(config) = read.flatten() {
            self.config = config;
        }
        let mut bytes = self.config.clone();
        if let Some(count) = &self.profile.queue_count {
            let queues = self.backend_queues.min(self.queue_sizes.len() as u16);
            count.limit(&mut bytes, self.features, queues);
        }
        Ok(bytes)
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), DeviceError> {
        let written = match self.profile.config_writes {
            ConfigWrites::Settings if self.has_in_config(offset, data) => return Ok(()),
            ConfigWrites::Settings | ConfigWrites::Events => {
                self.exchange(|session, deadline| session.write_config(offset, data, deadline))
            }
            ConfigWrites::Questions => {
                let question = self.question_with(offset, data);
                self.exchange(|session, deadline| session.write_config(0, &question, deadline))
            }
        }?;
        Ok(written.ok_or_else(|| self.error(Problem::Away))?)
    }

    fn reset(&mut self) {
        if self.driver.features.is_some() {
            let reset = self.exchange(|session, deadline| session.reset(deadline));
            if let Err(error) = reset {
                self.warn(&error, "cannot reset the device in order");
            }
        }
        self.driver = Driver::new(self.queue_sizes.len());
        let cleared = self.shared_memory.as_ref().map(|memory| memory.clear());
        if let Some(Err(error)) = cleared {
            let error = self.error(Problem::SharedMemory(error));
            self.warn(&error, "cannot reset the device in order");
        }
    }

    fn presence(&self) -> Option<Arc<Presence>> {
        Some(self.presence.clone())
    }

    fn replace_backend(&mut self) -> Result<DeviceEvent, DeviceError> {
        Ok(self.replace()?)
    }

    fn pause(&mut self) -> DeviceEvent {
        self.stand_still()
    }

    fn unpause(&mut self) -> DeviceEvent {
        self.go_on()
    }

    fn note_writes(&mut self, wanted: bool) -> Result<DeviceEvent, DeviceError> {
        Ok(self.log_writes(wanted)?)
    }

    fn written(&mut self) -> Option<Vec<Range<u64>>> {
        self.written_pages()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }

    fn handle_event(&mut self) -> DeviceEvent {
        let event = match self.events.ready() {
            Some(Source::Backend) => self.on_backend(),
            Some(Source::Requests) => self.on_requests(),
            Some(Source::Timer) => self.on_timer(),
            Some(Source::Arrival) => self.on_arrival(),
            None => return DeviceEvent::Nothing,
        };
        event.unwrap_or_else(|error| DeviceEvent::Broken(Box::new(error)))
    }
}

pub(super) fn watch_requests(events: &Events, session: &mut Session) -> Result<(), Problem> {
    let Some(requests) = session.requests() else {
        return Ok(());
    };
    let watched = events.watch(requests, Source::Requests);
    watched
        .and_then(|()| events.watch(requests.news(), Source::Requests))
        .map_err(Problem::Events)
}
