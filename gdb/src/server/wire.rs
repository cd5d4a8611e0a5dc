//! The output to gdb, until the socket takes it.

use std::convert::Infallible;

use gdbstub::conn::Connection;

use super::inlet::framed;
use crate::packet::encoded;

/// Most bytes that may wait for the client. An answer is limited by the packet
/// size; a monitor command's output is not, and this limits it.
const LIMIT: usize = 8 << 20;

/// Most bytes of text in one packet.
const MOST_OF_TEXT: usize = 16 << 10;

/// Most times that a byte is repeated by one count, whose character is `~`.
const MOST_REPEATED: usize = 97;

/// The output side of a connection, as gdbstub writes to it.
#[derive(Debug, Default)]
pub(super) struct Wire {
    bytes: Vec<u8>,
    overflow: bool,
    /// The last packet, for a client that got it damaged.
    last: Vec<u8>,
}

impl Wire {
    pub fn pending(&self) -> &[u8] {
        &self.bytes
    }

    /// The first `count` bytes have been sent.
    pub fn sent(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Whether an answer was too long and has been cut: gdb cannot use it.
    pub fn overflowed(&self) -> bool {
        self.overflow
    }

    /// Queues text for gdb's console (`O` packets).
    pub fn console(&mut self, text: &str) {
        for piece in text.as_bytes().chunks(MOST_OF_TEXT) {
            self.packet(&format!("O{}", encoded(piece)));
        }
    }

    /// Queues a packet whose body needs no escapes.
    pub fn packet(&mut self, body: &str) {
        self.frame(body.as_bytes());
    }

    /// Queues a packet of a letter and bytes as they are, runs of equal ones shortened:
    /// most of a guest's memory is zeros.
    pub fn binary(&mut self, letter: u8, bytes: &[u8]) {
        let mut body = Vec::with_capacity(bytes.len() + 1);
        body.push(letter);
        for run in bytes.chunk_by(|one, next| one == next) {
            push_run(&mut body, run[0], run.len());
        }
        self.frame(&body);
    }

    fn frame(&mut self, body: &[u8]) {
        self.last = framed(body).collect();
        self.repeat();
    }

    /// Confirms that a packet has come.
    pub fn acknowledge(&mut self) {
        self.push(b"+");
    }

    /// Asks for a packet again that has come damaged.
    pub fn reject(&mut self) {
        self.push(b"-");
    }

    /// Queues the last packet again.
    pub fn repeat(&mut self) {
        let last = std::mem::take(&mut self.last);
        self.push(&last);
        self.last = last;
    }

    /// Appends to the body of the last packet queued.
    pub fn extend_packet(&mut self, text: &str) {
        const TRAILER: usize = "#00".len();
        let Some(start) = self.bytes.iter().rposition(|byte| *byte == b'$') else {
            return;
        };
        let packet = self.bytes.split_off(start);
        if let Some((packet, _)) = packet.split_at_checked(packet.len().saturating_sub(TRAILER)) {
            let body = String::from_utf8_lossy(&packet[1..]);
            self.packet(&format!("{body}{text}"));
        }
    }

    /// Puts another packet in the place of the last one queued: an error that is a text
    /// (`E.`), without what has a meaning on the wire.
    pub fn explain_error(&mut self, text: &str) {
        if let Some(start) = self.bytes.iter().rposition(|byte| *byte == b'$') {
            self.bytes.truncate(start);
            let plain = text.replace(['#', '$', '}', '*'], "?");
            self.packet(&format!("E.{plain}"));
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > LIMIT {
            self.overflow = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// Appends `len` times the same byte, by run-length encoding where that is shorter (gdb
/// manual, "Protocol Basics").
fn push_run(body: &mut Vec<u8>, byte: u8, len: usize) {
    /// A count is a printable character, this far behind itself.
    const COUNT: u8 = 29;
    if let b'#' | b'$' | b'}' | b'*' = byte {
        // The count would be that of the escaped byte alone.
        body.extend([b'}', byte ^ 0x20].repeat(len));
        return;
    }
    body.push(byte);
    let mut left = len - 1;
    while left > 0 {
        match left.min(MOST_REPEATED) as u8 {
            few @ ..3 => body.extend(std::iter::repeat_n(byte, few.into())),
            // Their characters would be `#` and `$`.
            6 | 7 => body.extend([b'*', 5 + COUNT, byte]),
            many => body.extend([b'*', many + COUNT]),
        }
        left = match left.min(MOST_REPEATED) {
            6 | 7 => left - 6,
            count => left - count,
        };
    }
}

impl Connection for Wire {
    type Error = Infallible;

    /// gdbstub writes every byte by itself: a symbol file has a hundred million.
    #[inline]
    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        if self.bytes.len() < LIMIT {
            self.bytes.push(byte);
        } else {
            self.overflow = true;
        }
        Ok(())
    }

    fn write_all(&mut self, buf: &[u8]) -> Result<(), Infallible> {
        self.push(buf);
        Ok(())
    }

    /// A packet is whole. The server sends when it has fed all input.
    fn flush(&mut self) -> Result<(), Infallible> {
        // No packet has a `$` within.
        if let Some(start) = memchr::memrchr(b'$', &self.bytes) {
            self.last.clear();
            self.last.extend_from_slice(&self.bytes[start..]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_carry_their_checksum() {
        let mut wire = Wire::default();
        wire.packet("OK");
        wire.console("a\n");
        assert_eq!(wire.pending(), b"$OK#9a$O610a#47");
        wire.sent(6);
        assert_eq!(wire.pending(), b"$O610a#47");
    }

    #[test]
    fn bytes_that_frame_packets_are_escaped() {
        let mut wire = Wire::default();
        wire.binary(b'b', b"a#$}*\0\xff");
        assert_eq!(wire.pending(), b"$ba}\x03}\x04}]}\x0a\0\xff#24");
    }

    #[test]
    fn equal_bytes_are_counted() {
        for (len, packet) in [
            (1, &b"$b\0"[..]),
            (3, b"$b\0\0\0"),
            (4, b"$b\0* "),
            (7, b"$b\0*\"\0"),
            (8, b"$b\0*\"\0\0"),
            (9, b"$b\0*%"),
            (98, b"$b\0*~"),
            (105, b"$b\0*~*\"\0\0"),
        ] {
            let mut wire = Wire::default();
            wire.binary(b'b', &vec![0; len]);
            let body = &wire.pending()[..wire.pending().len() - 3];
            assert_eq!(
                body.escape_ascii().to_string(),
                packet.escape_ascii().to_string(),
                "{len}"
            );
        }
        let mut wire = Wire::default();
        wire.binary(b'b', b"****bbbbb");
        assert_eq!(&wire.pending()[..13], b"$b}\n}\n}\n}\nb*!");
    }

    #[test]
    fn the_last_packet_can_be_had_again() {
        let mut wire = Wire::default();
        wire.packet("one");
        wire.write_all(b"+$tw").unwrap();
        wire.write_all(b"o#56").unwrap();
        wire.flush().unwrap();
        wire.sent(100);
        wire.repeat();
        wire.repeat();
        assert_eq!(wire.pending(), b"$two#56$two#56");
    }

    #[test]
    fn a_packet_can_be_extended_while_it_waits() {
        let mut wire = Wire::default();
        wire.extend_packet("K");
        assert_eq!(wire.pending(), b"");
        wire.write_all(b"+").unwrap();
        wire.packet("O");
        wire.extend_packet("K");
        assert_eq!(wire.pending(), b"+$OK#9a");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut wire = Wire::default();
        wire.write_all(&vec![0; LIMIT]).unwrap();
        assert!(!wire.overflowed());
        wire.write(0).unwrap();
        assert!(wire.overflowed());
        assert_eq!(wire.pending().len(), LIMIT);
    }
}
