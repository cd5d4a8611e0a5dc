//! Listen, accept, serve, clean up: one frontend after another, until asked to end.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use thiserror::Error;
use vhost_user_backend::VhostUserBackend;
use vhost_user_wire::{Connection, Deadline};
use vm_memory::mmap::NewBitmap;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::device::{Device, DeviceError, StateRecord};
use crate::error_sign::ErrorSign;
use crate::listener::Listener;
use crate::listeners::Listeners;
use crate::needs_reset::NeedsReset;
use crate::notifier::ConfigNotifier;
use crate::patience::IO_DEADLINE;
use crate::progress::Record;
use crate::ratelimit::RateLimit;
use crate::session::Session;
use crate::session::error::SessionError;
use crate::shutdown::{Shutdown, ShutdownHandle};
use crate::worker::WorkerError;
use crate::{log_limited, warn_limited};

/// Pause after a failed `accept` (out of descriptors, say), so as not to spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

// A frontend may come and go as often as it likes.
static CONNECTED: RateLimit = RateLimit::for_logs();
static SERVED: RateLimit = RateLimit::for_logs();
static CLOSED: RateLimit = RateLimit::for_logs();

/// The daemon cannot start or continue.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The backend cannot be driven.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The workers cannot watch the device's descriptors.
    #[error("the device's events cannot be watched")]
    Attach(#[source] io::Error),
    /// A system call that has no reason to fail.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    /// A worker is lost; the next frontend could not be served.
    #[error("the device stopped answering; restart the backend")]
    Lost(#[from] WorkerError),
}

/// The event that [`Daemon::wait`] saw.
#[derive(PartialEq, Eq)]
enum Wake {
    Ready,
    Shutdown,
    TimedOut,
}

/// A vhost-user device process: any [`VhostUserBackend`] behind a socket.
pub struct Daemon<T: VhostUserBackend> {
    device: Device<T>,
    shutdown: Shutdown,
}

impl<T> Daemon<T>
where
    T: VhostUserBackend + Clone + 'static,
    T::Bitmap: NewBitmap + Clone + Send + Sync,
    T::Vring: Clone + Send + Sync + 'static,
{
    /// Starts the backend's workers. They idle until a frontend has started a ring.
    pub fn new(backend: T, shutdown: Shutdown) -> Result<Self, DaemonError> {
        let device = Device::new(backend, &shutdown.handle())?;
        Ok(Daemon { device, shutdown })
    }
}

impl<T> Daemon<T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    /// Where the backend registers descriptors of its own with worker `id`; `None` if there is no
    /// such worker.
    pub fn listeners(&self, id: usize) -> Option<Listeners> {
        self.device.listeners(id)
    }

    /// The progress of `ring`, for a backend that relies on it (as [`crate::pump::Pump`]
    /// does); `None` if there is no such ring.
    pub fn record(&self, ring: usize) -> Option<Record> {
        self.device.record(ring)
    }

    /// Where the backend tells the frontend that something is wrong with `ring`, if an error of
    /// its `handle_event` does not; `None` if there is no such ring.
    pub fn error_sign(&self, ring: usize) -> Option<ErrorSign> {
        self.device.error_sign(ring)
    }

    /// Keeps the thread of worker `id` on one of the host's processors.
    pub fn keep_on(&self, id: usize, processor: usize) -> io::Result<()> {
        self.device.keep_on(id, processor)
    }

    /// Where the backend keeps the state that its driver has set, if it is to outlive the
    /// process. The backend gets it back as device state (`set_device_state_fd` and
    /// `check_device_state` of its trait).
    pub fn state_record(&self) -> StateRecord {
        self.device.state_record()
    }

    /// The backend relies on the records of all its rings: frontends are offered
    /// INFLIGHT_SHMFD, and a successor of this backend finishes its requests in flight.
    pub fn keep_records(&self) {
        self.device.keep_records();
    }

    /// The backend gives the chains of `ring` back without effect while the ring is ready but not
    /// enabled (as [`crate::pump::Pump`] does): a ring that the frontend disables keeps running
    /// that way.
    pub fn discard_disabled(&self, ring: usize) {
        self.device.discard_disabled(ring);
    }

    /// Tells the connected frontend, if any, that the configuration space has changed.
    pub fn config_notifier(&self) -> ConfigNotifier {
        self.device.notifier.clone()
    }

    /// Where the backend notes that only a reset helps. The frontend looks when it is notified.
    pub fn needs_reset(&self) -> NeedsReset {
        self.device.needs_reset.clone()
    }

    /// Ends [`Daemon::serve`] from another thread.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.handle()
    }

    /// Serves frontends, one at a time, until asked to end.
    pub fn serve(&mut self, listener: &Listener) -> Result<(), DaemonError> {
        tracing::info!(socket = %listener, "waiting for a frontend");
        loop {
            if self.wait(Some(listener.as_raw_fd()), None)? == Wake::Shutdown {
                return Ok(());
            }
            match listener.accept() {
                Ok(Some(stream)) => {
                    if self.serve_stream(stream)? == Served::Shutdown {
                        return Ok(());
                    }
                }
                Ok(None) => (),
                Err(error) => {
                    warn_limited!(CLOSED, %error, "cannot accept a frontend; trying again");
                    if self.wait(None, Some(ACCEPT_RETRY))? == Wake::Shutdown {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Serves the frontend at the other end of `stream` until it leaves or the daemon is asked
    /// to end, and puts the device back into its initial state.
    pub fn serve_stream(&mut self, stream: UnixStream) -> Result<Served, DaemonError> {
        log_limited!(info, CONNECTED, "a frontend has connected");
        let mut session = Session::new(&self.device);
        let served = self.converse(stream, &mut session);
        let ended = session.end();
        let served = match served {
            Err(Ended::Daemon(e)) => return Err(e),
            Err(Ended::Session(SessionError::Device(e))) => return Err(e.into()),
            Err(Ended::Session(error)) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(CLOSED, error, "the connection had to be closed");
                Served::Left
            }
            Ok(served) => served,
        };
        if let Err(SessionError::Device(e)) = ended {
            return Err(e.into());
        }
        log_limited!(info, SERVED, "the frontend has been served");
        Ok(served)
    }

    fn converse(&self, stream: UnixStream, session: &mut Session<'_, T>) -> Result<Served, Ended> {
        let mut connection = Connection::to_frontend(stream);
        loop {
            let fd = connection.as_raw_fd();
            if self.wait(Some(fd), None).map_err(Ended::Daemon)? == Wake::Shutdown {
                return Ok(Served::Shutdown);
            }
            match connection.receive(&Deadline::after(IO_DEADLINE)) {
                Ok(request) => session.handle(&connection, request)?,
                Err(error) if error.is_end() => return Ok(Served::Left),
                Err(error) => return Err(SessionError::from(error).into()),
            }
        }
    }

    /// Waits for `fd`, if any, for the end, or for `timeout`.
    fn wait(&self, fd: Option<RawFd>, timeout: Option<Duration>) -> Result<Wake, DaemonError> {
        const READY: u64 = 0;
        const SHUTDOWN: u64 = 1;
        let wait = || -> io::Result<Wake> {
            let epoll = Epoll::new()?;
            let watch = |fd, token| {
                let event = EpollEvent::new(EventSet::IN, token);
                epoll.ctl(ControlOperation::Add, fd, event)
            };
            fd.map_or(Ok(()), |fd| watch(fd, READY))?;
            for fd in self.shutdown.fds() {
                watch(fd, SHUTDOWN)?;
            }
            let millis = timeout.map_or(-1, |t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
            let mut events = [EpollEvent::default(); 4];
            let count = loop {
                match epoll.wait(millis, &mut events) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    result => break result?,
                }
            };
            let events = &events[..count];
            Ok(if events.iter().any(|e| e.data() == SHUTDOWN) {
                Wake::Shutdown
            } else if events.is_empty() {
                Wake::TimedOut
            } else {
                Wake::Ready
            })
        };
        wait().map_err(DaemonError::Wait)
    }
}

/// How serving one frontend ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The frontend left or had to be left.
    Left,
    /// The daemon was asked to end.
    Shutdown,
}

enum Ended {
    Session(SessionError),
    Daemon(DaemonError),
}

impl From<SessionError> for Ended {
    fn from(error: SessionError) -> Self {
        Ended::Session(error)
    }
}
