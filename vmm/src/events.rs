//! A channel whose receiver can be waited for with epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The sending half: any number of threads, never blocks.
pub struct Notifier<T> {
    sender: mpsc::Sender<T>,
    wake: Arc<EventFd>,
}

impl<T> Clone for Notifier<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            wake: self.wake.clone(),
        }
    }
}

impl<T> Notifier<T> {
    /// Sends, and wakes the receiver. A receiver that is gone no longer wants it.
    pub fn send(&self, event: T) {
        if self.sender.send(event).is_ok() {
            // Only a counter at its maximum refuses, and then it is readable.
            let _ = self.wake.write(1);
        }
    }
}

/// The receiving half: readable while something is queued.
pub struct Inbox<T> {
    receiver: mpsc::Receiver<T>,
    wake: Arc<EventFd>,
}

impl<T> Inbox<T> {
    /// Takes the oldest event; never waits.
    pub fn take(&self) -> Option<T> {
        if let Ok(event) = self.receiver.try_recv() {
            return Some(event);
        }
        // Empty: clear the wake-up, then look again, because a sender queues
        // first and wakes second.
        let _ = self.wake.read();
        self.receiver.try_recv().ok().inspect(|_| {
            // More may be queued behind this one, whose wake-up was just cleared.
            let _ = self.wake.write(1);
        })
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.wake)
    }
}

/// `EventFd` does not implement `AsFd`.
#[allow(unsafe_code)]
pub fn borrow(fd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the `EventFd` that is borrowed.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

pub fn channel<T>() -> io::Result<(Notifier<T>, Inbox<T>)> {
    let (sender, receiver) = mpsc::channel();
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
    Ok((
        Notifier {
            sender,
            wake: wake.clone(),
        },
        Inbox { receiver, wake },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(fd: BorrowedFd<'_>) -> bool {
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        #[allow(unsafe_code)]
        // SAFETY: one valid pollfd, no waiting.
        let ready = unsafe { libc::poll(&mut poll, 1, 0) };
        ready == 1
    }

    #[test]
    fn is_readable_exactly_while_something_is_queued() {
        let (notifier, inbox) = channel().unwrap();
        assert!(!readable(inbox.as_fd()));
        notifier.send(1);
        notifier.send(2);
        assert!(readable(inbox.as_fd()));
        assert_eq!(inbox.take(), Some(1));
        assert!(readable(inbox.as_fd()));
        assert_eq!(inbox.take(), Some(2));
        assert_eq!(inbox.take(), None);
        assert!(!readable(inbox.as_fd()));
    }

    #[test]
    fn a_receiver_that_is_gone_is_no_error() {
        let (notifier, inbox) = channel().unwrap();
        drop(inbox);
        notifier.send(1);
    }
}
