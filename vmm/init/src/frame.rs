//! What `outboard shell` and the guest say to each other on a stream: frames of a kind, a length
//! of four bytes (little-endian), and as many bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::job::Window;

/// The guest's port for streams of the host.
pub const PORT: u32 = 1024;
/// Longest frame, in bytes.
pub const MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To the guest, first: a [`Request`] in JSON.
    Start = b's',
    /// To the guest: what was typed.
    Input = b'i',
    /// To the guest: nothing more is typed.
    Closed = b'c',
    /// To the guest: a [`Window`] in JSON, the terminal's new size.
    Resize = b'w',
    /// To the host: output of the command, of both kinds on a terminal.
    Output = b'o',
    /// To the host: error output of a command without a terminal.
    Error = b'e',
    /// To the host, last: the exit status, a byte.
    Ended = b'x',
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Start,
        Self::Input,
        Self::Closed,
        Self::Resize,
        Self::Output,
        Self::Error,
        Self::Ended,
    ];
}

/// A command for the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments. Without any, a shell.
    pub command: Vec<String>,
    /// Where it starts, if the guest has it.
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// Without a terminal, input and both outputs are pipes.
    pub window: Option<Window>,
}

/// Several threads' way to the other side, which gets each frame whole.
pub struct Sender<W> {
    stream: Arc<Mutex<W>>,
}

impl<W> Clone for Sender<W> {
    fn clone(&self) -> Self {
        let stream = self.stream.clone();
        Self { stream }
    }
}

impl<W: Write> Sender<W> {
    pub fn new(stream: W) -> Self {
        let stream = Arc::new(Mutex::new(stream));
        Self { stream }
    }

    /// Sends one frame. Its bytes are at most [`MAX`].
    pub fn send(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut frame = vec![kind as u8];
        frame.extend(length.to_le_bytes());
        frame.extend(bytes);
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(&frame)
    }
}

/// The next frame; nothing at the end of the stream.
pub fn read(mut from: impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut first = [0];
    if from.read(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == first[0]);
    let Some(kind) = kind.filter(|_| length <= MAX) else {
        let problem = format!("a frame of kind {} and {length} bytes", first[0]);
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    };
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some((kind, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_went() {
        let mut stream = Vec::new();
        let sender = Sender::new(&mut stream);
        sender.send(Kind::Output, b"text").unwrap();
        sender.clone().send(Kind::Closed, b"").unwrap();
        drop(sender);
        let mut from = &stream[..];
        let mut next = || read(&mut from).unwrap();
        assert_eq!(next(), Some((Kind::Output, b"text".to_vec())));
        assert_eq!(next(), Some((Kind::Closed, Vec::new())));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [
            &b"?\0\0\0\0"[..],
            b"o\x01\0\x01\0",
            b"o\x04\0\0\0ab",
            b"o\0",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
