//! Which records are shown.

use std::time::Duration;

use crate::trace::decode;
use crate::trace::record::{Event, Record};

/// All of them have to match.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The device's name.
    pub device: Option<String>,
    /// Part of a message's name, in any case.
    pub message: Option<String>,
    /// From so long after the begin on.
    pub since: Duration,
}

impl Filter {
    pub fn matches(&self, record: &Record) -> bool {
        let is_device = self
            .device
            .as_ref()
            .is_none_or(|name| *name == record.device);
        let is_late = Duration::from_nanos(record.time) >= self.since;
        is_device && is_late && self.is_message(record)
    }

    fn is_message(&self, record: &Record) -> bool {
        let Some(wanted) = &self.message else {
            return true;
        };
        match &record.event {
            Event::Message(message) => {
                let wanted = wanted.to_ascii_uppercase();
                let name = decode::message_name(message).to_ascii_uppercase();
                name.contains(wanted.trim_start_matches("VHOST_USER_"))
            }
            _ => false,
        }
    }
}
