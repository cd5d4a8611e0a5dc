//! The header of a message (vhost-user document, "Header").

/// Length of a header in bytes.
pub const HEADER_SIZE: usize = 12;

/// The only version of the protocol, in the low bits of the flags.
pub const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0x3;
/// The message is a reply.
pub const REPLY: u32 = 1 << 2;
/// The sender wants an acknowledgement (VHOST_USER_PROTOCOL_F_REPLY_ACK).
pub const NEED_REPLY: u32 = 1 << 3;

/// A header as it stands on the wire. It may hold any values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of a request, which may be one that nobody has defined. A reply repeats it.
    pub request: u32,
    pub flags: u32,
    /// Length of the payload in bytes.
    pub size: u32,
}

impl Header {
    /// The header of a request with a payload of `size` bytes.
    pub fn request(request: impl Into<u32>, size: usize) -> Self {
        Self {
            request: request.into(),
            flags: VERSION,
            size: size as u32,
        }
    }

    /// The header of the reply to this request, with a payload of `size` bytes.
    pub fn reply(&self, size: usize) -> Self {
        Self {
            request: self.request,
            flags: VERSION | REPLY,
            size: size as u32,
        }
    }

    /// The same header, whose sender wants an acknowledgement.
    pub fn with_ack(mut self) -> Self {
        self.flags |= NEED_REPLY;
        self
    }

    pub fn version(&self) -> u32 {
        self.flags & VERSION_MASK
    }

    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// Whether the sender wants an acknowledgement, which means something once REPLY_ACK is
    /// negotiated.
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let words = [self.request, self.flags, self.size];
        for (to, word) in bytes.chunks_exact_mut(size_of::<u32>()).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Self {
        let [r0, r1, r2, r3, f0, f1, f2, f3, s0, s1, s2, s3] = bytes;
        Self {
            request: u32::from_ne_bytes([r0, r1, r2, r3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_have_the_flags_of_the_document() {
        let request = Header::request(24u32, 16).with_ack();
        assert_eq!((request.flags, request.size), (0x9, 16));
        assert!(request.needs_reply() && !request.is_reply());
        let reply = request.reply(8);
        assert_eq!((reply.request, reply.flags, reply.size), (24, 0x5, 8));
        assert!(reply.is_reply() && !reply.needs_reply());
    }

    #[test]
    fn any_values_survive_the_wire() {
        let header = Header {
            request: 0x0102_0304,
            flags: u32::MAX,
            size: 7,
        };
        assert_eq!(Header::from_bytes(header.to_bytes()), header);
        assert_eq!(header.version(), 3);
        let words = [0x0102_0304, u32::MAX, 7].map(u32::to_ne_bytes).concat();
        assert_eq!(header.to_bytes()[..], words);
    }
}
