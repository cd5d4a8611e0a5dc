//! A device whose other half is a vhost-user backend.

mod checks;
mod device;
mod driver;
mod logging;
mod offer;
mod pause;
mod ram;
mod recovery;
mod requests;
mod resume;
mod ring;
mod stall;
mod stopping;
mod warnings;

use std::sync::Arc;

use crate::vhost_user::Options;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::events::{Events, Source};
use crate::vhost_user::link::Link;
use crate::vhost_user::link::backend_status::BackendStatus;
use crate::vhost_user::link::connector::Connector;
use crate::vhost_user::link::reach;
use crate::vhost_user::profile::{self, Profile};
use crate::vhost_user::session::Session;
use crate::vhost_user::session::channel_error::ChannelError;
use crate::vhost_user::session::shared_memory::SharedMemory;
use crate::virtio::GuestMemory;
pub use device::QueueHealth;
use driver::Driver;
use offer::Offer;
use ram::Ram;
use stall::CheckTimer;
use warnings::Warnings;

/// A device of any type, served by a vhost-user backend.
///
/// When the backend goes away, the device keeps what the driver has set up and
/// hands it to the next backend (`recovery`). Meanwhile the driver may do
/// anything; its requests wait in the queues.
pub struct Frontend {
    options: Arc<Options>,
    profile: Profile,
    link: Link,
    offer: Offer,
    ram: Ram,
    /// Where the backend has files mapped, if it does so at all.
    shared_memory: Option<Arc<SharedMemory>>,
    queue_sizes: Vec<u16>,
    /// The configuration space as last read.
    config: Vec<u8>,
    driver: Driver,
    /// Rings are stopped, also those of a backend that comes back.
    is_paused: bool,
    events: Arc<Events>,
    checks: CheckTimer,
    warnings: Warnings,
}

impl Frontend {
    /// Connects to the backend and learns its properties. The guest's memory is
    /// handed over when the driver is ready.
    pub fn connect(options: Options, memory: Arc<GuestMemory>) -> Result<Self, Error> {
        let connector = reach::connector(&options)?;
        Self::with(options, memory, connector)
    }

    /// The same, with connections from `connector`.
    pub fn with(
        options: Options,
        memory: Arc<GuestMemory>,
        connector: Box<dyn Connector>,
    ) -> Result<Self, Error> {
        let (id, address) = (options.id.clone(), options.address.clone());
        Self::open(options, memory, connector).map_err(|problem| Error {
            id,
            address,
            problem,
        })
    }

    fn open(
        options: Options,
        memory: Arc<GuestMemory>,
        connector: Box<dyn Connector>,
    ) -> Result<Self, Problem> {
        let options = Arc::new(options);
        let profile = profile::profile(options.device_type);
        if profile.needs_display {
            return Err(Problem::NoDisplay);
        }
        let events = Arc::new(Events::new().map_err(Problem::Events)?);
        let checks = CheckTimer::new().map_err(Problem::Events)?;
        let watched = events.watch(&checks, Source::Check);
        watched.map_err(Problem::Events)?;
        let opened = Link::open(options.clone(), profile, connector, events.clone());
        let (mut link, config) = opened?;
        let agreement = link.session().ok_or(Problem::Lost)?.agreement();
        let offer = Offer::new(options.device_type, agreement);
        let ram = Ram::new(memory)?;
        offer.check_memory_slots(ram.table().count())?;
        let queues = usize::from(offer.queues());
        let queue_size = options.queue_size.unwrap_or(profile.queue_size);
        Ok(Self {
            profile,
            link,
            offer,
            ram,
            shared_memory: None,
            queue_sizes: vec![queue_size; queues],
            config,
            driver: Driver::new(queues),
            is_paused: false,
            events,
            checks,
            warnings: Warnings::new(options.id.clone()),
            options,
        })
    }

    /// The process behind the device.
    pub(crate) fn backend_status(&self) -> &Arc<BackendStatus> {
        self.link.status()
    }

    /// The shared memory regions that the backend wants: number and size in bytes.
    pub fn wanted_shared_memory(&mut self) -> Vec<(u8, u64)> {
        let session = self.link.session();
        session.map_or_else(Vec::new, |session| session.shared_memory().collect())
    }

    /// Gives the backend the regions that it wants. Not after the device is in use.
    pub fn give_shared_memory(&mut self, memory: SharedMemory) -> Result<(), Error> {
        let watched = self.events.watch(memory.cut(), Source::CutFiles);
        watched.map_err(|error| self.link.error(Problem::Events(error)))?;
        let memory = Arc::new(memory);
        self.link.give_shared_memory(memory.clone());
        self.shared_memory = Some(memory);
        Ok(())
    }

    /// Has `exchange` talk to the backend. `None` when the backend is away and waited for,
    /// or went away during the exchange.
    fn exchange<T>(
        &mut self,
        exchange: impl FnOnce(&mut Session) -> Result<T, ChannelError>,
    ) -> Result<Option<T>, Error> {
        if self.driver.has_failed() || self.link.is_given_up() {
            return Err(self.link.error(Problem::Lost));
        }
        let Some(session) = self.link.session() else {
            return Ok(None);
        };
        match exchange(session) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_refusal() => Err(self.link.error(error.into())),
            Err(error) => self.on_lost(error.into()).map_or(Ok(None), Err),
        }
    }

    /// How many queues are tracked, and how large they can be.
    fn tracked(&self) -> (u16, u16) {
        let largest = self.queue_sizes.iter().copied().max();
        (self.offer.queues(), largest.unwrap_or_default())
    }
}
