//! The frontend's end of the backend's channel.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::message::VhostUserMMap;
use vhost_user_wire::payload::SharedMemorySizes;
use vhost_user_wire::{Connection, Deadline, Message, Payload};

use super::breaks::Break;

const CONFIG_CHANGE: u32 = 2;
/// More than anybody needs.
const MANY: usize = 100;

pub struct Channel {
    connection: Connection,
    what: Break,
    acks: bool,
    served: usize,
    mappings: Option<Mappings>,
}

impl Channel {
    pub fn new(stream: UnixStream, what: Break, acks: bool) -> Self {
        Self {
            connection: Connection::to_backend(stream),
            what,
            acks,
            served: 0,
            mappings: None,
        }
    }

    /// SHMEM is negotiated.
    pub fn allow_mappings(&mut self, sizes: SharedMemorySizes) {
        self.mappings = Some(Mappings {
            sizes,
            mapped: Vec::new(),
        });
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Answers what has come; whether the channel is still of use.
    pub fn serve(&mut self) -> bool {
        loop {
            let message = match self.connection.try_receive() {
                Ok(Some(message)) => message,
                Ok(None) => return true,
                Err(_) if self.what == Break::AbortsOnOddRequest => std::process::abort(),
                Err(_) => return false,
            };
            let header = message.header;
            self.served += 1;
            if self.served > MANY && self.what == Break::AbortsOnManyRequests {
                std::process::abort();
            }
            let mapping = self.mappings.as_mut().and_then(|it| it.serve(&message));
            let is_change = header.request == CONFIG_CHANGE && header.size == 0;
            let is_known = is_change || mapping.is_some();
            if !is_known && self.what == Break::AbortsOnOddRequest {
                std::process::abort();
            }
            let wants = header.needs_reply() && self.acks || self.what == Break::AnswersAll;
            if !wants || !is_known && self.what == Break::IgnoresUnknown {
                continue;
            }
            let code = match self.what {
                Break::AnswersOne => 1u64,
                Break::AcceptsUnknown | Break::AcceptsMappings => 0,
                Break::RefusesMappings => 1,
                _ => u64::from(!is_change && mapping != Some(true)),
            };
            let deadline = Deadline::after(Duration::from_secs(5));
            let sent = self
                .connection
                .send(header.reply(8), &code.to_bytes(), &[], &deadline);
            if sent.is_err() {
                return false;
            }
        }
    }
}

const MAP: u32 = 9;
const UNMAP: u32 = 10;

/// What is mapped into shared memory regions: the number of a region, a begin and a length.
struct Mappings {
    sizes: SharedMemorySizes,
    mapped: Vec<(u8, u64, u64)>,
}

impl Mappings {
    /// Whether a request succeeds; `None` if it is another one.
    fn serve(&mut self, message: &Message) -> Option<bool> {
        let request = message.body::<VhostUserMMap>().ok()?;
        let asked = (request.shmid, request.shm_offset, request.len);
        match message.header.request {
            MAP => {
                let is_free = self.is_free(asked) && !message.files.is_empty();
                if is_free {
                    self.mapped.push(asked);
                }
                Some(is_free)
            }
            UNMAP => {
                let before = self.mapped.len();
                self.mapped.retain(|known| *known != asked);
                Some(self.mapped.len() < before)
            }
            _ => None,
        }
    }

    fn is_free(&self, (region, begin, len): (u8, u64, u64)) -> bool {
        let size = self.sizes.0.get(usize::from(region)).copied().unwrap_or(0);
        let is_over = |known: &(u8, u64, u64)| {
            known.0 == region && begin < known.1 + known.2 && known.1 < begin + len
        };
        begin + len <= size && !self.mapped.iter().any(is_over)
    }
}
