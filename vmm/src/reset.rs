//! A reset of the machine, on a thread of its own: it may have to wait for backends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::events::{Inbox, Notifier, channel};
use crate::machine::{self, Machine};

/// How far it is.
#[derive(Debug)]
pub enum Progress {
    /// All is as at power-on. Nobody can resume the vCPUs before [`Reset::release`].
    Ready,
    Over(Result<(), machine::Error>),
}

/// One that is under way.
pub struct Reset {
    /// By the user, rather than the guest.
    pub by_user: bool,
    progress: Inbox<Progress>,
    release: Sender<bool>,
}

impl Reset {
    pub fn start(machine: &Arc<Machine>, by_user: bool) -> io::Result<Self> {
        let (notifier, progress) = channel()?;
        let (release, released) = mpsc::channel();
        let machine = machine.clone();
        thread::Builder::new().name("reset".into()).spawn(move || {
            let result = run(&machine, &notifier, &released);
            notifier.send(Progress::Over(result));
        })?;
        Ok(Self {
            by_user,
            progress,
            release,
        })
    }

    /// The progress since this was asked last.
    pub fn progress(&self) -> Option<Progress> {
        self.progress.take()
    }

    /// Ends the reset, with the vCPUs running or left to somebody else.
    pub fn release(&self, resume: bool) {
        // An error means that it is over.
        let _ = self.release.send(resume);
    }
}

/// Readable when there is progress.
impl AsFd for Reset {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.progress.as_fd()
    }
}

fn run(
    machine: &Machine,
    notifier: &Notifier<Progress>,
    released: &Receiver<bool>,
) -> Result<(), machine::Error> {
    let mut group = machine.reset()?;
    notifier.send(Progress::Ready);
    // An error means that the machine ends.
    if released.recv() == Ok(true) {
        group.resume_all()?;
    }
    Ok(())
}
