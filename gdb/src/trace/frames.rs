//! The data that the hits of tracepoints have collected.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::agent::Number;
use crate::arch::{Register, Registers, VectorSet};
use crate::target::VirtAddr;

/// The buffer's size in bytes, unless gdb asks for another one.
pub(crate) const DEFAULT_SIZE: usize = 16 << 20;

/// The largest that gdb can have.
pub(crate) const MAX_SIZE: usize = 256 << 20;

/// The approximate cost of a frame, or of a piece of its memory, beside its contents.
const OVERHEAD: usize = 64;

/// The data that one hit collected.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub tracepoint: usize,
    pub addr: VirtAddr,
    set: VectorSet,
    /// Which registers; shared with the tracepoint.
    registers: Arc<[Register]>,
    /// Their values, one behind the other.
    values: Box<[u8]>,
    memory: Vec<(VirtAddr, Box<[u8]>)>,
    variables: Vec<(Number, i64)>,
    /// A trace file is to have the registers, even if it has PC alone.
    needs_registers: bool,
}

impl Frame {
    /// With these registers of a vCPU's, and no memory yet.
    pub fn new(
        tracepoint: usize,
        addr: VirtAddr,
        which: &Arc<[Register]>,
        from: &Registers,
    ) -> Self {
        let value = |register: &Register| {
            let bytes = register.bytes(from);
            bytes.into_iter().take(register.size())
        };
        Self {
            tracepoint,
            addr,
            set: from.vectors.set,
            registers: which.clone(),
            values: which.iter().flat_map(value).collect(),
            memory: Vec::new(),
            variables: Vec::new(),
            needs_registers: false,
        }
    }

    /// gdb cannot tell the frame's address from the tracepoint.
    pub fn require_registers(&mut self) {
        self.needs_registers = true;
    }

    /// Whether gdb knows less without the registers.
    pub fn needs_registers(&self) -> bool {
        self.needs_registers || *self.registers != [Register::PC]
    }

    /// The pieces of memory, in the order in which they were collected.
    pub fn memory(&self) -> impl Iterator<Item = (VirtAddr, &[u8])> {
        self.memory.iter().map(|(addr, bytes)| (*addr, &**bytes))
    }

    /// The trace state variables that were collected.
    pub fn variables(&self) -> impl Iterator<Item = (Number, i64)> {
        self.variables.iter().copied()
    }

    pub fn add_memory(&mut self, addr: VirtAddr, bytes: Box<[u8]>) {
        self.memory.push((addr, bytes));
    }

    /// Notes the value of a trace state variable; of several the last one stands.
    pub fn set_variable(&mut self, number: Number, value: i64) {
        match self
            .variables
            .iter_mut()
            .find(|(other, _)| *other == number)
        {
            Some((_, old)) => *old = value,
            None => self.variables.push((number, value)),
        }
    }

    /// The value of a trace state variable that was collected.
    pub fn variable(&self, number: Number) -> Option<i64> {
        let mut variables = self.variables.iter();
        let found = variables.find(|(other, _)| *other == number);
        found.map(|(_, value)| *value)
    }

    /// The registers, where those that were not collected are 0, and which were.
    pub fn registers(&self) -> (Registers, Arc<[Register]>) {
        let mut registers = Registers::blank();
        registers.vectors.set = self.set;
        let mut rest = &*self.values;
        for register in self.registers.iter() {
            let (value, after) = rest.split_at(register.size());
            register.load(&mut registers, value);
            rest = after;
        }
        (registers, self.registers.clone())
    }

    /// Reads the collected bytes from `addr` on, up to the first one that was not collected.
    pub fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = addr.0.checked_add(done as u64) else {
                break;
            };
            let Some(piece) = self.memory_at(at) else {
                break;
            };
            let count = piece.len().min(buf.len() - done);
            buf[done..done + count].copy_from_slice(&piece[..count]);
            done += count;
        }
        done
    }

    /// The longest piece from `addr` on; never empty.
    fn memory_at(&self, addr: u64) -> Option<&[u8]> {
        let rest = |(start, bytes): &'_ (VirtAddr, Box<[u8]>)| {
            let skipped = usize::try_from(addr.checked_sub(start.0)?).ok()?;
            (skipped < bytes.len()).then_some(skipped)
        };
        let pieces = self.memory.iter();
        pieces
            .filter_map(|piece| Some(&piece.1[rest(piece)?..]))
            .max_by_key(|piece| piece.len())
    }

    /// In bytes, for the buffer's account.
    pub fn size(&self) -> usize {
        let memory = self.memory.iter();
        let memory: usize = memory.map(|(_, bytes)| OVERHEAD + bytes.len()).sum();
        let variables = self.variables.len() * size_of::<(Number, i64)>();
        OVERHEAD + self.values.len() + memory + variables
    }
}

