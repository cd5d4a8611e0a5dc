//! The plan, shared by the connections of a proxy.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

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

    /// The faults that were injected so far, as a file of faults.
    pub fn schedule(&self) -> String {
        self.lock().to_string()
    }

    /// For a connection to this backend.
    pub fn injector(&self, backend: &UnixStream) -> io::Result<Injector> {
        let needs_process = self.lock().needs_process();
        let process = needs_process.then(|| process(backend)).transpose()?;
        let faults = self.clone();
        Ok(Injector { faults, process })
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process that listens at the other end, which is never the proxy's own. A pidfd stays its
/// own when its number goes to another process.
fn process(backend: &UnixStream) -> io::Result<OwnedFd> {
    let pid = socket_peercred(backend)?.pid;
    if pid == getpid() {
        let why = "its process is the proxy's own, which cannot be stopped or killed by a fault";
        return Err(io::Error::other(why));
    }
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Injects the faults of one connection.
#[derive(Debug)]
pub struct Injector {
    faults: Faults,
    process: Option<OwnedFd>,
}

impl Injector {
    /// Records the fault of what passes now, if it has one. Faults of the process happen here;
    /// the others are the caller's.
    pub fn next(&self, occurrence: &Occurrence, recorder: &ConnectionRecorder) -> Option<Action> {
        let action = self.faults.lock().next(occurrence)?;
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
