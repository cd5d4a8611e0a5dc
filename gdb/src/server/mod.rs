//! The gdb server: the body of the VMM's gdb thread.
//!
//! [`serve`] waits on the listening socket, the connection, the guest's events
//! and the VMM's stop request, and never polls. While nobody is attached it
//! touches nothing of the guest.

mod address;
mod agreed;
mod ahead;
mod client;
mod detacher;
mod dialect;
mod inlet;
mod listener;
mod poller;
mod refused;
mod silence;
mod stream;
mod stub;
mod waited;
mod wire;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

pub use address::{Address, AddressError};
pub use detacher::{DetachError, DetachRequests, Detacher, detacher};
pub use listener::{ListenError, Listener};

use self::client::{Client, Leave};
use self::poller::{Poller, Ready};
use self::refused::RefusedClients;
use self::stream::Stream;
use crate::session::Session;
use crate::target::Target;

/// How often a running guest is checked that has breakpoints waiting for their pages, or
/// a step that takes long. A check stops it for less than a millisecond.
const PENDING_INTERVAL: Duration = Duration::from_millis(50);

/// Tokens of the polled descriptors. Refused clients count from the last.
const STOP: u64 = 0;
const LISTENER: u64 = 1;
const TARGET: u64 = 2;
const CLIENT: u64 = 3;
const DETACH: u64 = 4;
const REFUSED: u64 = 5;

/// How long a guest stays stopped for a gdb that was told to attach again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a gdb that comes while the guest runs to the kernel's place may wait to
/// be accepted, at most: gdb waits two seconds for an answer.
const ON_ITS_WAY: Duration = Duration::from_millis(1500);

/// Where the guest waits for gdb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It runs already.
    No,
    /// The VMM holds it before its first instruction until gdb says `continue` (or
    /// detaches).
    Start,
    /// The VMM holds it likewise, and [`serve`] lets it run to where Linux has found its
    /// place.
    Kernel,
}

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    pub wait: Wait,
    /// gdb's `kill` is the end of the guest; without it, it is a `detach`.
    pub kill: bool,
    /// Readable once the VMM wants [`serve`] to return, for example an eventfd.
    /// It is only polled, never read.
    pub stop: BorrowedFd<'a>,
    /// Wishes to have the client detached.
    pub detach: &'a DetachRequests,
}

/// Why [`serve`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest is gone, with this exit status.
    GuestExited(u8),
    /// The VMM asked through [`Options::stop`].
    Stopped,
}

