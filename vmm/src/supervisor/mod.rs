//! Backends that this program starts, replaces and stops (SPEC `exec="…"`).
//!
//! Each runs in a process group of its own: Ctrl-C on the terminal is for the
//! guest or for this program, which then ends them in order, and a wrapper's
//! children end with it. A process that leaves its group is on its own.

mod child;
mod connector;
mod directory;
mod environment;
mod error;
mod output;
mod slot;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use child::{Child, GRACE};
use connector::Supervised;
pub use error::Error;
pub use host_io::command::CommandLine;
use slot::SharedSlot;

/// All the processes. Dropping it stops them.
pub struct Supervisor {
    slots: Mutex<Vec<SharedSlot>>,
    log: Option<String>,
}

impl Supervisor {
    /// The processes log what the filter `log` lets through, if they understand RUST_LOG.
    pub fn new(log: Option<&str>) -> Self {
        Self {
            slots: Mutex::default(),
            log: log.map(str::to_owned),
        }
    }

    /// A source of connections to processes that `command` starts for device
    /// `id`. It is to be used on the main thread, with which they end.
    pub fn connector(&self, id: &str, command: &CommandLine) -> Supervised {
        let slot = SharedSlot::default();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.push(slot.clone());
        Supervised::new(id, command.clone(), self.log.clone(), slot)
    }
}

impl Drop for Supervisor {
    /// Asks all to end, and kills those that have not when the time is over.
    fn drop(&mut self) {
        let slots = self.slots.get_mut().unwrap_or_else(PoisonError::into_inner);
        let close = |slot: &SharedSlot| slot::lock(slot).close();
        let mut children: Vec<Child> = slots.iter().filter_map(close).collect();
        children.iter_mut().for_each(Child::ask_to_end);
        let end = Instant::now() + GRACE;
        for child in children {
            child.finish(end.saturating_duration_since(Instant::now()));
        }
    }
}
