//! The backend's processes of one check.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use host_io::errors::chain;

use crate::driver::{Awaited, Patience};
use crate::target::{Exit, GRACE, Instance, Process, START, Target, TargetError};

/// Starts processes, one after another, and keeps what became of them.
#[derive(Debug)]
pub struct Processes<'a> {
    target: &'a Target,
    /// One process serves one connection after another.
    reconnects: bool,
    patience: Patience,
    current: Option<Instance>,
    ended: Ended,
}

/// How they ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The first that crashed.
    pub crash: Option<Exit>,
    /// Why there was no process where the check needed one.
    pub not_started: Option<String>,
    /// The last lines of the one that crashed, or of the last.
    pub output: Vec<String>,
}

impl<'a> Processes<'a> {
    pub fn new(target: &'a Target, reconnects: bool, patience: Patience) -> Self {
        Self {
            target,
            reconnects,
            patience,
            current: None,
            ended: Ended::default(),
        }
    }

    /// The next connection to the process that runs, or the first one to another process.
    pub fn connect(&mut self) -> Result<UnixStream, TargetError> {
        if self.reconnects
            && let Some(instance) = self.current.as_mut()
            && let Some(stream) = instance.connect()?
        {
            return Ok(stream);
        }
        // The one before has to be gone: both may want the same files.
        self.end_current();
        let started = self.start();
        if let Err(error) = &started {
            self.ended.not_started = Some(chain(error));
        }
        started
    }

    fn start(&mut self) -> Result<UnixStream, TargetError> {
        let instance = self.current.insert(self.target.start()?);
        let limit = self.patience.limit(Awaited::Listener, START);
        let stream = instance.connect_within(limit);
        if let Err(TargetError::NotListening { .. }) = stream {
            self.patience.ran_out(Awaited::Listener);
        }
        stream?.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    }

    /// Kills the process that runs; whether there is one.
    pub fn kill(&mut self) -> bool {
        let Some(mut instance) = self.current.take() else {
            return false;
        };
        let Some(process) = instance.process() else {
            return false;
        };
        let exit = process.exit_within(Duration::ZERO);
        process.kill();
        self.note(exit, process);
        true
    }

    /// Ends the process that runs, and tells of all.
    pub fn finish(&mut self) -> Ended {
        self.end_current();
        std::mem::take(&mut self.ended)
    }

    fn end_current(&mut self) {
        let Some(mut instance) = self.current.take() else {
            return;
        };
        if let Some(process) = instance.process() {
            let exit = process.finish(self.patience.limit(Awaited::End, GRACE));
            if exit.is_none() {
                self.patience.ran_out(Awaited::End);
            }
            self.note(exit, process);
        }
    }

    /// A process ended so by itself.
    fn note(&mut self, exit: Option<Exit>, process: &mut Process) {
        if self.ended.crash.is_none() {
            self.ended.crash = exit.filter(|exit| exit.is_crash());
            self.ended.output = process.last_lines();
        }
    }
}

#[cfg(test)]
#[path = "processes_test.rs"]
mod tests;