/// The frames, up to a size.
#[derive(Debug)]
pub(crate) struct Frames {
    frames: VecDeque<Frame>,
    used: usize,
    /// In bytes.
    pub size: usize,
    /// The oldest make room for new ones.
    pub circular: bool,
    /// All that there ever were.
    pub created: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            used: 0,
            size: DEFAULT_SIZE,
            circular: false,
            created: 0,
        }
    }
}

impl Frames {
    pub fn clear(&mut self) {
        self.frames.clear();
        self.used = 0;
        self.created = 0;
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn get(&self, number: usize) -> Option<&Frame> {
        self.frames.get(number)
    }

    pub fn free(&self) -> usize {
        self.size.saturating_sub(self.used)
    }

    /// The most that one frame can be.
    pub fn room(&self) -> usize {
        if self.circular {
            self.size
        } else {
            self.free()
        }
    }

    /// Appends a frame, if there is room.
    pub fn push(&mut self, frame: Frame) -> bool {
        let size = frame.size();
        if size > self.room() {
            return false;
        }
        while size > self.free()
            && let Some(oldest) = self.frames.pop_front()
        {
            self.used -= oldest.size();
        }
        self.used += size;
        self.created += 1;
        self.frames.push_back(frame);
        true
    }

    /// The first frame from `start` on that fits.
    pub fn find(&self, start: usize, fits: impl Fn(&Frame) -> bool) -> Option<usize> {
        let mut numbers = start..self.frames.len();
        numbers.find(|&number| fits(&self.frames[number]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tracepoint: usize, pieces: &[(u64, &[u8])]) -> Frame {
        let which: Arc<[Register]> = [Register::Gpr(3), Register::Selector(1)].into();
        let mut registers = Registers::default();
        registers.gpr[3] = 0x1122;
        registers.gpr[4] = 0x3344;
        registers.ss.selector = 0x18;
        let mut frame = Frame::new(tracepoint, VirtAddr(0x1000), &which, &registers);
        for &(addr, bytes) in pieces {
            frame.add_memory(VirtAddr(addr), bytes.into());
        }
        frame
    }

    #[test]
    fn registers_come_back_and_no_others() {
        let (registers, which) = frame(1, &[]).registers();
        assert_eq!(registers.gpr[3], 0x1122);
        assert_eq!(registers.ss.selector, 0x18);
        assert_eq!(registers.gpr[4], 0, "not collected");
        assert_eq!(*which, [Register::Gpr(3), Register::Selector(1)]);
    }

    #[test]
    fn memory_is_read_across_pieces_and_no_further() {
        let frame = frame(1, &[(0x10, b"abcd"), (0x14, b"efgh"), (0x12, b"cdefghij")]);
        let read = |addr| {
            let mut buf = [0; 16];
            let count = frame.read(VirtAddr(addr), &mut buf);
            buf[..count].to_vec()
        };
        assert_eq!(read(0x10), b"abcdefghij");
        assert_eq!(read(0x19), b"j");
        assert_eq!(read(0x1a), b"");
        assert_eq!(read(0xf), b"");
        assert_eq!(read(u64::MAX), b"");
    }

    #[test]
    fn of_a_variable_the_last_value_stands() {
        let mut frame = frame(1, &[]);
        let empty = frame.size();
        for (number, value) in [(1, 5), (2, -1), (1, 6)] {
            frame.set_variable(number, value);
        }
        let values = [1, 2, 3].map(|number| frame.variable(number));
        assert_eq!(values, [Some(6), Some(-1), None]);
        assert_eq!(frame.size() - empty, 32, "the buffer's account knows");
    }

    #[test]
    fn a_full_buffer_takes_nothing_or_drops_the_oldest() {
        let one = frame(0, &[]).size();
        let mut frames = Frames {
            size: 3 * one,
            ..Frames::default()
        };
        for number in 0..3 {
            assert!(frames.push(frame(number, &[])));
        }
        assert!(!frames.push(frame(3, &[])));
        assert_eq!((frames.len(), frames.free(), frames.created), (3, 0, 3));
        frames.circular = true;
        assert!(frames.push(frame(3, &[])));
        assert_eq!(frames.get(0).unwrap().tracepoint, 1);
        assert_eq!((frames.len(), frames.created), (3, 4));
        assert!(!frames.push(frame(4, &[(0, &[0; 4096])])), "never fits");
        assert_eq!(frames.find(1, |frame| frame.tracepoint == 3), Some(2));
        assert_eq!(frames.find(1, |frame| frame.tracepoint == 1), None);
    }
}
