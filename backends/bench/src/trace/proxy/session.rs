//! One frontend and its backend.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Scope};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use vhost::vhost_user::message::FrontendReq;
use vhost_user_wire::Raw;

use super::relay::{End, Relay};
use crate::trace::faults::Injector;
use crate::trace::interposer::Interposer;
use crate::trace::record::{Event, Side};
use crate::trace::recorder::ConnectionRecorder;

/// A frontend and a backend that are connected through threads.
pub struct Session {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    frontend: UnixStream,
    backend: UnixStream,
    /// Both sockets of each channel for requests of the backend.
    beside: Mutex<Vec<UnixStream>>,
    recorder: ConnectionRecorder,
    /// Kicks and calls pass it, if somebody wants to know of them.
    rings: Option<Box<dyn Interposer>>,
    injector: Option<Injector>,
    /// Whether it is known who hung up.
    is_closed: Mutex<bool>,
}

impl Session {
    /// Messages pass. Signals do too, past this process unless somebody is between the rings.
    pub fn start(
        frontend: UnixStream,
        backend: UnixStream,
        recorder: ConnectionRecorder,
        rings: Option<Box<dyn Interposer>>,
        injector: Option<Injector>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            frontend,
            backend,
            beside: Mutex::default(),
            recorder,
            rings,
            injector,
            is_closed: Mutex::default(),
        });
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("session".into());
        let thread = thread.spawn(move || theirs.run())?;
        Ok(Self { shared, thread })
    }

    /// Whether both sides have gone.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Whether a side has hung up, though threads may still be at work.
    pub fn is_ending(&self) -> bool {
        let has_gone = |stream: &UnixStream| {
            let mut fds = [PollFd::new(stream, PollFlags::empty())];
            poll(&mut fds, Some(&Timespec::default())).is_ok() && !fds[0].revents().is_empty()
        };
        self.is_over() || has_gone(&self.shared.frontend) || has_gone(&self.shared.backend)
    }

    /// Hangs up to both sides, at the end of the trace.
    pub fn end(self) {
        let is_closed = &self.shared.is_closed;
        let mut is_closed = is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_closed, true) {
            self.shared.recorder.event(Event::End);
        }
        drop(is_closed);
        self.shared.shut_down();
        // A panic has been reported by then.
        let _ = self.thread.join();
    }
}

impl Shared {
    fn run(&self) {
        thread::scope(|scope| {
            if self.pass_signals_on(scope).is_err() {
                return self.shut_down();
            }
            let replies = thread::Builder::new().name("replies".into());
            let replies = replies.spawn_scoped(scope, || {
                let sockets = (&self.backend, &self.frontend);
                self.relay(sockets, Side::Backend, &mut |raw| self.edit_reply(raw));
            });
            if replies.is_ok() {
                let sockets = (&self.frontend, &self.backend);
                self.relay(sockets, Side::Frontend, &mut |raw| self.edit(raw, scope));
            }
            // The threads of the channels beside it end with the connection.
            drop(replies.map(|replies| replies.join()));
            self.shut_down();
        });
    }

    fn relay(
        &self,
        sockets: (&UnixStream, &UnixStream),
        sender: Side,
        edit: &mut super::relay::Edit<'_>,
    ) {
        let sides = (Side::Frontend, sender);
        let injector = self.injector.as_ref();
        let Ok(mut relay) = Relay::new(sockets, sides, &self.recorder, injector) else {
            return self.shut_down();
        };
        match relay.run(edit) {
            End::Closed(side) => {
                self.closed(side);
                // What cannot be shut down is gone already.
                let _ = relay.hang_up();
            }
            End::Cut => self.cut(),
            End::Failed => self.shut_down(),
        }
    }

    /// By a fault, which the trace has: neither side has hung up.
    fn cut(&self) {
        let is_closed = &self.is_closed;
        *is_closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shut_down();
    }

    /// Notes who was the first to hang up.
    fn closed(&self, by: Side) {
        let mut is_closed = self
            .is_closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_closed, true) {
            self.recorder.closed(by);
            if let Some(rings) = &self.rings {
                rings.closed(by);
            }
        }
    }

    fn shut_down(&self) {
        let beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in [&self.frontend, &self.backend].into_iter().chain(&*beside) {
            // One that is shut down already is.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(rings) = &self.rings {
            rings.end();
        }
    }

    fn pass_signals_on<'s>(&'s self, scope: &'s Scope<'s, '_>) -> io::Result<()> {
        let Some(rings) = &self.rings else {
            return Ok(());
        };
        let thread = thread::Builder::new().name("rings".into());
        thread.spawn_scoped(scope, || {
            match rings.run(&self.recorder, self.injector.as_ref()) {
                Ok(true) => self.cut(),
                Ok(false) => {}
                // Without signals nothing works.
                Err(_) => self.shut_down(),
            }
        })?;
        Ok(())
    }

    /// Changes what a message of the frontend hands over.
    fn edit<'s>(&'s self, raw: &mut Raw, scope: &'s Scope<'s, '_>) -> io::Result<()> {
        if let Some(rings) = &self.rings {
            rings.request(raw)?;
        }
        self.interpose(raw, scope)
    }

    fn edit_reply(&self, raw: &mut Raw) -> io::Result<()> {
        match &self.rings {
            Some(rings) => rings.reply(raw),
            None => Ok(()),
        }
    }

    /// Puts a socket of the proxy's in the place of the frontend's, if this hands one over for
    /// the backend's requests.
    fn interpose<'s>(&'s self, raw: &mut Raw, scope: &'s Scope<'s, '_>) -> io::Result<()> {
        let code = raw.header().map(|header| header.request);
        let is_socket = |file: &File| {
            fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
        };
        match &mut raw.files[..] {
            [file] if code == Some(FrontendReq::SET_BACKEND_REQ_FD.into()) && is_socket(file) => {
                let frontend = UnixStream::from(file.as_fd().try_clone_to_owned()?);
                let (near, far) = UnixStream::pair()?;
                if let Some(injector) = &self.injector {
                    injector.narrow(&far)?;
                }
                self.relay_beside(frontend, near, scope)?;
                *file = File::from(OwnedFd::from(far));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Passes on the backend's requests and the frontend's answers.
    fn relay_beside<'s>(
        &'s self,
        frontend: UnixStream,
        backend: UnixStream,
        scope: &'s Scope<'s, '_>,
    ) -> io::Result<()> {
        let directions = [
            (Side::Backend, (&backend, &frontend)),
            (Side::Frontend, (&frontend, &backend)),
        ];
        for (sender, sockets) in directions {
            let sides = (Side::Backend, sender);
            let injector = self.injector.as_ref();
            let mut relay = Relay::new(sockets, sides, &self.recorder, injector)?;
            let thread = thread::Builder::new().name("requests".into());
            thread.spawn_scoped(scope, move || {
                if relay.run(&mut |_| Ok(())) == End::Cut {
                    self.cut();
                }
                let _ = relay.hang_up();
            })?;
        }
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        beside.extend([frontend, backend]);
        Ok(())
    }
}
