//! A device's state on its way to or from the frontend (vhost-user document, "Migrating back-end
//! state"): through a descriptor, which may make its writer or reader wait, and so in a thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use crate::inflight::state;
use crate::patience::IO_DEADLINE;

/// The result of a transfer.
#[derive(Debug, PartialEq, Eq)]
pub enum Transferred {
    /// The frontend has all of it.
    Saved,
    /// All that the frontend had.
    Loaded(Vec<u8>),
}

/// The transfer that has begun last, if any.
#[derive(Debug, Default)]
pub struct Transfer(Mutex<Option<Receiver<io::Result<Transferred>>>>);

impl Transfer {
    /// Writes `state` to `file`, and ends it.
    pub fn save(&self, state: Vec<u8>, mut file: File) -> io::Result<()> {
        self.begin(move || {
            file.write_all(&state)?;
            Ok(Transferred::Saved)
        })
    }

    /// Reads a state from `file` to its end.
    pub fn load(&self, file: File) -> io::Result<()> {
        self.begin(move || {
            let mut bytes = Vec::new();
            file.take(state::MAX as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > state::MAX {
                let text = format!("the state is longer than {} bytes", state::MAX);
                return Err(io::Error::other(text));
            }
            Ok(Transferred::Loaded(bytes))
        })
    }

    fn begin(
        &self,
        transfer: impl FnOnce() -> io::Result<Transferred> + Send + 'static,
    ) -> io::Result<()> {
        let (done, result) = channel();
        // It ends with the frontend's end of the descriptor, if not before.
        thread::Builder::new()
            .name("device state".to_owned())
            // Nobody may care any more.
            .spawn(move || drop(done.send(transfer())))?;
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(result);
        Ok(())
    }

    /// Waits for the transfer's end, but not for ever.
    pub fn finish(&self) -> io::Result<Transferred> {
        let begun = self.0.lock().unwrap_or_else(|e| e.into_inner()).take();
        let begun = begun.ok_or_else(|| io::Error::other("no state is being saved or loaded"))?;
        begun.recv_timeout(IO_DEADLINE).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
                RecvTimeoutError::Disconnected => io::Error::other("the transfer broke off"),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
    }

    #[test]
    fn a_state_comes_out_as_it_went_in() {
        let (reader, writer) = pipe();
        let (from, to) = (Transfer::default(), Transfer::default());
        let state = vec![7; state::MAX];
        from.save(state.clone(), writer).unwrap();
        to.load(reader).unwrap();
        assert_eq!(from.finish().unwrap(), Transferred::Saved);
        assert_eq!(to.finish().unwrap(), Transferred::Loaded(state));
        assert!(to.finish().is_err(), "it is over");
    }

    #[test]
    fn what_breaks_off_or_is_too_long_is_an_error() {
        let transfer = Transfer::default();
        let (reader, writer) = pipe();
        drop(reader);
        transfer.save(vec![1], writer).unwrap();
        assert!(transfer.finish().is_err());
        let (reader, mut writer) = pipe();
        transfer.load(reader).unwrap();
        writer.write_all(&[0; state::MAX + 1]).unwrap();
        drop(writer);
        assert!(transfer.finish().is_err());
    }
}
