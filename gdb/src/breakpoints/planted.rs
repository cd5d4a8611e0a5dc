//! int3 bytes in guest memory, by guest-physical address.
//!
//! The physical byte is what matters: one page may be mapped at many virtual
//! addresses. The guest may rewrite its code at any time (alternatives, ftrace,
//! module loading), so the byte in memory is checked before it is restored or
//! hidden: only an int3 is ours.

use std::collections::BTreeMap;

use crate::arch::BREAKPOINT;
use crate::target::{PhysAddr, Result, VirtAddr};

/// Guest RAM by physical address; all of a buffer or an error.
pub(crate) trait PhysicalMemory {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()>;
    fn write(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()>;
}

/// The planted bytes.
#[derive(Debug, Default)]
pub(crate) struct Planted {
    bytes: BTreeMap<PhysAddr, Byte>,
}

#[derive(Debug)]
struct Byte {
    original: u8,
    /// The virtual addresses that gdb planted it for; never empty.
    holders: Vec<VirtAddr>,
}

impl Planted {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn contains(&self, byte: PhysAddr) -> bool {
        self.bytes.contains_key(&byte)
    }

    /// Whether gdb planted `byte` for this virtual address, and not for another
    /// one that the same page is mapped at.
    pub fn is_held_by(&self, byte: PhysAddr, addr: VirtAddr) -> bool {
        let byte = self.bytes.get(&byte);
        byte.is_some_and(|byte| byte.holders.contains(&addr))
    }

    /// Plants `at` on behalf of `addr`. Planting twice is planting once.
    ///
    /// # Errors
    /// `at` is no RAM; nothing has changed then.
    pub fn insert(
        &mut self,
        memory: &mut impl PhysicalMemory,
        at: PhysAddr,
        addr: VirtAddr,
    ) -> Result<()> {
        let found = read_byte(memory, at)?;
        let known = self.bytes.get(&at).map(|byte| byte.original);
        let original = known.filter(|_| found == BREAKPOINT).unwrap_or(found);
        memory.write(at, &[BREAKPOINT])?;
        let byte = self.bytes.entry(at).or_insert(Byte {
            original,
            holders: Vec::new(),
        });
        byte.original = original;
        if !byte.holders.contains(&addr) {
            byte.holders.push(addr);
        }
        Ok(())
    }

    /// Takes `addr` from the holders, and the int3 away with the last one.
    ///
    /// # Errors
    /// The original byte cannot be written; it is forgotten all the same.
    pub fn remove(
        &mut self,
        memory: &mut impl PhysicalMemory,
        at: PhysAddr,
        addr: VirtAddr,
    ) -> Result<()> {
        let Some(byte) = self.bytes.get_mut(&at) else {
            return Ok(());
        };
        byte.holders.retain(|&holder| holder != addr);
        if !byte.holders.is_empty() {
            return Ok(());
        }
        let original = byte.original;
        self.bytes.remove(&at);
        restore(memory, at, original)
    }

    /// Removes all, whatever fails, and returns the first error.
    ///
    /// # Errors
    /// An original byte cannot be written.
    pub fn clear(&mut self, memory: &mut impl PhysicalMemory) -> Result<()> {
        std::mem::take(&mut self.bytes)
            .into_iter()
            .map(|(at, byte)| restore(memory, at, byte.original))
            .fold(Ok(()), Result::and)
    }

    /// Restores the original for the moment; [`Planted::replant`] must follow.
    ///
    /// # Errors
    /// The byte cannot be read or written.
    pub fn lift(&self, memory: &mut impl PhysicalMemory, at: PhysAddr) -> Result<()> {
        match self.bytes.get(&at) {
            Some(byte) => restore(memory, at, byte.original),
            None => Ok(()),
        }
    }

    /// Plants again after [`Planted::lift`], over whatever is there now.
    ///
    /// # Errors
    /// The byte cannot be read or written.
    pub fn replant(&mut self, memory: &mut impl PhysicalMemory, at: PhysAddr) -> Result<()> {
        let Some(byte) = self.bytes.get_mut(&at) else {
            return Ok(());
        };
        byte.original = read_byte(memory, at)?;
        memory.write(at, &[BREAKPOINT])
    }

    /// Puts the originals into `buf`, which was read at `start`.
    pub fn hide(&self, start: PhysAddr, buf: &mut [u8]) {
        for (&at, byte) in self.within(start, buf.len()) {
            // Within the range, hence within the buffer.
            let found = &mut buf[(at.0 - start.0) as usize];
            if *found == BREAKPOINT {
                *found = byte.original;
            }
        }
    }

    /// Writes `data` at `start`, but under planted bytes into their originals.
    ///
    /// # Errors
    /// It is no RAM; nothing has changed then.
    pub fn write_around(
        &mut self,
        memory: &mut impl PhysicalMemory,
        start: PhysAddr,
        data: &[u8],
    ) -> Result<()> {
        let mut shown = data.to_vec();
        for (&at, _) in self.within(start, data.len()) {
            shown[(at.0 - start.0) as usize] = BREAKPOINT;
        }
        memory.write(start, &shown)?;
        for (at, byte) in self
            .bytes
            .range_mut(start..PhysAddr(end(start, data.len())))
        {
            byte.original = data[(at.0 - start.0) as usize];
        }
        Ok(())
    }

    fn within(&self, start: PhysAddr, len: usize) -> impl Iterator<Item = (&PhysAddr, &Byte)> {
        self.bytes.range(start..PhysAddr(end(start, len)))
    }
}

fn end(start: PhysAddr, len: usize) -> u64 {
    start.0.saturating_add(len as u64)
}

fn read_byte(memory: &impl PhysicalMemory, at: PhysAddr) -> Result<u8> {
    let mut byte = [0];
    memory.read(at, &mut byte)?;
    Ok(byte[0])
}

/// Writes the original back unless the guest has replaced our int3.
fn restore(memory: &mut impl PhysicalMemory, at: PhysAddr, original: u8) -> Result<()> {
    if read_byte(memory, at)? == BREAKPOINT {
        memory.write(at, &[original])?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "planted_test.rs"]
mod tests;
