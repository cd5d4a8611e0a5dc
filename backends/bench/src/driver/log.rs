//! The messages of a connection, for whoever wants to know what was sent and what came back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use vhost_user_wire::{DeviceType, HEADER_SIZE, Header, Message, VERSION};

use crate::trace::decode;
use crate::trace::record::{self, Side};

/// What happened on a connection. An entry is written as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Sent(String),
    Received(String),
    /// Neither: a connection that ends, a process that is killed.
    Event(String),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(text) => write!(f, "-> {text}"),
            Self::Received(text) => write!(f, "<- {text}"),
            Self::Event(text) => write!(f, "-- {text}"),
        }
    }
}

/// Entries that are kept: what failed is at the end.
const MOST: usize = 400;

/// Shared by all connections of one check. A clone is the same log.
#[derive(Clone, Debug, Default)]
pub struct MessageLog {
    entries: Rc<RefCell<VecDeque<Entry>>>,
    /// Whose features have names.
    device_type: Option<DeviceType>,
}

impl MessageLog {
    pub fn new(device_type: Option<DeviceType>) -> Self {
        Self {
            entries: Rc::default(),
            device_type,
        }
    }

    pub fn sent(&self, header: Header, payload: &[u8], files: usize) {
        self.add(Entry::Sent(self.describe(header, payload, files)));
    }

    pub fn received(&self, message: &Message) {
        let files = message.files.len();
        let text = self.describe(message.header, &message.payload, files);
        self.add(Entry::Received(text));
    }

    pub fn event(&self, text: impl Into<String>) {
        self.add(Entry::Event(text.into()));
    }

    /// Bytes that may be no message.
    pub fn sent_bytes(&self, bytes: &[u8], files: usize) {
        let text = match bytes.first_chunk::<HEADER_SIZE>() {
            Some(header) => {
                self.describe(Header::from_bytes(*header), &bytes[HEADER_SIZE..], files)
            }
            None => format!("{} bytes: {:02x?}", bytes.len(), bytes),
        };
        self.add(Entry::Sent(text));
    }

    fn add(&self, entry: Entry) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() == MOST {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// The last ones, in their order.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.borrow().iter().cloned().collect()
    }

    fn describe(&self, header: Header, payload: &[u8], files: usize) -> String {
        let from = if header.is_reply() {
            Side::Backend
        } else {
            Side::Frontend
        };
        let message = record::Message {
            channel: Side::Frontend,
            from,
            request: header.request,
            flags: header.flags,
            size: header.size,
            payload: payload.to_vec(),
            files: Vec::new(),
            latency: None,
        };
        let mut text = decode::message_name(&message);
        if header.is_reply() {
            text += " reply";
        }
        if header.needs_reply() {
            text += " NEED_REPLY";
        }
        if header.version() != VERSION {
            text += &format!(" version {}", header.version());
        }
        if header.size as usize != payload.len() {
            text += &format!(" (size {}, of which {} follow)", header.size, payload.len());
        }
        let fields = decode::fields(&message, self.device_type);
        if !fields.is_empty() {
            text += &format!(" {fields}");
        }
        match files {
            0 => {}
            1 => text += " + 1 file",
            files => text += &format!(" + {files} files"),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_message_is() {
        let log = MessageLog::default();
        let header = Header::request(2u32, 8).with_ack();
        log.sent(header, &(1u64 << 32).to_ne_bytes(), 0);
        log.sent(Header::request(99u32, 3), &[1, 2], 2);
        log.event("closed");
        let lines: Vec<_> = log.entries().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "-> SET_FEATURES NEED_REPLY features=0x100000000 (VERSION_1)",
                "-> unknown request 99 (size 3, of which 2 follow) payload=0102 + 2 files",
                "-- closed",
            ]
        );
    }
}
