//! A device whose other half is a vhost-user backend.

mod device;
mod logging;
mod looks;
mod pause;
mod recovery;
mod ring;
mod ring_warnings;
mod stall;
mod stopping;

use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringAddrFlags};
use vm_memory::GuestAddress;

use crate::deadline::Deadline;
use crate::vhost_user::backend_status::BackendStatus;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::events::{Events, Source};
use crate::vhost_user::link::connect::Dial;
use crate::vhost_user::link::connector::{self, Connector};
use crate::vhost_user::link::listen::Listener;
use crate::vhost_user::link::reconnect::ReconnectTimer;
use crate::vhost_user::profile::{self, Profile};
use crate::vhost_user::session::Session;
use crate::vhost_user::session::channel::{Channel, ChannelError};
use crate::vhost_user::session::inflight::Inflight;
use crate::vhost_user::session::memory::MemoryTable;
use crate::vhost_user::session::negotiate;
use crate::vhost_user::session::page_log::PageLog;
use crate::vhost_user::session::shared_memory::SharedMemory;
use crate::vhost_user::{Address, Options};
use crate::virtio::rate_limit::RateLimit;
use crate::virtio::{Format, GuestMemory, QueueConfig, features};
pub use device::QueueHealth;
use ring::Ring;
use stall::Looks;

/// Log lines about backends that come and go: this many in this time.
const LOG: RateLimit = RateLimit::new(20, Duration::from_secs(10));
/// The same about errors that backends report. A guest can make them do so at will.
const RING_LOG: RateLimit = RateLimit::new(4, Duration::from_secs(10));

/// A device of any type, served by a vhost-user backend.
///
/// When the backend goes away, the device keeps what the driver has set up and
/// hands it to the next backend (`recovery`). Meanwhile the driver may do
/// anything; its requests wait in the queues.
pub struct Frontend {
    options: Options,
    /// Where backends come from.
    connector: Box<dyn Connector>,
    backend_status: Arc<BackendStatus>,
    profile: Profile,
    memory: Arc<MemoryTable>,
    /// Where the backend logs the pages that it writes, if somebody wants to know.
    page_log: Option<Arc<PageLog>>,
    /// Where the backend has files mapped, if it does so at all.
    shared_memory: Option<Arc<SharedMemory>>,
    /// The features of the device with the last backend.
    features: u64,
    /// How many queues the last backend has.
    backend_queues: u16,
    /// How many memory regions it takes, if it says so.
    memory_slots: Option<u64>,
    queue_sizes: Vec<u16>,
    /// The configuration space as last read.
    config: Vec<u8>,
    driver: Driver,
    link: Link,
    /// Rings are stopped, also those of a backend that comes back.
    is_paused: bool,
    reconnect_timer: ReconnectTimer,
    events: Arc<Events>,
    looks: Looks,
    log: RateLimit,
    ring_log: RateLimit,
}

/// The driver's setup, as far as a backend has to know it.
#[derive(Default)]
struct Driver {
    /// The features it took, once it is ready.
    features: Option<u64>,
    /// The queues it started, by number.
    rings: Vec<Option<Ring>>,
    /// Its writes to the configuration space, where they are [`ConfigWrites::Questions`].
    question: Vec<u8>,
    /// Where the backend tracks its requests, if it does.
    inflight: Option<Inflight>,
    /// The state that a backend has saved for its successor.
    state: Option<Vec<u8>>,
    /// The device has failed it. Nothing works until it resets the device.
    failed: bool,
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
    fn fail(&mut self) {
        *self = Self {
            failed: true,
            ..Self::new(self.rings.len())
        };
    }
}

/// Whether there is a backend.
enum Link {
    Up(Session),
    /// The backend is waited for. There is a channel while a backend has
    /// accepted the connection but has yet to answer.
    Away(Option<Channel>),
    /// The backend is not waited for any more.
    GivenUp,
}

