//! The guest's power state: its request, and the order to vCPUs to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::events::Notifier;

/// A request of a guest or its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    Off,
    Reset,
    /// By the user: always a reset, whatever `--on-reboot` says of the guest's own.
    UserReset,
    /// The guest's kernel panics, and the user wants something done about it.
    Panic,
}

/// Set by a power device on a vCPU thread; read by every vCPU thread after
/// every exit, so that a guest that asked for a reset does not run on into the
/// next method it knows (for Linux: a triple fault).
pub struct PowerSwitch {
    requested: AtomicBool,
    requests: Notifier<PowerRequest>,
}

impl PowerSwitch {
    pub fn new(requests: Notifier<PowerRequest>) -> Self {
        Self {
            requested: AtomicBool::new(false),
            requests,
        }
    }

    /// The first request counts; later ones change nothing until [`PowerSwitch::on`], but
    /// for the end, which does not wait for a reset.
    pub fn request(&self, request: PowerRequest) {
        let is_second = self.requested.swap(true, Ordering::SeqCst);
        if !is_second || request == PowerRequest::Off {
            self.requests.send(request);
        }
    }

    pub fn is_off(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// The machine is on again, after a reset.
    pub fn on(&self) {
        self.requested.store(false, Ordering::SeqCst);
    }
}
