//! Replies that are none.

use vhost_user_wire::{Header, REPLY};

/// What is wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is to another request.
    Request,
    /// The reply flag is not set.
    Flag,
    /// The version is 2.
    Version,
    /// The payload is 64 bytes longer than the message's, and the header says so.
    TooLong,
    /// The payload is 2 bytes, and the header says so.
    TooShort,
    /// The header says that 4 GiB follow.
    Huge,
}

impl Damage {
    /// The bytes to send instead of a reply.
    pub fn bytes(self, mut header: Header, payload: &[u8]) -> Vec<u8> {
        let mut payload = payload.to_vec();
        match self {
            Self::Request => header.request += 1,
            Self::Flag => header.flags &= !REPLY,
            Self::Version => header.flags = header.flags & !3 | 2,
            Self::TooLong => payload.resize(payload.len() + 64, 0xee),
            Self::TooShort => payload.truncate(2),
            Self::Huge => {}
        }
        header.size = payload.len() as u32;
        if self == Self::Huge {
            header.size = u32::MAX;
        }
        [&header.to_bytes()[..], &payload].concat()
    }
}
