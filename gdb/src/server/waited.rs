//! Packets that a client sends again because it had to wait.

use super::inlet::Arrival;

/// Recognises the packets that a client with acknowledgements repeats because it had to wait.
///
/// gdb sends a packet again that is not confirmed within its `remotetimeout`, and a `-`
/// when that passes without an answer. On a slow host both can lie in the socket
/// already when the answer is sent. If they were answered too, gdb would take each
/// answer for that to its next packet from then on.
#[derive(Debug, Default)]
pub(super) struct Waited {
    /// The last packet's body.
    pub packet: Vec<u8>,
    /// How much of the input had come before its answer was sent.
    pub input: usize,
}

impl Waited {
    /// Whether `arrival`, which ends behind `used` bytes of the input, is such a thing.
    pub fn explains(&self, arrival: &Arrival, used: usize) -> bool {
        used <= self.input
            && match arrival {
                Arrival::Packet(body) => *body == self.packet,
                Arrival::Resend => true,
                Arrival::Damaged | Arrival::Interrupt => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_before_the_answer_is_explained() {
        let waited = Waited {
            packet: b"g".to_vec(),
            input: 10,
        };
        let packet = |body: &[u8]| Arrival::Packet(body.to_vec());
        assert!(waited.explains(&packet(b"g"), 10));
        assert!(waited.explains(&Arrival::Resend, 1));
        for arrival in [packet(b"g"), Arrival::Resend] {
            assert!(!waited.explains(&arrival, 11), "{arrival:?}");
        }
        for arrival in [packet(b"m0,1"), Arrival::Damaged, Arrival::Interrupt] {
            assert!(!waited.explains(&arrival, 1), "{arrival:?}");
        }
    }
}
