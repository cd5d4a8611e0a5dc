//! What may differ between two answers to the same request, by device type (virtio 1.4,
//! section 5).

use std::ops::Range;

use clap::ValueEnum;
use vhost_user_wire::DeviceType;

use crate::recording::{Config, Item, Submit};

const NET_CTRL_VQ: u64 = 1 << 17;
const NET_MQ: u64 = 1 << 22;

/// Something that is not to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ignore {
    /// Bytes that the device has written, but for a status.
    Content,
    /// How many bytes the device says it has written.
    Length,
    /// In which order requests of a queue are completed.
    Order,
}

/// How an answer is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The bytes that have to be the same.
    pub content: Range<usize>,
    pub length: bool,
    pub order: bool,
    /// The last writable byte says how it went, and is no content.
    pub has_status: bool,
    /// Of an answer of SCSI: how many bytes it has for sense data.
    pub sense: Option<usize>,
}

/// Bytes of an answer of SCSI in front of sense data (section 5.6.6.1).
const SCSI_HEADER: usize = 12;
const SENSE: usize = 96;

impl Rule {
    /// Parts of an answer, of which `len` bytes count as written, that say nothing. A SCSI device
    /// says how long its sense data is, and how much of the room for data it has not used.
    pub fn silent(&self, answer: &[u8], len: usize) -> [Range<usize>; 2] {
        let word = |at: usize| {
            let word = answer.get(at..)?.first_chunk()?;
            Some(u32::from_le_bytes(*word) as usize)
        };
        let (Some(room), Some(sense), Some(residual)) = (self.sense, word(0), word(4)) else {
            return [NOTHING, NOTHING];
        };
        let data = SCSI_HEADER + room;
        let end = len.saturating_sub(residual).max(data);
        [SCSI_HEADER + sense.min(room)..data, end..usize::MAX]
    }
}

const ALL: Range<usize> = 0..usize::MAX;
const NOTHING: Range<usize> = 0..0;

/// Learns from a recording what its device is.
#[derive(Clone, Debug)]
pub struct Rules {
    device_type: Option<DeviceType>,
    ignored: Vec<Ignore>,
    features: u64,
    /// The begin of the configuration space.
    config: Vec<u8>,
}

impl Rules {
    pub fn new(device_type: Option<DeviceType>, ignored: &[Ignore]) -> Self {
        Self {
            device_type,
            ignored: ignored.to_vec(),
            features: 0,
            config: Vec::new(),
        }
    }

    pub fn learn(&mut self, item: &Item) {
        match item {
            Item::Features(features) => self.features = *features,
            Item::Config(config) if config.offset == 0 => self.config.clone_from(&config.bytes),
            Item::ConfigWritten(Config { offset, bytes }) => {
                let there = self.config.get_mut(*offset as usize..).unwrap_or_default();
                for (there, byte) in there.iter_mut().zip(bytes) {
                    *there = *byte;
                }
            }
            _ => {}
        }
    }

    /// Section 5.6.4: as the driver has set it, if it was seen.
    fn sense_size(&self) -> usize {
        let size = self.config.get(20..).and_then(|bytes| bytes.first_chunk());
        size.map_or(SENSE, |size| u32::from_le_bytes(*size) as usize)
    }

    /// Whether buffers of the queue wait for what comes from elsewhere: frames, keys, events. They
    /// are no requests, and nothing is an answer.
    pub fn is_external(&self, queue: u8) -> bool {
        match self.device_type {
            Some(DeviceType::NET) => {
                queue.is_multiple_of(2) && Some(queue.into()) != self.net_control()
            }
            Some(DeviceType::CONSOLE) => queue.is_multiple_of(2),
            Some(DeviceType::VSOCK) => queue != 1,
            Some(DeviceType::INPUT) => queue == 0,
            Some(DeviceType::SOUND) => queue == 1 || queue == 3,
            Some(DeviceType::BALLOON) => queue == 2,
            Some(DeviceType::GPIO | DeviceType::SCSI | DeviceType::CAN) => queue == 1,
            _ => false,
        }
    }

    /// Section 5.1.2: behind the queues of all pairs that there can be.
    fn net_control(&self) -> Option<u32> {
        if self.features & NET_CTRL_VQ == 0 {
            return None;
        }
        if self.features & NET_MQ == 0 {
            return Some(2);
        }
        let pairs = self.config.get(8..)?.first_chunk()?;
        Some(2 * u32::from(u16::from_le_bytes(*pairs)))
    }

    pub fn of(&self, request: &Submit) -> Rule {
        let mut rule = self.by_type(request);
        for ignored in &self.ignored {
            match ignored {
                Ignore::Content => rule.content = NOTHING,
                Ignore::Length => rule.length = false,
                Ignore::Order => rule.order = false,
            }
        }
        rule
    }

    fn by_type(&self, request: &Submit) -> Rule {
        let strict = Rule {
            content: ALL,
            length: true,
            order: true,
            has_status: false,
            sense: None,
        };
        let any_order = Rule {
            order: false,
            ..strict.clone()
        };
        match self.device_type {
            Some(DeviceType::RNG) => Rule {
                content: NOTHING,
                ..strict
            },
            Some(DeviceType::BLK) => block(request, any_order),
            Some(DeviceType::FS) => file_system(request, any_order),
            Some(DeviceType::SCSI) if request.queue >= 2 => Rule {
                sense: Some(self.sense_size()),
                ..any_order
            },
            // Section 5.14.6.8: how much is buffered is a matter of time.
            Some(DeviceType::SOUND) if request.queue == 2 => Rule {
                content: 0..4,
                ..any_order
            },
            Some(
                DeviceType::NET
                | DeviceType::CONSOLE
                | DeviceType::VSOCK
                | DeviceType::INPUT
                | DeviceType::I2C,
            ) => strict,
            _ => any_order,
        }
    }
}

fn word(request: &Submit, at: usize) -> Option<u32> {
    let bytes = request.readable.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// GET_ID and GET_LIFETIME are of the device, not of the disk.
fn block(request: &Submit, rule: Rule) -> Rule {
    let content = match word(request, 0) {
        Some(8 | 10) => NOTHING,
        _ => ALL,
    };
    Rule {
        content,
        has_status: true,
        ..rule
    }
}

/// In an answer of FUSE the error and the request's number come behind the length. Attributes have
/// times, inode numbers and handles in them; what is read from a file has not. The order of a
/// directory is the host's.
fn file_system(request: &Submit, rule: Rule) -> Rule {
    match word(request, 4) {
        // READLINK, READ, GETXATTR, LISTXATTR
        Some(5 | 15 | 22 | 23) => rule,
        // READDIR, READDIRPLUS
        Some(28 | 44) => Rule {
            content: 4..16,
            length: false,
            ..rule
        },
        _ => Rule {
            content: 4..16,
            ..rule
        },
    }
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
