//! The plan, shared by the connections of a proxy.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::plan::{Occurrence, Plan};
use super::rule::Action;
use crate::trace::record::Event;
use crate::trace::recorder::ConnectionRecorder;

/// Clones share the plan.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(plan)))
    }

    /// What decides about all that the rules leave open.
    pub fn seed(&self) -> u32 {
        self.lock().seed()
    }

    /// The faults that were injected so far, as a file of faults.
    pub fn schedule(&self) -> String {
        self.lock().to_string()
    }

    /// For a connection of this device to a backend that is this process.
    pub fn injector(&self, device: &str, process: Option<u32>) -> io::Result<Injector> {
        let plan = self.lock();
        let device = plan.device(device).ok_or_else(|| {
            io::Error::other(format!("there is no device {device:?} for the faults"))
        })?;
        let needs_process = plan.needs_process(device);
        Ok(Injector {
            faults: self.clone(),
            device,
            process: needs_process.then(|| open(process)).transpose()?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pidfd stays the process's own when its number goes to another.
fn open(process: Option<u32>) -> io::Result<OwnedFd> {
    let pid = process.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    let Some(pid) = pid.filter(|pid| *pid != getpid()) else {
        let why = "its process is this program's own, which cannot be stopped or killed by a fault";
        return Err(io::Error::other(why));
    };
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Injects the faults of one connection.
#[derive(Debug)]
pub struct Injector {
    faults: Faults,
    /// Its number in the plan.
    device: usize,
    process: Option<OwnedFd>,
}

impl Injector {
    /// Records the fault of what passes now, if it has one. Faults of the process happen here;
    /// the others are the caller's.
    pub fn next(&self, occurrence: &Occurrence, recorder: &ConnectionRecorder) -> Option<Action> {
        let action = self.faults.lock().next(self.device, occurrence)?;
        recorder.event(Event::Fault {
            at: describe(occurrence),
            what: action.words(),
        });
        match action {
            Action::Stop => self.signal(Signal::STOP),
            Action::Kill => self.signal(Signal::KILL),
            _ => return Some(action),
        }
        None
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // One that has ended needs no signal.
            let _ = pidfd_send_signal(process.as_fd(), signal);
        }
    }
}

fn describe(occurrence: &Occurrence) -> String {
    match occurrence {
        Occurrence::Message { name, from, .. } => format!("{name} of the {}", from.name()),
        Occurrence::Kick(queue) => format!("kick, queue {queue}"),
        Occurrence::Call(queue) => format!("call, queue {queue}"),
    }
}
