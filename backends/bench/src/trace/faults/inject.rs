//! The plan, shared by the connections of a proxy.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use vhost_user_wire::Raw;

use super::memory::ToldMemory;
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
    pub fn injector(
        &self,
        device: &str,
        backend: &UnixStream,
        process: Option<u32>,
    ) -> io::Result<Injector> {
        let plan = self.lock();
        let device = plan.device(device).ok_or_else(|| {
            io::Error::other(format!("there is no device {device:?} for the faults"))
        })?;
        let needs_process = plan.needs_process(device);
        let memory = plan.shrinks(device).then(|| ToldMemory::new(backend));
        Ok(Injector {
            faults: self.clone(),
            device,
            process: needs_process.then(|| open(process)).transpose()?,
            memory: memory.transpose()?.map(Mutex::new),
            fills: plan.fills(device),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        lock(&self.0)
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
    /// If it is to shrink. Whoever sends to the backend has it locked, so that messages do not mix.
    memory: Option<Mutex<ToldMemory>>,
    /// Some socket is to be filled.
    fills: bool,
}

impl Injector {
    /// Leaves the sender of a socket as little room as the kernel lets it have, if it is to be
    /// filled: a few messages do that then.
    pub fn narrow(&self, sender: &UnixStream) -> io::Result<()> {
        if self.fills {
            set_socket_send_buffer_size(sender, 0)?;
        }
        Ok(())
    }

    /// To be asked before a message is sent to the backend, and kept until it is sent.
    pub fn turn(&self, raw: &Raw) -> io::Result<Option<MutexGuard<'_, ToldMemory>>> {
        let memory = self.memory.as_ref().map(lock);
        memory
            .map(|mut memory| memory.learn(raw).map(|()| memory))
            .transpose()
    }

    /// Shrinks guest memory behind a message.
    pub fn shrink(&self, region: Option<u64>, bytes: Option<u64>) {
        if let Some(memory) = &self.memory {
            // A backend that has gone, or reads nothing, is not told.
            let _ = lock(memory).shrink(region.unwrap_or_default(), bytes);
        }
    }

    /// Records the fault of what passes now, if it has one. Faults of the process happen here,
    /// and memory shrinks before a signal passes; the others are the caller's.
    pub fn next(&self, occurrence: &Occurrence, recorder: &ConnectionRecorder) -> Option<Action> {
        let action = self.faults.lock().next(self.device, occurrence)?;
        recorder.event(Event::Fault {
            at: describe(occurrence),
            what: action.words(),
        });
        match action {
            Action::Stop => self.signal(Signal::STOP),
            Action::Kill => self.signal(Signal::KILL),
            Action::Shrink { region, bytes } if !occurrence.is_message() => {
                self.shrink(region, bytes);
            }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(occurrence: &Occurrence) -> String {
    match occurrence {
        Occurrence::Message { name, from, .. } => format!("{name} of the {}", from.name()),
        Occurrence::Kick(queue) => format!("kick, queue {queue}"),
        Occurrence::Call(queue) => format!("call, queue {queue}"),
    }
}
