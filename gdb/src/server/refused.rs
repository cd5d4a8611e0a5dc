//! Clients that come while another is attached: they are told so.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::stream::Stream;
use super::wire::Wire;

/// gdb shows it and hangs up.
const MESSAGE: &str = "E.another debugger is attached to this guest; only one can be at a time";

/// How long one may stay. It is not thrown out with the answer, because gdb
/// acknowledges that first, and would report the broken connection instead.
const PATIENCE: Duration = Duration::from_secs(2);

/// Packets that are answered before one is thrown out.
const MOST_ANSWERS: usize = 8;

/// Most that are waited for at once; more are closed without an answer.
const MOST: usize = 8;

/// A client that is refused. Each of its packets is answered with the message:
/// gdb takes none before it has asked.
#[derive(Debug)]
struct Refused {
    stream: Stream,
    token: u64,
    deadline: Instant,
    /// Bytes seen of a packet's end, `#` and two digits.
    end: usize,
    answers: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct RefusedClients {
    clients: Vec<Refused>,
    next_token: u64,
}

impl RefusedClients {
    /// Takes a client in and returns its token, counted from `base`, to be added
    /// to the poller with the stream; `None` when there are too many.
    pub fn add(
        &mut self,
        stream: Stream,
        base: u64,
        now: Instant,
    ) -> Option<(u64, BorrowedFd<'_>)> {
        if self.clients.len() >= MOST {
            return None;
        }
        let token = base + self.next_token;
        self.next_token += 1;
        self.clients.push(Refused {
            stream,
            token,
            deadline: now + PATIENCE,
            end: 0,
            answers: 0,
        });
        let stream = &self.clients.last()?.stream;
        Some((token, stream.as_fd()))
    }

    /// The client with this token has sent something. Closing the connection
    /// takes it out of the poller.
    pub fn on_ready(&mut self, token: u64) {
        self.clients
            .retain_mut(|client| client.token != token || !client.is_done());
    }

    /// Closes those that have been silent for too long.
    pub fn expire(&mut self, now: Instant) {
        self.clients.retain(|client| now < client.deadline);
    }

    /// How long until [`RefusedClients::expire`] has something to do.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        let first = self.clients.iter().map(|client| client.deadline).min()?;
        Some(first.saturating_duration_since(now))
    }
}

impl Refused {
    /// Reads on and answers. True when the connection is to be closed.
    fn is_done(&mut self) -> bool {
        let mut buf = [0; 1024];
        match self.stream.read(&mut buf) {
            Ok(0) => true,
            Ok(count) => {
                for &byte in &buf[..count] {
                    if self.ends_packet(byte) {
                        self.answer();
                    }
                }
                self.answers >= MOST_ANSWERS
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn ends_packet(&mut self, byte: u8) -> bool {
        if self.end > 0 || byte == b'#' {
            self.end += 1;
        }
        let ends = self.end == 3;
        if ends {
            self.end = 0;
        }
        ends
    }

    /// Best effort: so few answers fit the socket's buffer.
    fn answer(&mut self) {
        if self.answers < MOST_ANSWERS {
            self.answers += 1;
            let mut wire = Wire::default();
            wire.packet(MESSAGE);
            let _ = self.stream.write_all(b"+");
            let _ = self.stream.write_all(wire.pending());
        }
    }
}
