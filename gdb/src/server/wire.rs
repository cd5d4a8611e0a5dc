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

    /// Queues a packet of a letter and bytes as they are.
    pub fn binary(&mut self, letter: u8, bytes: &[u8]) {
        let mut body = Vec::with_capacity(bytes.len() + 1);
        body.push(letter);
        for &byte in bytes {
            match byte {
                b'#' | b'$' | b'}' | b'*' => body.extend([b'}', byte ^ 0x20]),
                byte => body.push(byte),
            }
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
