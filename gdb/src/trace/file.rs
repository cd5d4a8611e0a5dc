//! The trace buffer in the form that trace files have: gdb copies it into one (gdb
//! manual, "Trace File Format").

use super::frames::{Frame, Frames};
use crate::arch::{Description, Served};

/// Most bytes of memory in one block, whose length has 16 bits.
const PIECE: usize = 0x8000;

/// Where gdb is in its copy: the frame that it has read last, for it reads little
/// pieces one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    /// The frames are these as long as no new ones come.
    created: usize,
    number: usize,
    /// Where in the buffer the frame begins.
    start: u64,
    frame: Vec<u8>,
}

impl Copy {
    /// The bytes at `offset`: up to `len`, none at the end.
    pub fn read(
        &mut self,
        frames: &Frames,
        description: Description,
        offset: u64,
        len: usize,
    ) -> Vec<u8> {
        if self.created != frames.created || offset < self.start {
            *self = Self {
                created: frames.created,
                ..Self::default()
            };
        }
        let mut bytes = Vec::new();
        while bytes.len() < len
            && let Some(frame) = frames.get(self.number)
        {
            if self.frame.is_empty() {
                self.frame = encoded(frame, description);
            }
            let at = offset + bytes.len() as u64 - self.start;
            let rest = usize::try_from(at).ok();
            let rest = rest.and_then(|at| self.frame.get(at..)).unwrap_or(&[]);
            bytes.extend_from_slice(&rest[..rest.len().min(len - bytes.len())]);
            if bytes.len() < len {
                self.start += self.frame.len() as u64;
                self.number += 1;
                self.frame = Vec::new();
            }
        }
        bytes
    }
}

/// Tracepoint, size, and the blocks.
fn encoded(frame: &Frame, description: Description) -> Vec<u8> {
    let mut blocks = Vec::new();
    if frame.needs_registers() {
        blocks.push(b'R');
        let (registers, known) = frame.registers();
        // There is no way to say that one was not collected.
        let Served(served) = Served::new(description, &registers, Some(&known));
        blocks.extend(served.into_iter().map(Option::unwrap_or_default));
    }
    for (addr, bytes) in frame.memory() {
        for (piece, n) in bytes.chunks(PIECE).zip(0u64..) {
            blocks.push(b'M');
            blocks.extend((addr.0 + n * PIECE as u64).to_le_bytes());
            blocks.extend((piece.len() as u16).to_le_bytes());
            blocks.extend(piece);
        }
    }
    for (number, value) in frame.variables() {
        blocks.push(b'V');
        blocks.extend(u32::from(number).to_le_bytes());
        blocks.extend(value.to_le_bytes());
    }
    let tracepoint = (frame.tracepoint as u16).to_le_bytes();
    let size = (blocks.len() as u32).to_le_bytes();
    [&tracepoint[..], &size, &blocks].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::arch::{Register, Registers};
    use crate::target::VirtAddr;

    /// With so many bytes of memory.
    fn frame(tracepoint: usize, registers: &[Register], len: usize) -> Frame {
        let at = VirtAddr(0x1000);
        let mut from = Registers {
            rip: at.0,
            ..Registers::default()
        };
        from.gpr[1] = 0x1122;
        let registers: Arc<[Register]> = registers.into();
        let mut frame = Frame::new(tracepoint, at, &registers, &from);
        let bytes: Vec<_> = (0..len).map(|n| (n % 251) as u8).collect();
        frame.add_memory(VirtAddr(0x2000), bytes.into());
        frame
    }

    #[test]
    fn a_frame_has_a_head_and_blocks() {
        let mut frame = frame(2, &[Register::PC], 3);
        frame.set_variable(7, -2);
        let head = [2, 0, 27, 0, 0, 0];
        let memory = [b'M', 0, 0x20, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 2];
        let variable = [&[b'V', 7, 0, 0, 0, 0xfe][..], &[0xff; 7]].concat();
        let expected = [&head[..], &memory, &variable].concat();
        assert_eq!(encoded(&frame, Description::default()), expected);
    }

    #[test]
    fn registers_are_all_or_none() {
        let with = frame(1, &[Register::PC, Register::Gpr(1)], 0);
        let block = encoded(&with, Description::default());
        assert_eq!(block[6], b'R');
        assert_eq!(block[7..15], [0; 8], "not collected");
        assert_eq!(block[15..17], [0x22, 0x11], "in gdb's order");
        let description = Description::default();
        let sizes = description.registers().into_iter();
        let size: usize = sizes.map(|register| description.size(register)).sum();
        assert_eq!(block.len(), 7 + size);
        // A step is elsewhere than its tracepoint.
        let mut step = frame(1, &[Register::PC], 0);
        assert_eq!(encoded(&step, description).len(), 6);
        step.require_registers();
        assert_eq!(encoded(&step, description).len(), 7 + size);
    }

    #[test]
    fn long_memory_is_in_pieces() {
        let block = encoded(
            &frame(1, &[Register::PC], PIECE + 1),
            Description::default(),
        );
        assert_eq!(block[6..17], [b'M', 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0x80]);
        let second = &block[17 + PIECE..];
        let last = (PIECE % 251) as u8;
        assert_eq!(second, [b'M', 0, 0xa0, 0, 0, 0, 0, 0, 0, 1, 0, last]);
    }

    #[test]
    fn a_copy_is_whole_whatever_the_pieces() {
        let description = Description::default();
        let mut frames = Frames::default();
        let mut expected = Vec::new();
        for (n, len) in [3, 0, 500, 1].into_iter().enumerate() {
            let frame = frame(n + 1, &[Register::PC, Register::Gpr(1)], len);
            expected.extend(encoded(&frame, description));
            assert!(frames.push(frame));
        }
        for len in [1, 7, 100, 4000] {
            let mut copy = Copy::default();
            let mut found = Vec::new();
            loop {
                let piece = copy.read(&frames, description, found.len() as u64, len);
                if piece.is_empty() {
                    break;
                }
                found.extend(piece);
            }
            assert_eq!(found, expected, "in pieces of {len}");
            // Anywhere, and again.
            for at in [900, 3, expected.len() - 1] {
                let piece = copy.read(&frames, description, at as u64, 2);
                assert_eq!(piece[0], expected[at]);
            }
            for at in [expected.len() as u64, u64::MAX] {
                assert_eq!(copy.read(&frames, description, at, 2), []);
            }
            assert_eq!(copy.read(&frames, description, 0, 0), []);
        }
    }

    #[test]
    fn a_copy_begun_with_other_frames_is_not_gone_on_with() {
        let description = Description::default();
        let mut frames = Frames::default();
        assert!(frames.push(frame(1, &[Register::PC], 9)));
        let mut copy = Copy::default();
        assert_eq!(copy.read(&frames, description, 0, 1), [1]);
        frames.clear();
        for n in 2..4 {
            assert!(frames.push(frame(n, &[Register::PC], 9)));
        }
        assert_eq!(copy.read(&frames, description, 0, 1), [2]);
    }
}
