//! Parses the input from gdb into packets.
//!
//! gdbstub has a parser of its own, but ends the connection over a packet that is
//! damaged, and over a request to send its last answer again. Here both are
//! handled as the protocol says (gdb manual, "Overview" of the remote protocol).

use crate::limits::PACKET_SIZE;

/// One thing that gdb has sent, whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A packet's body.
    Packet(Vec<u8>),
    /// A packet whose checksum is not that of its body.
    Damaged,
    /// gdb got an answer damaged, and wants it again.
    Resend,
    /// Ctrl-C.
    Interrupt,
}

/// This is not the protocol at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbage {
    #[error("byte {0:#04x} came where a packet would begin")]
    Between(u8),
    #[error("a packet is longer than {PACKET_SIZE} bytes")]
    TooLong,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Between,
    Body,
    /// With the first digit, once it is there.
    Checksum(Option<u8>),
}

/// The parser, fed byte by byte.
#[derive(Debug, Default)]
pub(super) struct Inlet {
    place: Place,
    body: Vec<u8>,
    /// Neither side acknowledges packets any more, and nobody looks at checksums.
    trusting: bool,
    /// A packet has come: this is a debugger, and bytes between packets are noise. A
    /// client of another protocol must not hold the guest.
    knows: bool,
}

impl Inlet {
    /// After `QStartNoAckMode`.
    pub fn trust(&mut self) {
        self.trusting = true;
    }

    pub fn is_trusting(&self) -> bool {
        self.trusting
    }

    /// Takes the next byte.
    ///
    /// # Errors
    /// The input cannot be from a debugger.
    pub fn take(&mut self, byte: u8) -> Result<Option<Arrival>, Garbage> {
        match (&self.place, byte) {
            (Place::Between, b'$') => self.place = Place::Body,
            (Place::Between, b'+') => {}
            (Place::Between, b'-') => return Ok(Some(Arrival::Resend)),
            (Place::Between, 3) => return Ok(Some(Arrival::Interrupt)),
            (Place::Between, _) if self.knows => {}
            (Place::Between, byte) => return Err(Garbage::Between(byte)),
            (Place::Body, b'#') => self.place = Place::Checksum(None),
            (Place::Body, _) if self.body.len() == PACKET_SIZE => return Err(Garbage::TooLong),
            (Place::Body, byte) => self.body.push(byte),
            (Place::Checksum(None), digit) => self.place = Place::Checksum(Some(digit)),
            (Place::Checksum(Some(first)), second) => {
                let intact = self.trusting || digits(&self.body) == [*first, second];
                return Ok(Some(self.end(intact)));
            }
        }
        Ok(None)
    }

    fn end(&mut self, intact: bool) -> Arrival {
        self.place = Place::Between;
        let body = std::mem::take(&mut self.body);
        self.knows |= intact;
        if intact {
            Arrival::Packet(body)
        } else {
            Arrival::Damaged
        }
    }
}

/// The packet with this body as it goes over the wire.
pub(super) fn framed(body: &[u8]) -> impl Iterator<Item = u8> {
    let frame = [b'$'].into_iter().chain(body.iter().copied());
    frame.chain([b'#']).chain(digits(body))
}

/// The checksum, in lower case as gdb writes it.
fn digits(body: &[u8]) -> [u8; 2] {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [sum >> 4, sum & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(inlet: &mut Inlet, bytes: &[u8]) -> Vec<Arrival> {
        let taken = bytes.iter().map(|byte| inlet.take(*byte).unwrap());
        taken.flatten().collect()
    }

    #[test]
    fn packets_and_single_bytes_arrive_in_order() {
        let arrived = arrivals(&mut Inlet::default(), b"+$g#67-\x03$#00");
        let expected = [
            Arrival::Packet(b"g".to_vec()),
            Arrival::Resend,
            Arrival::Interrupt,
            Arrival::Packet(Vec::new()),
        ];
        assert_eq!(arrived, expected);
    }

    #[test]
    fn a_checksum_counts_until_both_sides_have_agreed_to_trust() {
        let mut inlet = Inlet::default();
        assert_eq!(arrivals(&mut inlet, b"$g#68"), [Arrival::Damaged]);
        assert_eq!(arrivals(&mut inlet, b"$g#zz"), [Arrival::Damaged]);
        inlet.trust();
        assert_eq!(
            arrivals(&mut inlet, b"$g#00"),
            [Arrival::Packet(b"g".to_vec())]
        );
    }

    #[test]
    fn noise_between_packets_is_passed_over_once_a_debugger_is_there() {
        let mut inlet = Inlet::default();
        // A damaged one may be anything.
        arrivals(&mut inlet, b"$g#00");
        assert_eq!(inlet.take(b'\n'), Err(Garbage::Between(b'\n')));
        let packet = || Arrival::Packet(b"g".to_vec());
        let arrived = arrivals(&mut inlet, b"$g#67\r\n\x80\0$g#67");
        assert_eq!(arrived, [packet(), packet()]);
    }

    #[test]
    fn what_is_no_packet_is_garbage() {
        assert_eq!(Inlet::default().take(b'G'), Err(Garbage::Between(b'G')));
        let mut inlet = Inlet::default();
        inlet.take(b'$').unwrap();
        let mut bytes = std::iter::repeat_n(b'x', PACKET_SIZE + 1);
        assert!(bytes.any(|byte| inlet.take(byte) == Err(Garbage::TooLong)));
    }

    #[test]
    fn a_frame_is_what_is_taken() {
        let frame: Vec<u8> = framed(b"m100,4").collect();
        assert_eq!(frame, b"$m100,4#5e");
        assert_eq!(
            arrivals(&mut Inlet::default(), &frame),
            [Arrival::Packet(b"m100,4".to_vec())]
        );
    }
}
