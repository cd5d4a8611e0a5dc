//! Detaching the client at somebody else's wish.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// How long the server may take. It may have to wait for vCPUs.
const DEADLINE: Duration = Duration::from_secs(30);

/// The server did not detach its client, nor say that it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetachError {
    #[error("the gdb server has ended")]
    Ended,
    #[error("the gdb server has not answered within {} s", DEADLINE.as_secs())]
    Late,
}

/// For other threads than the server's.
#[derive(Debug)]
pub struct Detacher {
    requests: Sender<Sender<bool>>,
    wake: UnixStream,
}

/// For the server.
#[derive(Debug)]
pub struct DetachRequests {
    requests: Receiver<Sender<bool>>,
    wake: UnixStream,
    /// The other end, which nobody else may have: a closed one would wake for good.
    _open: UnixStream,
}

/// The two ends.
///
/// # Errors
/// The host has no socket left.
pub fn detacher() -> io::Result<(Detacher, DetachRequests)> {
    let (sender, receiver) = mpsc::channel();
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let open = ours.try_clone()?;
    let detacher = Detacher {
        requests: sender,
        wake: ours,
    };
    let requests = DetachRequests {
        requests: receiver,
        wake: theirs,
        _open: open,
    };
    Ok((detacher, requests))
}

impl Detacher {
    /// Detaches the client, as if its connection had been lost, and waits until the guest
    /// is let go. Whether there was a client.
    ///
    /// # Errors
    /// The server does not do it.
    pub fn detach(&self) -> Result<bool, DetachError> {
        let (sender, answer) = mpsc::channel();
        let sent = self.requests.send(sender);
        sent.map_err(|_| DetachError::Ended)?;
        // A full socket is readable too.
        let _ = (&self.wake).write(b"!");
        answer.recv_timeout(DEADLINE).map_err(|error| match error {
            RecvTimeoutError::Timeout => DetachError::Late,
            RecvTimeoutError::Disconnected => DetachError::Ended,
        })
    }
}

impl DetachRequests {
    /// The oldest request: where its answer goes, which is whether there was a client.
    pub(super) fn take(&self) -> Option<Sender<bool>> {
        // Cleared first: a request from here on wakes the server again.
        while matches!((&self.wake).read(&mut [0; 64]), Ok(1..)) {}
        self.requests.try_recv().ok()
    }
}

impl AsFd for DetachRequests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::poller::Poller;

    #[test]
    fn a_server_that_has_ended_is_told_of() {
        let (detacher, requests) = detacher().unwrap();
        drop(requests);
        assert_eq!(detacher.detach(), Err(DetachError::Ended));
    }

    #[test]
    fn nobody_who_could_ask_is_no_request() {
        let (detacher, requests) = detacher().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(&requests, 0).unwrap();
        drop(detacher);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
    }

    #[test]
    fn each_request_gets_its_answer() {
        let (detacher, requests) = detacher().unwrap();
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| [detacher.detach(), detacher.detach()]);
            for answer in [true, false] {
                let request = std::iter::from_fn(|| Some(requests.take()));
                let request = request.flatten().next().unwrap();
                request.send(answer).unwrap();
            }
            assert_eq!(asking.join().unwrap(), [Ok(true), Ok(false)]);
        });
    }
}