/// The server cannot continue. The guest is unharmed, but no gdb can attach.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the gdb server cannot wait for events")]
    Wait(#[source] io::Error),
    #[error("the gdb server cannot accept a connection")]
    Accept(#[source] io::Error),
}

/// Serves one gdb at a time until the guest ends or the VMM asks to stop.
///
/// Blocks; the VMM gives it a thread of its own. However a client leaves, the guest keeps
/// running with nothing planted and nothing armed, except for a trace that the client
/// wants to continue. On [`Options::stop`] an attached client is detached first, and such
/// a trace ends.
///
/// # Errors
/// The host refuses to poll or accept. The trouble of one client is not an
/// error: it ends that client's connection and is logged.
pub fn serve(
    listener: &Listener,
    target: &mut dyn Target,
    options: &Options<'_>,
) -> Result<Ended, ServeError> {
    let mut server = Server::new(listener, target, options).map_err(ServeError::Wait)?;
    tracing::info!(
        address = %listener.address(),
        "{}",
        match options.wait {
            Wait::No => "gdb may attach",
            Wait::Start => "the guest waits for gdb",
            Wait::Kernel => "the guest will wait for gdb where Linux has found its place",
        }
    );
    if options.wait == Wait::Kernel {
        server.session.run_to_kernel();
    }
    let ended = server.run();
    server.release_client();
    server.session.abandon_trace();
    ended
}

/// The thread's state.
struct Server<'a, 't> {
    listener: &'a Listener,
    poller: Poller,
    session: Session<'t>,
    client: Option<Client<'t>>,
    refused: RefusedClients,
    detach: &'a DetachRequests,
    kill: bool,
    /// Until when the guest stays stopped for a gdb that was told to attach again.
    kept_until: Option<Instant>,
    /// Until when a gdb that has come too early waits to be accepted.
    early_until: Option<Instant>,
}

impl<'a, 't> Server<'a, 't> {
    fn new(
        listener: &'a Listener,
        target: &'t mut dyn Target,
        options: &Options<'a>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(options.stop, STOP)?;
        poller.add(listener, LISTENER)?;
        poller.add(target.event_fd(), TARGET)?;
        poller.add(options.detach, DETACH)?;
        Ok(Self {
            listener,
            poller,
            session: Session::new(target),
            client: None,
            refused: RefusedClients::default(),
            detach: options.detach,
            kill: options.kill,
            kept_until: None,
            early_until: None,
        })
    }

    fn run(&mut self) -> Result<Ended, ServeError> {
        loop {
            let timeout = self.timeout();
            let ready = self.poller.wait(timeout).map_err(ServeError::Wait)?;
            if ready.is_empty() {
                self.serve_pending()?;
            }
            for ready in ready {
                let stop = ready.token == STOP;
                if stop {
                    // The VMM may have told of the guest's end just before.
                    self.on_event()?;
                } else {
                    self.dispatch(ready)?;
                }
                if let Some(status) = self.session.exited() {
                    return Ok(Ended::GuestExited(status));
                }
                if stop {
                    return Ok(Ended::Stopped);
                }
            }
            self.refused.expire(Instant::now());
            self.expire(Instant::now())?;
        }
    }

    /// Ends the waits that are over, by time or by success.
    fn expire(&mut self, now: Instant) -> Result<(), ServeError> {
        if self.kept_until.is_some_and(|until| until <= now) {
            tracing::info!("gdb has not attached again; the guest runs");
            self.session.give_up_gdb();
        }
        if !self.session.is_kept_for_gdb() {
            self.kept_until = None;
        }
        let there = |until| until <= now || !self.session.runs_to_kernel();
        if self.early_until.is_some_and(there) {
            self.early_until = None;
            self.poller
                .set(self.listener, LISTENER, true, false)
                .map_err(ServeError::Wait)?;
            return self.accept();
        }
        Ok(())
    }

    /// Lets a gdb that comes while the guest is on its way to the kernel wait for a
    /// moment; whether it did.
    fn leave_waiting(&mut self) -> Result<bool, ServeError> {
        if !self.session.runs_to_kernel() || self.client.is_some() {
            return Ok(false);
        }
        self.early_until = Some(Instant::now() + ON_ITS_WAY);
        self.poller
            .set(self.listener, LISTENER, false, false)
            .map_err(ServeError::Wait)?;
        Ok(true)
    }

    fn timeout(&self) -> Option<Duration> {
        let refused = self.refused.timeout(Instant::now());
        let pending = self.session.has_pending().then_some(PENDING_INTERVAL);
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let kept = self.kept_until.map(left);
        let early = self.early_until.map(left);
        refused
            .into_iter()
            .chain(pending)
            .chain(kept)
            .chain(early)
            .min()
    }

    fn serve_pending(&mut self) -> Result<(), ServeError> {
        if !self.session.has_pending() {
            return Ok(());
        }
        match &self.client {
            Some(client) if client.is_attached() => self.with_client(|client, session| {
                session.serve_pending();
                client.on_stop(session)
            }),
            _ => {
                self.session.serve_pending_unattended();
                Ok(())
            }
        }
    }

    fn dispatch(&mut self, ready: Ready) -> Result<(), ServeError> {
        match ready.token {
            LISTENER if self.leave_waiting()? => Ok(()),
            LISTENER => self.accept(),
            TARGET => self.on_event(),
            DETACH => {
                self.detach();
                Ok(())
            }
            CLIENT => self.with_client(|client, session| client.on_ready(session).map(drop)),
            token => {
                self.refused.on_ready(token);
                Ok(())
            }
        }
    }

    fn accept(&mut self) -> Result<(), ServeError> {
        let Some(stream) = self.listener.accept().map_err(ServeError::Accept)? else {
            return Ok(());
        };
        // A client that has just left may not have been noticed yet.
        self.with_client(|client, session| client.check(session))?;
        if self.client.is_some() {
            return self.refuse(stream).map_err(ServeError::Wait);
        }
        match Client::new(stream, &mut self.session) {
            Ok(client) => {
                self.poller.add(&client, CLIENT).map_err(ServeError::Wait)?;
                self.client = Some(client);
            }
            Err(error) => tracing::warn!("gdb cannot attach: {error}"),
        }
        Ok(())
    }

    fn refuse(&mut self, stream: Stream) -> io::Result<()> {
        tracing::info!("a second debugger was refused");
        match self.refused.add(stream, REFUSED, Instant::now()) {
            Some((token, fd)) => self.poller.add(fd, token),
            None => Ok(()),
        }
    }

    fn on_event(&mut self) -> Result<(), ServeError> {
        match &mut self.client {
            Some(client) if client.is_attached() => {
                self.session.on_event();
                let result = client.on_stop(&mut self.session);
                self.after(result)
            }
            _ => {
                self.session.on_unattended_event();
                Ok(())
            }
        }
    }

    fn with_client(
        &mut self,
        act: impl FnOnce(&mut Client<'t>, &mut Session<'t>) -> Result<(), Leave>,
    ) -> Result<(), ServeError> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let attached = client.is_attached();
        let result = act(client, &mut self.session);
        if !attached && client.is_attached() {
            tracing::info!("gdb attached");
        }
        self.after(result)
    }

    /// Continues with the client, or without it.
    fn after(&mut self, result: Result<(), Leave>) -> Result<(), ServeError> {
        match result {
            Ok(()) => self.watch_client().map_err(ServeError::Wait),
            Err(leave) => {
                self.leave(&leave);
                Ok(())
            }
        }
    }

    /// Detaches the client as somebody else has wished, and says so.
    fn detach(&mut self) {
        while let Some(answer) = self.detach.take() {
            let had_client = self.client.is_some();
            if had_client {
                tracing::warn!("gdb was detached through the control API");
                self.release_client();
            }
            // The caller may have given up waiting.
            let _ = answer.send(had_client);
        }
    }

    fn leave(&mut self, leave: &Leave) {
        match leave {
            Leave::Killed if self.kill => {
                tracing::info!("gdb killed the guest");
                self.close_client();
                return self.session.kill();
            }
            Leave::Killed => tracing::info!("gdb's kill is a detach without --gdb-kill"),
            Leave::Detached => tracing::info!("gdb detached"),
            Leave::Closed if self.keep_guest() => {
                return tracing::info!("gdb was told to attach again: the guest waits for it");
            }
            Leave::Closed => tracing::info!("gdb's connection was closed"),
            Leave::Exited(status) => tracing::info!(status, "gdb saw the guest exit"),
            Leave::Fault(fault) => tracing::warn!("gdb's connection is dropped: {fault}"),
        }
        self.release_client();
    }

    /// Closes the connection of a gdb that was told to attach again, and keeps the guest
    /// stopped for it; whether it was told.
    fn keep_guest(&mut self) -> bool {
        let kept = self.session.keep_for_gdb();
        if kept {
            self.close_client();
            self.kept_until = Some(Instant::now() + PATIENCE);
        }
        kept
    }

    /// Waits for input, or, while answers wait, for the socket to take them.
    fn watch_client(&mut self) -> io::Result<()> {
        match &mut self.client {
            Some(client) => {
                let blocked = client.is_blocked();
                self.poller.set(&*client, CLIENT, !blocked, blocked)
            }
            None => Ok(()),
        }
    }

    /// Closes the connection and lets the guest run as if it had never been.
    fn release_client(&mut self) {
        if self.close_client() {
            self.session.detach();
        }
    }

    /// Closes the connection; whether the client was attached.
    fn close_client(&mut self) -> bool {
        let Some(mut client) = self.client.take() else {
            return false;
        };
        client.farewell();
        client.is_attached()
    }
}

#[cfg(test)]
mod disconnected_test;
#[cfg(test)]
mod fuzz_test;
#[cfg(test)]
mod gdb_test;
#[cfg(test)]
mod modes_test;
#[cfg(test)]
mod slow_test;
#[cfg(test)]
#[path = "serve_test.rs"]
mod tests;
#[cfg(test)]
mod trace_file_test;
#[cfg(test)]
mod trace_test;
