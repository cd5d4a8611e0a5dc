//! A record as the bytes of a packet. `backends/bench/wireshark/vhost_user.lua` reads them too.
//!
//! All numbers are little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | 0: a message; 1: bytes that are none; 2: another event |
//! | 2 | 1 | bit 0: from the backend; bit 1: on the channel of the backend's requests |
//! | 3 | 1 | number of file descriptors |
//! | 4 | 4 | connection |
//! | 8 | 8 | latency of a reply in nanoseconds, or all ones |
//! | 16 | 4 | device ID, or 0 |
//! | 20 | 4 | 0 |
//! | 24 | | for each descriptor: number (4), length of its kind (2), the kind |
//! | | | the message as on the wire, the bytes, or the event as JSON |

use crate::trace::record::{Descriptor, Event, Fragment, Message, Side};
use vhost_user_wire::{HEADER_SIZE, Header};

const VERSION: u8 = 1;
const MESSAGE: u8 = 0;
const FRAGMENT: u8 = 1;
const OTHER: u8 = 2;
const FROM_BACKEND: u8 = 1;
const BACKEND_CHANNEL: u8 = 2;
const NO_LATENCY: u64 = u64::MAX;

/// What a packet says of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub connection: u32,
    pub device_type: Option<u32>,
    pub event: Event,
}

impl Packet {
    /// Which way it went, if it did.
    pub fn from(&self) -> Option<Side> {
        match &self.event {
            Event::Message(message) => Some(message.from),
            Event::Fragment(fragment) => Some(fragment.from),
            _ => None,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.event {
            Event::Message(message) => {
                let wire = [&message.header().to_bytes()[..], &message.payload].concat();
                let (sides, files) = ((message.channel, message.from), &message.files);
                self.assemble(MESSAGE, Some(sides), files, message.latency, &wire)
            }
            Event::Fragment(fragment) => {
                let sides = (fragment.channel, fragment.from);
                self.assemble(
                    FRAGMENT,
                    Some(sides),
                    &fragment.files,
                    None,
                    &fragment.bytes,
                )
            }
            // An event has no map with keys other than strings, which alone could not be written.
            event => {
                let json = serde_json::to_vec(event).unwrap_or_default();
                self.assemble(OTHER, None, &[], None, &json)
            }
        }
    }

    fn assemble(
        &self,
        kind: u8,
        sides: Option<(Side, Side)>,
        files: &[Descriptor],
        latency: Option<u64>,
        body: &[u8],
    ) -> Vec<u8> {
        let flags = sides.map_or(0, |(channel, from)| {
            let bit = |side, bit| if side == Side::Backend { bit } else { 0 };
            bit(from, FROM_BACKEND) | bit(channel, BACKEND_CHANNEL)
        });
        // The kernel sends no more than 253 with a message.
        let files = &files[..files.len().min(u8::MAX.into())];
        let mut bytes = vec![VERSION, kind, flags, files.len() as u8];
        bytes.extend(self.connection.to_le_bytes());
        bytes.extend(latency.unwrap_or(NO_LATENCY).to_le_bytes());
        bytes.extend(self.device_type.unwrap_or(0).to_le_bytes());
        bytes.extend([0; 4]);
        for file in files {
            let kind = &file.kind.as_bytes()[..file.kind.len().min(u16::MAX.into())];
            bytes.extend(file.number.to_le_bytes());
            bytes.extend((kind.len() as u16).to_le_bytes());
            bytes.extend(kind);
        }
        bytes.extend(body);
        bytes
    }

    /// `None` when these are no bytes of [`to_bytes`](Self::to_bytes).
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let [version, kind, flags, files] = reader.array()?;
        let connection = u32::from_le_bytes(reader.array()?);
        let latency = u64::from_le_bytes(reader.array()?);
        let device_type = u32::from_le_bytes(reader.array()?);
        let _: [u8; 4] = reader.array()?;
        let files = (0..files)
            .map(|_| reader.descriptor())
            .collect::<Option<_>>()?;
        if version != VERSION {
            return None;
        }
        let side = |bit| {
            if flags & bit == 0 {
                Side::Frontend
            } else {
                Side::Backend
            }
        };
        let (channel, from) = (side(BACKEND_CHANNEL), side(FROM_BACKEND));
        let event = match kind {
            MESSAGE => {
                let header = Header::from_bytes(reader.array::<HEADER_SIZE>()?);
                Event::Message(Message {
                    channel,
                    from,
                    request: header.request,
                    flags: header.flags,
                    size: header.size,
                    payload: reader.0.to_vec(),
                    files,
                    latency: (latency != NO_LATENCY).then_some(latency),
                })
            }
            FRAGMENT => Event::Fragment(Fragment {
                channel,
                from,
                bytes: reader.0.to_vec(),
                files,
            }),
            _ => serde_json::from_slice(reader.0).ok()?,
        };
        Some(Self {
            connection,
            device_type: (device_type != 0).then_some(device_type),
            event,
        })
    }
}

/// Takes from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn descriptor(&mut self) -> Option<Descriptor> {
        let number = u32::from_le_bytes(self.array()?);
        let len = u16::from_le_bytes(self.array()?);
        let (kind, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        let kind = String::from_utf8_lossy(kind).into_owned();
        Some(Descriptor { number, kind })
    }
}