impl Frontend {
    /// Connects to the backend and learns its properties. The guest's memory is
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
        let opened = negotiate::start_handshake(&mut channel, &deadline)
            .map_err(Problem::from)
            .and_then(|()| Session::open(channel, options, &profile, None, &deadline));
        opened.map_err(|problem| match connector.exit_report() {
            Some(exit_report) if problem.is_closed() => exit_report,
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
        let reconnect_timer = ReconnectTimer::new(options.reconnect).map_err(Problem::Events)?;
        let events = Events::new().map_err(Problem::Events)?;
        events
            .watch(&reconnect_timer, Source::Timer)
            .map_err(Problem::Events)?;
        let looks = Looks::new().map_err(Problem::Events)?;
        events
            .watch(&looks, Source::Look)
            .map_err(Problem::Events)?;
        negotiate::log(&options.id, options.device_type, session.agreement());
        events
            .watch(&session, Source::Backend)
            .map_err(Problem::Events)?;
        watch_beside(&events, &mut session)?;
        let queues = usize::from(session.agreement().queues);
        let queue_size = options.queue_size.unwrap_or(profile.queue_size);
        let backend_status = Arc::new(BackendStatus::new(options.address.to_string()));
        backend_status.connected();
        let frontend = Self {
            options,
            connector,
            backend_status,
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
            reconnect_timer,
            events: Arc::new(events),
            looks,
            log: LOG,
            ring_log: RING_LOG,
        };
        frontend.check_memory_slots()?;
        Ok(frontend)
    }

    /// The process behind the device.
    pub(crate) fn backend_status(&self) -> &Arc<BackendStatus> {
        &self.backend_status
    }

    /// The shared memory regions that the backend wants: number and size in bytes.
    pub fn wanted_shared_memory(&self) -> Vec<(u8, u64)> {
        match &self.link {
            Link::Up(session) => session.shared_memory().collect(),
            Link::Away(_) | Link::GivenUp => Vec::new(),
        }
    }

    /// Gives the backend the regions that it wants. Not after the device is in use.
    pub fn give_shared_memory(&mut self, memory: SharedMemory) -> Result<(), Error> {
        let watched = self.events.watch(memory.cut(), Source::CutFiles);
        watched.map_err(|error| self.error(Problem::Events(error)))?;
        let memory = Arc::new(memory);
        if let Link::Up(session) = &mut self.link
            && let Some(requests) = session.requests()
        {
            requests.give_shared_memory(Some(memory.clone()));
        }
        self.shared_memory = Some(memory);
        Ok(())
    }

    fn error(&self, problem: Problem) -> Error {
        Error {
            id: self.options.id.clone(),
            address: self.options.address.clone(),
            problem,
        }
    }

    /// Has `exchange` talk to the backend. `None` when the backend is away and waited for,
    /// or went away during the exchange.
    fn exchange<T>(
        &mut self,
        exchange: impl FnOnce(&mut Session) -> Result<T, ChannelError>,
    ) -> Result<Option<T>, Error> {
        if self.driver.failed {
            return Err(self.error(Problem::Lost));
        }
        let result = match &mut self.link {
            Link::Up(session) => exchange(session),
            Link::Away(_) => return Ok(None),
            Link::GivenUp => return Err(self.error(Problem::Lost)),
        };
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_refusal() => Err(self.error(error.into())),
            Err(error) => self.on_lost(error.into()).map_or(Ok(None), Err),
        }
    }

    /// The features that the driver took, as long as the backend has them.
    fn check_features(&self, taken: u64) -> Result<(), Problem> {
        let lost = taken & !self.features;
        if lost == 0 {
            return Ok(());
        }
        let names = features::names(self.options.device_type, lost);
        Err(Problem::FeaturesLost(names))
    }

    /// The memory regions, as long as the backend takes so many.
    fn check_memory_slots(&self) -> Result<(), Problem> {
        let needed = self.memory.count();
        match self.memory_slots {
            Some(found) if found < needed as u64 => {
                Err(Problem::TooFewMemorySlots { needed, found })
            }
            _ => Ok(()),
        }
    }

    /// The regions that the driver has been told of, as long as they are the backend's.
    fn check_shared_memory(&self, session: &Session) -> Result<(), Problem> {
        let given = self.shared_memory().iter();
        let given = given.map(|region| (region.id, region.len));
        if session.shared_memory().eq(given) {
            return Ok(());
        }
        Err(Problem::SharedMemoryChanged)
    }

    /// The driver's queues, as long as the backend has them.
    fn check_queue(&self, queue: u16) -> Result<(), Problem> {
        let found = self.backend_queues;
        if queue < found {
            return Ok(());
        }
        Err(Problem::QueueLost { queue, found })
    }

    /// How many queues are tracked, and how large they can be.
    fn tracked(&self) -> (u16, u16) {
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

    fn ring_addresses(
        &self,
        index: u16,
        queue: &QueueConfig,
    ) -> Result<VhostUserVringAddr, Problem> {
        let flags = match self.page_log {
            Some(_) => VhostUserVringAddrFlags::VHOST_VRING_F_LOG,
            None => VhostUserVringAddrFlags::empty(),
        };
        // The part of the ring that the device writes.
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
}

/// Watches the backend's descriptors other than the connection itself.
fn watch_beside(events: &Events, session: &mut Session) -> Result<(), Problem> {
    if let Some(errors) = session.ring_errors() {
        let watched = events.watch(errors, Source::RingErrors);
        watched.map_err(Problem::Events)?;
    }
    let Some(requests) = session.requests() else {
        return Ok(());
    };
    let watched = events.watch(requests, Source::Requests);
    watched
        .and_then(|()| events.watch(requests.news(), Source::Requests))
        .map_err(Problem::Events)
}
