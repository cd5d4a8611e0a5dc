//! A backend's reports of rings that it cannot process (SET_VRING_ERR).
//!
//! In the vhost-user document the signal only means that an error occurred.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use libc::{EFD_CLOEXEC, EFD_NONBLOCK};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// The number of queues that are reported before something else has its turn.
const BATCH: usize = 32;

/// One descriptor a queue for a backend to signal.
///
/// They are watched for edges and never read: a backend has the same open files, and could
/// read a signal first, or make reads block. They have an epoll instance of their own,
/// which ends with the connection; a backend that lives on keeps nothing in it.
pub struct RingErrors {
    epoll: Epoll,
    signs: Vec<EventFd>,
}

impl RingErrors {
    pub fn new(queues: u16) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let sign = |queue: u16| {
            let sign = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
            let event = EpollEvent::new(edge, queue.into());
            epoll.ctl(ControlOperation::Add, sign.as_raw_fd(), event)?;
            Ok(sign)
        };
        let signs = (0..queues).map(sign).collect::<io::Result<_>>()?;
        Ok(Self { epoll, signs })
    }

    /// The descriptor that the backend signals for `queue`.
    pub fn sign(&self, queue: u16) -> Option<&EventFd> {
        self.signs.get(usize::from(queue))
    }

    /// The queues that were signalled since this was asked last, however often: a bounded
    /// number at once. Never blocks.
    pub fn take(&self) -> Vec<u16> {
        let mut found = [EpollEvent::default(); BATCH];
        // With a timeout of 0 it can only be that nothing was found.
        let count = self.epoll.wait(0, &mut found).unwrap_or(0);
        // The data is a queue's number.
        found[..count].iter().map(|e| e.data() as u16).collect()
    }
}

/// Readable when a queue was signalled.
impl AsRawFd for RingErrors {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_is_told_of_once_however_often_it_was_signalled() {
        let errors = RingErrors::new(3).unwrap();
        assert!(errors.take().is_empty());
        for queue in [2, 0, 2] {
            errors.sign(queue).unwrap().write(1).unwrap();
        }
        let mut told = errors.take();
        told.sort();
        assert_eq!(told, [0, 2]);
        assert!(errors.take().is_empty());
        errors.sign(2).unwrap().write(1).unwrap();
        assert_eq!(errors.take(), [2], "and again");
        assert!(errors.sign(3).is_none());
    }

    #[test]
    fn more_queues_than_fit_into_a_turn_come_in_the_next() {
        let errors = RingErrors::new(2 * BATCH as u16).unwrap();
        for sign in &errors.signs {
            sign.write(1).unwrap();
        }
        let mut told = errors.take();
        assert_eq!(told.len(), BATCH);
        told.extend(errors.take());
        told.sort();
        assert!(told.into_iter().eq(0..2 * BATCH as u16));
    }

    #[test]
    fn a_sign_that_the_backend_fills_up_or_takes_back_is_no_endless_one() {
        let errors = RingErrors::new(1).unwrap();
        let sign = errors.sign(0).unwrap();
        sign.write(u64::MAX - 1).unwrap();
        assert_eq!(errors.take(), [0]);
        assert!(errors.take().is_empty());
        sign.read().unwrap();
        sign.write(1).unwrap();
        sign.read().unwrap();
        assert!(errors.take().is_empty());
    }
}
