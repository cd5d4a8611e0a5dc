//! Guest memory as the kernel sees it.

use std::sync::Arc;

use crate::arch::Registers;
use crate::machine::Machine;
use crate::paging::{AddressSpace, Translation, WalkError};
use crate::target::{PhysAddr, SharedMemory, TargetError, VirtAddr};

/// The stopped guest as Linux awareness needs it.
pub(crate) trait Guest {
    /// Registers of each vCPU; `None` of one that cannot be reached.
    fn registers(&self) -> Vec<Option<Registers>>;

    /// All of `buf` or an error.
    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError>;

    /// The guest for another thread.
    fn snapshot(&self) -> Snapshot;

    /// Another number whenever the guest has run.
    fn epoch(&self) -> u64 {
        0
    }
}

/// The registers as they are, and the memory as it will be.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub registers: Vec<Option<Registers>>,
    pub memory: Arc<dyn SharedMemory>,
}

impl Guest for Machine<'_> {
    fn registers(&self) -> Vec<Option<Registers>> {
        let vcpus = self.vcpus();
        vcpus
            .map(|vcpu| Machine::registers(self, vcpu).ok())
            .collect()
    }

    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
        Machine::read_physical(self, addr, buf)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            registers: Guest::registers(self),
            memory: self.memory(),
        }
    }

    fn epoch(&self) -> u64 {
        self.resumes()
    }
}

/// The guest's memory has nothing there, or something that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's memory at {0:#x} cannot be read")]
pub(crate) struct Unreadable(pub u64);

/// The memory of one address space.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub guest: &'a dyn Guest,
    pub space: AddressSpace,
}

impl Memory<'_> {
    pub fn translate(&self, addr: u64) -> Result<Translation, WalkError> {
        let read = |at, buf: &mut [u8]| self.guest.read_physical(at, buf);
        self.space.translate(VirtAddr(addr), read)
    }

    /// Fills `buf`.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Unreadable> {
        let mut at = addr;
        let mut rest = buf;
        while !rest.is_empty() {
            let unreadable = Unreadable(at);
            let place = self.translate(at).map_err(|_| unreadable)?;
            let left = place.page_size - (at & (place.page_size - 1));
            let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (piece, after) = rest.split_at_mut(len);
            self.guest
                .read_physical(place.phys, piece)
                .map_err(|_| unreadable)?;
            rest = after;
            if !rest.is_empty() {
                at = at.checked_add(len as u64).ok_or(unreadable)?;
            }
        }
        Ok(())
    }

    pub fn bytes(&self, addr: u64, len: usize) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = vec![0; len];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    pub fn u64(&self, addr: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub fn u32(&self, addr: u64) -> Result<u32, Unreadable> {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A C string of at most `max` bytes, cut there if it is longer. Control
    /// characters are replaced: the guest chose the text.
    pub fn string(&self, addr: u64, max: usize) -> Result<String, Unreadable> {
        Ok(printable(&self.string_bytes(addr, max)?))
    }

    /// The same as it is, without its end.
    pub fn string_bytes(&self, addr: u64, max: usize) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = Vec::new();
        while bytes.len() < max {
            let at = addr
                .checked_add(bytes.len() as u64)
                .ok_or(Unreadable(addr))?;
            // Not into a page that may be missing before the end is seen.
            let len = (0x40 - (at & 0x3f) as usize).min(max - bytes.len());
            let piece = self.bytes(at, len)?;
            let end = memchr::memchr(0, &piece);
            bytes.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if end.is_some() {
                break;
            }
        }
        Ok(bytes)
    }
}

/// Text of the guest's, with control characters replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
