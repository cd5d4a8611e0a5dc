//! A stream socket whose other end comes and goes.
//!
//! A thread of its own listens or connects, again whenever the peer has been lost. A reader or
//! writer that finds the peer lost reports it with [`Peer::lost`], after it has read all that the
//! peer had sent.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use host_io::sockets::SocketFile;
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::listener::Listener;
use crate::sandbox::{self, Thread};

/// Pause between two attempts to reach a peer that is not there.
const RETRY: Duration = Duration::from_millis(250);

/// How the two ends meet.
#[derive(Debug)]
pub enum Meet {
    /// The peer connects. While there is one, others wait in the queue.
    Listen(Listener),
    /// The peer listens there, now or later.
    Connect(PathBuf),
}

/// The near end.
#[derive(Debug)]
pub struct Peer {
    shared: Arc<Shared>,
    /// Removed with the peer: the thread, which ends with the process, drops nothing.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
struct Shared {
    current: Mutex<Option<Arc<UnixStream>>>,
    /// Signalled when `current` becomes `None`.
    left: Condvar,
    /// Readable when the peer of the moment is.
    ready: Epoll,
    changes: (EventConsumer, EventNotifier),
}

impl Peer {
    /// Begins to look for the peer; `name` is for the log.
    pub fn start(name: &'static str, mut meet: Meet) -> io::Result<Self> {
        let file = match &mut meet {
            Meet::Listen(listener) => listener.take_file(),
            Meet::Connect(_) => None,
        };
        let shared = Arc::new(Shared {
            current: Mutex::default(),
            left: Condvar::new(),
            ready: Epoll::new()?,
            changes: new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?,
        });
        let seeker = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("{name}-peer"))
            .spawn(move || {
                sandbox::enter(Thread::Peer);
                seek(name, &meet, &seeker);
            })?;
        Ok(Peer {
            shared,
            _file: file,
        })
    }

    /// The peer, if there is one now. The stream does not block.
    pub fn current(&self) -> Option<Arc<UnixStream>> {
        self.shared.lock().clone()
    }

    /// The peer on `stream` has gone.
    pub fn lost(&self, stream: &Arc<UnixStream>) {
        let mut current = self.shared.lock();
        if !current.as_ref().is_some_and(|now| Arc::ptr_eq(now, stream)) {
            return;
        }
        let event = EpollEvent::default();
        let fd = stream.as_raw_fd();
        let _ = self.shared.ready.ctl(ControlOperation::Delete, fd, event);
        // Others may hold the stream for a moment yet; its peer need not wait for them.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        *current = None;
        self.shared.left.notify_all();
        let _ = self.shared.changes.1.notify();
    }

    /// Readable when the peer has sent something or has gone.
    pub fn ready_fd(&self) -> RawFd {
        self.shared.ready.as_raw_fd()
    }

    /// Readable when a peer has come or gone since [`Peer::changed`].
    pub fn changes_fd(&self) -> RawFd {
        self.shared.changes.0.as_raw_fd()
    }

    /// Clears that event.
    pub fn changed(&self) {
        let _ = self.shared.changes.0.consume();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<UnixStream>>> {
        self.current.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn install(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let event = EpollEvent::new(EventSet::IN | EventSet::READ_HANG_UP, 0);
        let mut current = self.lock();
        self.ready
            .ctl(ControlOperation::Add, stream.as_raw_fd(), event)?;
        *current = Some(Arc::new(stream));
        self.changes.1.notify()
    }

    fn wait_until_left(&self) {
        let mut current = self.lock();
        while current.is_some() {
            current = self.left.wait(current).unwrap_or_else(|e| e.into_inner());
        }
    }
}

fn seek(name: &str, meet: &Meet, shared: &Shared) {
    loop {
        match find(meet).and_then(|stream| shared.install(stream)) {
            Ok(()) => {
                tracing::info!("the {name} peer is here");
                shared.wait_until_left();
                tracing::info!("the {name} peer has gone");
            }
            Err(error) => {
                tracing::debug!(%error, "no {name} peer yet");
                std::thread::sleep(RETRY);
            }
        }
    }
}

fn find(meet: &Meet) -> io::Result<UnixStream> {
    match meet {
        Meet::Connect(path) => UnixStream::connect(path),
        Meet::Listen(listener) => {
            let mut fds = [PollFd::new(listener, PollFlags::IN)];
            poll(&mut fds, None)?;
            listener.accept()?.ok_or(io::ErrorKind::WouldBlock.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    const DEADLINE: Duration = Duration::from_secs(10);

    fn readable(fd: RawFd) -> bool {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
        let mut events = [EpollEvent::default()];
        epoll
            .wait(DEADLINE.as_millis() as i32, &mut events)
            .unwrap()
            == 1
    }

    /// Waits for a peer other than `before`.
    fn next(peer: &Peer, before: Option<&Arc<UnixStream>>) -> Arc<UnixStream> {
        loop {
            match peer.current() {
                Some(now) if !before.is_some_and(|before| Arc::ptr_eq(before, &now)) => return now,
                _ => assert!(readable(peer.changes_fd()), "no peer"),
            }
            peer.changed();
        }
    }

    #[test]
    fn peers_come_and_go_and_both_ends_find_each_other_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let connecting = Peer::start("connecting", Meet::Connect(path.clone())).unwrap();
        assert!(connecting.current().is_none());
        let listener = Listener::bind(&path).unwrap();
        let listening = Peer::start("listening", Meet::Listen(listener)).unwrap();
        let mut before = None;
        for round in 0..3u8 {
            let near = next(&connecting, before.as_ref());
            let far = next(&listening, None);
            near.as_ref().write_all(&[round]).unwrap();
            assert!(readable(listening.ready_fd()));
            let mut byte = [9];
            far.as_ref().read_exact(&mut byte).unwrap();
            assert_eq!(byte, [round]);
            connecting.lost(&near);
            // A second report of the same loss, and a stale one, mean nothing.
            connecting.lost(&near);
            assert!(readable(listening.ready_fd()));
            assert_eq!(far.as_ref().read(&mut byte).unwrap(), 0);
            listening.lost(&far);
            before = Some(near);
        }
        drop(listening);
        assert!(!path.exists());
    }
}
