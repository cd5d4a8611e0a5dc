//! The buffers of one request in guest memory.

use super::chain::{Chain, Element};
use super::error::DriverError;
use super::memory::Memory;

/// One part that the device reads, and one that it writes; either may be empty.
#[derive(Clone, Debug)]
pub struct Buffers {
    readable: u64,
    readable_len: u32,
    writable: u64,
    writable_len: u32,
    chain: Chain,
}

impl Buffers {
    /// Puts `readable` into memory, and gives `writable` bytes to the device.
    pub fn place(memory: &Memory, readable: &[u8], writable: u32) -> Result<Self, DriverError> {
        let len = readable.len() as u32;
        let first = match len {
            0 => 0,
            len => memory.take("a readable buffer", len.into(), 16)?,
        };
        let second = match writable {
            0 => 0,
            len => memory.take("a writable buffer", len.into(), 16)?,
        };
        if len > 0 {
            memory.write(first, readable)?;
        }
        if writable > 0 {
            memory.open(second);
        }
        let mut elements = vec![Element::readable(first, len)];
        elements.push(Element::writable(second, writable));
        elements.retain(|element| element.len > 0);
        Ok(Self {
            readable: first,
            readable_len: len,
            writable: second,
            writable_len: writable,
            chain: Chain::new(elements),
        })
    }

    /// The two parts, each a single element, where it is not empty.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The same bytes in elements of these lengths; what they leave of a part is one more.
    pub fn split(&self, readable: &[u32], writable: &[u32]) -> Chain {
        let mut elements = Vec::new();
        for (addr, len) in pieces(self.readable, self.readable_len, readable) {
            elements.push(Element::readable(addr, len));
        }
        for (addr, len) in pieces(self.writable, self.writable_len, writable) {
            elements.push(Element::writable(addr, len));
        }
        Chain::new(elements)
    }

    /// The writable part as it is now. The device is done with it.
    pub fn finish(&self, memory: &Memory) -> Result<Vec<u8>, DriverError> {
        if self.writable_len == 0 {
            return Ok(Vec::new());
        }
        memory.close(self.writable)?;
        memory.read(self.writable, self.writable_len as usize)
    }

    /// Fills the writable part with one byte and gives it to the device again.
    pub fn refill(&self, memory: &Memory, byte: u8) -> Result<(), DriverError> {
        if self.writable_len == 0 {
            return Ok(());
        }
        memory.write(self.writable, &vec![byte; self.writable_len as usize])?;
        memory.open(self.writable);
        Ok(())
    }

    /// Puts other bytes into the readable part, which has as many.
    pub fn rewrite(&self, memory: &Memory, readable: &[u8]) -> Result<(), DriverError> {
        memory.write(self.readable, readable)
    }

    /// Guest-physical address of the writable part.
    pub fn writable(&self) -> u64 {
        self.writable
    }

    /// Guest-physical address of the readable part.
    pub fn readable(&self) -> u64 {
        self.readable
    }
}

fn pieces(mut addr: u64, mut left: u32, lengths: &[u32]) -> Vec<(u64, u32)> {
    let mut pieces = Vec::new();
    for len in lengths.iter().copied().chain([u32::MAX]) {
        let len = len.min(left);
        if len > 0 {
            pieces.push((addr, len));
        }
        (addr, left) = (addr + u64::from(len), left - len);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_bytes_once() {
        assert_eq!(pieces(10, 16, &[1, 3]), [(10, 1), (11, 3), (14, 12)]);
        assert_eq!(pieces(10, 4, &[4, 9]), [(10, 4)]);
        assert_eq!(pieces(0, 0, &[1]), []);
    }
}
