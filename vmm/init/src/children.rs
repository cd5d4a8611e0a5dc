//! Child processes of the first process, which also waits for those that have lost their parents.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, wait, waitid};

/// What a shell adds to a signal's number.
const SIGNALLED: i32 = 128;

/// Who waits for which process. Held while one is started: the standard library waits itself for
/// one that cannot be.
static WAITING: Mutex<BTreeMap<u32, Sender<u8>>> = Mutex::new(BTreeMap::new());

fn waiting() -> MutexGuard<'static, BTreeMap<u32, Sender<u8>>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process. Its exit status, as a shell tells it, comes by the receiver; the standard
/// library must not wait for it.
pub fn spawn(command: &mut Command) -> io::Result<(Child, Receiver<u8>)> {
    let mut waiting = waiting();
    let child = command.spawn()?;
    let (ended, status) = channel();
    waiting.insert(child.id(), ended);
    Ok((child, status))
}

/// Waits for all processes until this one has ended.
pub fn reap_until(status: &Receiver<u8>) -> io::Result<u8> {
    loop {
        if let Ok(status) = status.try_recv() {
            return Ok(status);
        }
        // It stays to be waited for, so that the lock is not held meanwhile.
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) | Err(Errno::INTR) => reap()?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn reap() -> io::Result<()> {
    let mut waiting = waiting();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                if let Some(ended) = waiting.remove(&pid) {
                    // It may have lost interest.
                    let _ = ended.send(told(ExitStatus::from_raw(status.as_raw())));
                }
            }
            Ok(None) | Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn told(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| SIGNALLED + signal);
    let told = status.code().or(signal).unwrap_or(SIGNALLED);
    u8::try_from(told).unwrap_or(u8::MAX)
}
