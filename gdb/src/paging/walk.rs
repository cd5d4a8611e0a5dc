//! The walk itself.

use super::bit;
use super::entry::Step;
use super::mode::{ADDRESS, Mode};
use super::space::{ALL, AddressSpace, Rights, Translation, WalkError};
use crate::address::{PhysAddr, VirtAddr};
use crate::error::TargetError;

/// The smallest granule; also the length of a translation without paging.
const PAGE: u64 = 4096;

impl AddressSpace {
    /// Translates `addr`, reading page tables with `read` (all of the buffer or
    /// an error).
    ///
    /// # Errors
    /// The address is not mapped, or malformed for the mode, or a table is not RAM.
    pub fn translate(
        &self,
        addr: VirtAddr,
        read: impl FnMut(PhysAddr, &mut [u8]) -> Result<(), TargetError>,
    ) -> Result<Translation, WalkError> {
        self.walk(addr, read, |_| {})
    }

    /// [`AddressSpace::translate`] that shows each entry on its way, the one at
    /// which it ends included.
    ///
    /// # Errors
    /// As `translate`.
    pub fn walk(
        &self,
        addr: VirtAddr,
        mut read: impl FnMut(PhysAddr, &mut [u8]) -> Result<(), TargetError>,
        mut visit: impl FnMut(Step),
    ) -> Result<Translation, WalkError> {
        self.check(addr.0)?;
        if self.mode == Mode::Off {
            return Ok(Translation {
                phys: PhysAddr(addr.0),
                page_size: PAGE,
                rights: ALL,
            });
        }
        let mut table = self.root & self.mode.root_mask();
        let mut rights = ALL;
        let mut level = self.mode.top();
        loop {
            let index = self.mode.index(level, addr.0);
            let at = PhysAddr(table + index * self.mode.entry_size() as u64);
            let entry = self
                .entry(at, &mut read)
                .map_err(|source| WalkError::Unreadable { level, source })?;
            visit(Step {
                level,
                index,
                at,
                entry,
            });
            self.inspect(level, entry)?;
            if self.mode.has_rights(level) {
                rights = rights.and(entry, self.no_execute);
            }
            // Level 1 always is a leaf, so that the level never gets below it.
            if self.is_leaf(level, entry) {
                return Ok(self.leaf(level, entry, addr.0, rights));
            }
            table = entry & ADDRESS;
            level -= 1;
        }
    }

    fn check(&self, addr: u64) -> Result<(), WalkError> {
        let bits = self.mode.address_bits();
        if bits == 32 {
            let fits = addr >> 32 == 0;
            return fits.then_some(()).ok_or(WalkError::BeyondLinear(addr));
        }
        // The bits above the top one repeat it (SDM volume 1, 3.3.7.1).
        let unused = 64 - bits;
        let canonical = ((addr << unused) as i64 >> unused) as u64 == addr;
        canonical.then_some(()).ok_or(WalkError::NotCanonical(addr))
    }

    fn entry(
        &self,
        at: PhysAddr,
        read: &mut impl FnMut(PhysAddr, &mut [u8]) -> Result<(), TargetError>,
    ) -> Result<u64, TargetError> {
        let mut bytes = [0; 8];
        read(at, &mut bytes[..self.mode.entry_size()])?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn is_leaf(&self, level: u8, entry: u64) -> bool {
        level == 1 || self.mode.may_be_huge(level) && entry & bit::PAGE_SIZE != 0
    }

    /// Whether the processor would use the entry.
    pub(super) fn inspect(&self, level: u8, entry: u64) -> Result<(), WalkError> {
        if entry & bit::PRESENT == 0 {
            return Err(WalkError::NotPresent { level });
        }
        if entry & self.reserved(level, entry) != 0 {
            return Err(WalkError::Reserved { level, entry });
        }
        Ok(())
    }

    /// The bits that must be 0 in a present entry. Bits of physical addresses
    /// beyond the CPU's width are not among them: the width is not known here.
    fn reserved(&self, level: u8, entry: u64) -> u64 {
        let huge = level > 1 && self.is_leaf(level, entry);
        let Mode::Bits32 { .. } = self.mode else {
            let mut reserved = match (self.mode, level) {
                // Not the accessed bit, though the SDM has it among them (table 5-8):
                // QEMU's processor sets it, and ignores it.
                (Mode::Pae, 3) => 0xfff0_0000_0000_01c6,
                (Mode::Pae, _) => 0x7ff0_0000_0000_0000,
                (_, 4 | 5) => bit::PAGE_SIZE,
                _ => 0,
            };
            if !self.no_execute {
                reserved |= bit::NO_EXECUTE;
            }
            if huge {
                // Below the page's address, but for bit 12 (PAT).
                reserved |= ((1 << self.mode.shift(level)) - 1) & !0x1fff;
            }
            return reserved;
        };
        if huge { 1 << 21 } else { 0 }
    }

    fn leaf(&self, level: u8, entry: u64, addr: u64, rights: Rights) -> Translation {
        let page_size = 1 << self.mode.shift(level);
        let offset = addr & (page_size - 1);
        let page = match self.mode {
            // PSE-36: bits 20 to 13 are bits 39 to 32 of the address.
            Mode::Bits32 { .. } if level == 2 => entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32,
            _ => entry & ADDRESS & !(page_size - 1),
        };
        Translation {
            phys: PhysAddr(page | offset),
            page_size,
            rights,
        }
    }
}
