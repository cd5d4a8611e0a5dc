//! The guest on another thread, for as long as somebody wants to know of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::memory::{Guest, Snapshot};
use crate::arch::Registers;
use crate::target::{PhysAddr, TargetError};

/// The guest as that thread reads it.
pub(super) struct SharedGuest {
    snapshot: Snapshot,
    cancelled: Arc<AtomicBool>,
}

/// Nobody reads the guest any more once this is dropped.
pub(super) struct Canceller(Arc<AtomicBool>);

impl SharedGuest {
    pub fn of(guest: &dyn Guest) -> (Self, Canceller) {
        let cancelled = Arc::new(AtomicBool::new(false));
        let snapshot = guest.snapshot();
        let canceller = Canceller(cancelled.clone());
        let shared = Self {
            snapshot,
            cancelled,
        };
        (shared, canceller)
    }
}

impl Drop for Canceller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Guest for SharedGuest {
    fn registers(&self) -> Vec<Option<Registers>> {
        self.snapshot.registers.clone()
    }

    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(TargetError::NoRam(addr)),
            false => self.snapshot.memory.read(addr, buf),
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }
}
