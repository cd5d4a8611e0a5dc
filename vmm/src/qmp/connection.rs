//! JSON and descriptors on a client's socket.
//!
//! A request ends where its JSON does: QEMU asks for no separator, and not all clients send
//! one.

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Deserializer, Value};

/// Longest request, in bytes.
const MAX_REQUEST: usize = 64 << 10;
/// How much is read at once.
const CHUNK: usize = 4096;
/// How long a client may take for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What a client says is no JSON.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSON parse error, {0}")]
pub struct NoJson(String);

pub struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    /// The last file that came.
    file: Option<File>,
}

impl Connection {
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            file: None,
        }
    }

    /// The file that came with the last request that had one.
    pub fn take_file(&mut self) -> Option<File> {
        self.file.take()
    }

    /// The next request; `None` when the client leaves.
    pub fn receive(&mut self) -> io::Result<Option<Result<Value, NoJson>>> {
        loop {
            if let Some(request) = self.parse() {
                return Ok(Some(request));
            }
            if self.received.len() >= MAX_REQUEST {
                return Err(io::Error::other("a request is too long"));
            }
            if self.read()? == 0 {
                return Ok(None);
            }
        }
    }

    /// A whole request out of what has come.
    fn parse(&mut self) -> Option<Result<Value, NoJson>> {
        let mut values = Deserializer::from_slice(&self.received).into_iter::<Value>();
        let next = values.next();
        let read = values.byte_offset();
        match next {
            Some(Ok(value)) => {
                self.received.drain(..read);
                Some(Ok(value))
            }
            Some(Err(error)) if !error.is_eof() => {
                // Where the next one begins is not known, but that it is not in this line.
                let line = end_of_line(&self.received[read..]);
                let end = line.map_or(self.received.len(), |line| read + line + 1);
                self.received.drain(..end);
                Some(Err(NoJson(error.to_string())))
            }
            _ => None,
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let begin = self.received.len();
        self.received.resize(begin + CHUNK, 0);
        let read = receive(&self.stream, &mut self.received[begin..]);
        let count = read.as_ref().map_or(0, |(count, _)| *count);
        self.received.truncate(begin + count);
        let (count, file) = read?;
        self.file = file.or(self.file.take());
        Ok(count)
    }

    pub fn send(&mut self, answer: &Value) -> io::Result<()> {
        self.stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
        self.stream.write_all(format!("{answer}\r\n").as_bytes())
    }
}

fn end_of_line(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// Some bytes, and the last file that has come with them.
fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Option<File>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(read) => {
                let mut file = None;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(files) = message {
                        file = files.map(File::from).last().or(file);
                    }
                }
                return Ok((read.bytes, file));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use serde_json::json;
    use vmm_sys_util::sock_ctrl_msg::ScmSocket;

    use super::*;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours), theirs)
    }

    #[test]
    fn requests_need_nothing_between_them_and_may_come_in_pieces() {
        let (mut connection, mut client) = pair();
        client.write_all(b"{\"a\":1}{\"b\":").unwrap();
        let first = connection.receive().unwrap();
        assert_eq!(first, Some(Ok(json!({"a": 1}))));
        client.write_all(b"[2]} \r\n {}").unwrap();
        let second = connection.receive().unwrap();
        assert_eq!(second, Some(Ok(json!({"b": [2]}))));
        assert_eq!(connection.receive().unwrap(), Some(Ok(json!({}))));
        drop(client);
        assert_eq!(connection.receive().unwrap(), None);
    }

    #[test]
    fn what_is_no_json_is_skipped_up_to_the_end_of_its_line() {
        let (mut connection, mut client) = pair();
        client.write_all(b"nonsense {}\n{\"a\":1}").unwrap();
        let NoJson(why) = connection.receive().unwrap().unwrap().unwrap_err();
        assert!(!why.is_empty());
        let next = connection.receive().unwrap();
        assert_eq!(next, Some(Ok(json!({"a": 1}))));
    }

    #[test]
    fn a_request_without_end_ends_the_connection() {
        let (mut connection, mut client) = pair();
        let writer = std::thread::spawn(move || {
            // The other end closes before all of it is written.
            let _ = client.write_all(&[b"[".as_slice(), &[b' '; 2 * MAX_REQUEST]].concat());
        });
        assert!(connection.receive().is_err());
        drop(connection);
        writer.join().unwrap();
    }

    #[test]
    fn the_last_file_is_kept_until_it_is_taken() {
        let (mut connection, client) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        client.send_with_fd(&b"{}"[..], writer.as_raw_fd()).unwrap();
        drop(writer);
        connection.receive().unwrap().unwrap().unwrap();
        let mut file = connection.take_file().unwrap();
        assert!(connection.take_file().is_none());
        file.write_all(b"x").unwrap();
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }
}
