//! The other end of the link: it sends back what it gets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

/// A connected peer, which leaves when this is dropped.
pub struct Peer {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Connects to a program that listens.
    pub fn connect(link: &Path) -> Self {
        let stream = UnixStream::connect(link).unwrap();
        let ours = stream.try_clone().unwrap();
        let thread = Some(std::thread::spawn(move || send_back(&ours)));
        Peer { stream, thread }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Frames are behind their lengths, which stay as they are.
fn send_back(mut stream: &UnixStream) {
    let mut bytes = vec![0; 1 << 18];
    while let Ok(len @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..len]).is_err() {
            return;
        }
    }
}
