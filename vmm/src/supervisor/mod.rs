//! Backends that this program starts, replaces and stops (SPEC `exec="…"`).
//!
//! Each runs in a process group of its own: Ctrl-C on the terminal is for the
//! guest or for this program, which then ends them in order, and a wrapper's
//! children end with it. A process that leaves its group is on its own.

mod child;
pub mod command;
mod connector;
mod output;
mod programs;

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use child::Child;
pub use command::CommandLine;
use connector::Supervised;

/// How long a backend may take to end in order, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long a killed one may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// Why a command gives no backend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot start {program:?}; it has to be a path, or the name of a program in PATH or beside outboard"
    )]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot prepare {what}")]
    Host {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("it ended before it served the device ({status}){}{hint}", said(.last_line))]
    Ended {
        status: ExitStatus,
        last_line: Option<String>,
        hint: &'static str,
    },
}

fn said(last_line: &Option<String>) -> String {
    last_line
        .as_ref()
        .map_or(String::new(), |line| format!(": {line}"))
}

/// Where the process of one device is, if there is one.
#[derive(Default)]
struct Slot {
    child: Option<Child>,
    /// The program ends: nothing is started any more.
    closed: bool,
}

type SharedSlot = Arc<Mutex<Slot>>;

fn lock(slot: &SharedSlot) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        let close = |slot: &SharedSlot| {
            let mut slot = lock(slot);
            slot.closed = true;
            slot.child.take()
        };
        let mut children: Vec<Child> = slots.iter().filter_map(close).collect();
        children.iter_mut().for_each(Child::ask_to_end);
        let end = Instant::now() + GRACE;
        for child in children {
            child.finish(end.saturating_duration_since(Instant::now()));
        }
    }
}
