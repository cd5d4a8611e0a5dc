//! A proxy between any frontend and any backend.
//!
//! Each connection of a frontend gets a connection of its own to the backend. What either side
//! sends is recorded and passed on as it is, its descriptors included: kicks, calls and guest
//! memory do not pass the proxy. One descriptor is replaced, the socket for the backend's own
//! requests (SET_BACKEND_REQ_FD), so that they are seen too.

mod relay;
mod session;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use host_io::sockets::{self, BindError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use vhost_user_wire::DeviceType;

use super::faults::Faults;
use super::interposer::Interposer;
use super::recorder::Recorder;
use super::rings::Rings;
pub use session::Session;

/// A backend that listens, but has no room for one more connection, may take so long.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Where the proxy stands.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where frontends connect to.
    pub listen: PathBuf,
    /// Where the backend listens.
    pub connect: PathBuf,
    /// The device's name in the trace.
    pub device: String,
    pub device_type: Option<DeviceType>,
    /// Whether kicks and calls pass the proxy too.
    pub rings: bool,
    /// What it does wrong on purpose.
    pub faults: Option<Faults>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot listen on {}", .path.display())]
    Bind { path: PathBuf, source: BindError },
    #[error("cannot wait for frontends")]
    Accept(#[source] io::Error),
}

/// Serves frontends until `quit` is readable. `tell` is called with what a user should know.
pub fn run(
    route: &Route,
    recorder: &Recorder,
    quit: BorrowedFd<'_>,
    tell: impl Fn(&str),
) -> Result<(), ProxyError> {
    let mut sessions = Vec::new();
    serve(&route.listen, quit, |frontend| {
        sessions.retain(|session: &Session| !session.is_over());
        match open(route, recorder, frontend, quit) {
            Ok(session) => sessions.push(session),
            Err(error) => tell(&unreachable(&route.connect, &error)),
        }
    })?;
    sessions.into_iter().for_each(Session::end);
    Ok(())
}

/// What a user should know of a backend that does not accept a connection.
pub fn unreachable(backend: &Path, error: &io::Error) -> String {
    let backend = backend.display();
    format!(
        "the backend cannot be reached at {backend}: {error}; the frontend's connection is closed"
    )
}

/// Listens, and hands each frontend to `open` until `quit` is readable.
pub fn serve(
    listen: &Path,
    quit: BorrowedFd<'_>,
    mut open: impl FnMut(UnixStream),
) -> Result<(), ProxyError> {
    let (listener, _file) = sockets::bind(listen).map_err(|source| ProxyError::Bind {
        path: listen.to_owned(),
        source,
    })?;
    while let Some(frontend) = accept(&listener, quit).map_err(ProxyError::Accept)? {
        open(frontend);
    }
    Ok(())
}

fn open(
    route: &Route,
    recorder: &Recorder,
    frontend: UnixStream,
    quit: BorrowedFd<'_>,
) -> io::Result<Session> {
    let backend = dial(&route.connect, quit)?;
    let process = sockets::peer(&backend);
    let inject = |faults: &Faults| faults.injector(&route.device, &backend, process);
    let injector = route.faults.as_ref().map(inject).transpose()?;
    let rings: Option<Box<dyn Interposer>> = match route.rings {
        true => Some(Box::new(Rings::new()?)),
        false => None,
    };
    let recorder = recorder.connected(&route.device, route.device_type);
    Session::start(frontend, backend, recorder, rings, injector)
}

/// The next frontend; `None` when it is time to quit.
fn accept(listener: &UnixListener, quit: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    listener.set_nonblocking(true)?;
    loop {
        if is_readable(quit, Some(listener.as_fd()), None)? {
            return Ok(None);
        }
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The client has gone, or nobody was there.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

/// Connects without waiting for longer than the limit, or when it is time to quit.
pub fn dial(path: &Path, quit: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let began = Instant::now();
    loop {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::AGAIN) if began.elapsed() < CONNECT_LIMIT => {}
            Err(error) => return Err(error.into()),
        }
        if is_readable(quit, None, Some(CONNECT_PAUSE))? {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

/// Waits until `quit` is readable, or else `other`, or until the time is over. Says whether
/// `quit` is.
fn is_readable(
    quit: BorrowedFd<'_>,
    other: Option<BorrowedFd<'_>>,
    limit: Option<Duration>,
) -> io::Result<bool> {
    let limit = limit
        .map(Timespec::try_from)
        .transpose()
        .map_err(io::Error::other)?;
    let mut fds = vec![PollFd::from_borrowed_fd(quit, PollFlags::IN)];
    fds.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(!fds[0].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "proxy_test.rs"]
mod tests;
