//! The machine's virtio devices, each behind a lock of its own. A wait for a backend
//! holds that lock, so a thread that must not wait must not take it.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use devices::vhost_user::Handle;
use devices::virtio::MmioTransport;
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::events::borrow;
use crate::locks::lock_within;
use crate::machine_events::{MachineEvent, MachineEvents};

/// A transport as all who use it share it.
#[derive(Clone)]
pub struct SharedTransport {
    id: Arc<str>,
    transport: Arc<Mutex<MmioTransport>>,
    backend: Handle,
}

impl SharedTransport {
    /// `backend` is the handle of the transport's device.
    pub fn new(transport: MmioTransport, backend: Handle) -> Self {
        Self {
            id: transport.id().into(),
            transport: Arc::new(Mutex::new(transport)),
            backend,
        }
    }

    /// The device's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The device's other side. Only who has the transport's lock may wait for it.
    pub fn backend(&self) -> &Handle {
        &self.backend
    }

    /// For the bus.
    pub fn device(&self) -> &Arc<Mutex<MmioTransport>> {
        &self.transport
    }

    /// A device half-way through a panic is still the guest's device.
    pub fn lock(&self) -> MutexGuard<'_, MmioTransport> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless the device is in use for all of this time.
    pub fn lock_within(&self, patience: Duration) -> Option<MutexGuard<'_, MmioTransport>> {
        lock_within(&self.transport, patience)
    }
}

/// Tells `events` from here on of backends that come and go, and of devices that need a reset.
pub fn tell(transports: &[SharedTransport], events: &Arc<MachineEvents>) {
    for shared in transports {
        let (device, events) = (shared.id().to_owned(), events.clone());
        let (id, teller) = (device.clone(), events.clone());
        shared.backend().backend_status().observe(move |backend| {
            let device = device.clone();
            events.tell(match backend.connected {
                true => MachineEvent::BackendConnected {
                    device,
                    connections: backend.connections,
                },
                false => MachineEvent::BackendLost {
                    device,
                    reason: backend.problem.clone().unwrap_or_default(),
                },
            });
        });
        shared.lock().set_on_broken(Box::new(move |reason| {
            teller.tell(MachineEvent::NeedsReset {
                device: id.clone(),
                reason: reason.to_string(),
            });
        }));
    }
}

/// Resets all side by side: each may take as long as an access of the guest.
pub fn reset_all(transports: &[SharedTransport]) {
    thread::scope(|scope| {
        for transport in transports {
            let reset = || transport.lock().reset();
            let spawned = thread::Builder::new()
                .name("device reset".into())
                .spawn_scoped(scope, reset);
            if spawned.is_err() {
                reset();
            }
        }
    });
}

/// Threads that handle events of backends, one a device: a wait for one backend holds up
/// no other, nor the event loop.
pub struct Listeners(Arc<EventFd>);

impl Listeners {
    pub fn start(transports: &[SharedTransport]) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        for transport in transports {
            let (transport, stop) = (transport.clone(), stop.clone());
            thread::Builder::new()
                .name("device".into())
                .spawn(move || listen(&transport, &stop))?;
        }
        Ok(Self(stop))
    }
}

impl Drop for Listeners {
    /// No thread begins anything more. One that waits for a backend is left behind.
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}

fn listen(transport: &SharedTransport, stop: &EventFd) {
    let events = transport
        .lock()
        .event_fd()
        .map(|fd| fd.try_clone_to_owned());
    let events = match events {
        Some(Ok(events)) => events,
        Some(Err(error)) => {
            return tracing::error!(device = transport.id(), %error, "its backend is not heard");
        }
        None => return,
    };
    let wanted = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    loop {
        let mut fds = [wanted(events.as_fd()), wanted(borrow(stop))];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => drop(transport.lock().handle_event()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return tracing::error!(device = transport.id(), %error, "its backend is not heard");
            }
        }
    }
}
