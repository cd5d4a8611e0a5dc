//! Connections to processes that are started for them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use devices::vhost_user::{Connector, Problem};

use super::child::Child;
use super::directory::SocketDirectory;
use super::error::Error;
use super::slot::{SharedSlot, Slot, lock};
use host_io::command::{CommandLine, Handover};

/// How long a process whose socket is closed may take to end, so that its exit
/// status is known.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// One process at a time, one connection a process.
pub struct Supervised {
    id: String,
    command: CommandLine,
    /// The log filter for the process, if not its own default.
    log: Option<String>,
    slot: SharedSlot,
    /// The process has been connected to.
    is_used: bool,
    /// Where the socket of a process that listens is.
    dir: Option<SocketDirectory>,
    /// The last complaint, which is not repeated.
    complaint: String,
}

impl Supervised {
    pub(super) fn new(
        id: &str,
        command: CommandLine,
        log: Option<String>,
        slot: SharedSlot,
    ) -> Self {
        Self {
            id: id.to_owned(),
            command,
            log,
            slot,
            is_used: false,
            dir: None,
            complaint: String::new(),
        }
    }

    fn try_connect(&mut self) -> Result<UnixStream, Problem> {
        let slot = self.slot.clone();
        let mut slot = lock(&slot);
        if slot.is_closed() {
            return Err(Problem::NotReady("the program ends"));
        }
        if self.is_used {
            if slot.child().is_some_and(|child| !child.is_ending()) {
                return Err(Problem::NotReady("the process before it has yet to end"));
            }
            slot.take_child().and_then(Child::reap);
            self.is_used = false;
        }
        if slot.child().is_none() {
            let (child, stream) = self.start().map_err(command)?;
            slot.set_child(child);
            if let Some(stream) = stream {
                self.is_used = true;
                return Ok(stream);
            }
        }
        let stream = self.dial(&mut slot)?;
        self.is_used = true;
        Ok(stream)
    }

    /// A process, and the connection to it unless it is to listen first.
    fn start(&mut self) -> Result<(Child, Option<UnixStream>), Error> {
        let host = |what| move |source| Error::Host { what, source };
        let start = |value: &str, fd| {
            let log = self.log.as_deref();
            Child::start(&self.id, &self.command, log, value, fd)
        };
        match self.command.handover {
            Handover::Connected => {
                let (ours, theirs) = UnixStream::pair().map_err(host("a pair of sockets"))?;
                let number = theirs.as_raw_fd().to_string();
                let child = start(&number, Some(theirs.as_fd()))?;
                Ok((child, Some(ours)))
            }
            Handover::Listening => {
                let (theirs, ours) = listening().map_err(host("a listening socket"))?;
                let number = theirs.as_raw_fd().to_string();
                let child = start(&number, Some(theirs.as_fd()))?;
                Ok((child, Some(ours)))
            }
            Handover::Path => {
                let dir = SocketDirectory::new().map_err(host("a directory for its socket"))?;
                let path = dir.path().join(SOCKET);
                let child = start(&path.to_string_lossy(), None)?;
                self.dir = Some(dir);
                Ok((child, None))
            }
        }
    }

    /// Connects to a process that is to listen.
    fn dial(&self, slot: &mut Slot) -> Result<UnixStream, Problem> {
        if let Some(ended) = self.ended(slot, Duration::ZERO) {
            return Err(ended);
        }
        let not_ready = Problem::NotReady(
            "its process runs, but does not listen where {socket} in its command says",
        );
        let Some(dir) = &self.dir else {
            return Err(not_ready);
        };
        // The queue is empty, so that this does not block.
        let dial = |name| UnixStream::connect(dir.path().join(name)).ok();
        [SOCKET, NUMBERED]
            .into_iter()
            .find_map(dial)
            .ok_or(not_ready)
    }

    /// Tells how the process has ended, if it does so in time.
    fn ended(&self, slot: &mut Slot, within: Duration) -> Option<Problem> {
        let ended = slot.ended(within)?;
        Some(command(Error::Ended {
            status: ended.status,
            last_line: ended.last_line,
            hint: self.command.hint(),
        }))
    }

    /// Reports a problem with the command, unless it was the last one reported.
    fn complain(&mut self, problem: &Problem) {
        let source = std::error::Error::source(problem);
        let complaint = source.map(ToString::to_string).unwrap_or_default();
        if !complaint.is_empty() && complaint != self.complaint {
            tracing::warn!(device = self.id, "no backend yet: {complaint}");
            self.complaint = complaint;
        }
    }
}

impl Connector for Supervised {
    fn connect(&mut self) -> Result<UnixStream, Problem> {
        let result = self.try_connect();
        match &result {
            Ok(_) => self.complaint.clear(),
            Err(problem) if problem.may_pass() => {}
            Err(problem) => self.complain(problem),
        }
        result
    }

    fn kill(&mut self) -> bool {
        self.is_used = true;
        lock(&self.slot).child().is_none_or(Child::kill)
    }

    fn exit_report(&mut self) -> Option<Problem> {
        self.ended(&mut lock(&self.slot), END_DEADLINE)
    }

    fn is_supervisor(&self) -> bool {
        true
    }

    fn process(&self) -> Option<u32> {
        lock(&self.slot).child().map(|child| child.pid())
    }

    fn replace(&mut self) {
        self.is_used = true;
        if let Some(child) = lock(&self.slot).child() {
            child.ask_to_end();
        }
    }
}

const SOCKET: &str = "backend.sock";
/// The name that backends make of it that can serve several guests and number their
/// sockets, as vhost-device-rng does.
const NUMBERED: &str = "backend.sock0";

fn command(error: Error) -> Problem {
    Problem::Command(Box::new(error))
}

/// A socket that listens, and a connection that waits on it. The path is gone
/// when this returns: nobody else connects.
fn listening() -> io::Result<(UnixListener, UnixStream)> {
    let dir = SocketDirectory::new()?;
    let path = dir.path().join(SOCKET);
    let listener = UnixListener::bind(&path)?;
    let stream = UnixStream::connect(&path)?;
    Ok((listener, stream))
}
