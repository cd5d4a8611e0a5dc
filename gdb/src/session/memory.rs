//! Guest memory by virtual address, with planted bytes hidden.

use super::guest::Guest;
use crate::address::{PhysAddr, VcpuId, VirtAddr};
use crate::breakpoints::PhysicalMemory;
use crate::machine::{AddressError, Machine};
use crate::target::{Result, TargetError};

/// Pages are never smaller, and RAM regions begin and end at such borders.
pub(super) const PAGE: u64 = 4096;

impl PhysicalMemory for Machine<'_> {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        self.read_physical(addr, buf)
    }

    fn write(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()> {
        self.write_physical(addr, data)
    }
}

/// gdb cannot write there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{:#x} cannot be written", .addr.0)]
    Address {
        addr: VirtAddr,
        #[source]
        source: AddressError,
    },
    #[error("{len} bytes at {:#x} are beyond the end of the address space", .addr.0)]
    Wraps { addr: VirtAddr, len: usize },
    #[error("{:#x} cannot be written", .addr.0)]
    Memory {
        addr: VirtAddr,
        #[source]
        source: TargetError,
    },
}

impl Guest<'_> {
    /// Reads from `addr` on, up to the first byte that is not mapped or is no
    /// RAM; returns the number of bytes.
    pub(crate) fn read_virtual(&self, vcpu: VcpuId, addr: VirtAddr, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for (addr, len) in pieces(addr, buf.len()) {
            let Ok(translation) = self.translate(vcpu, addr) else {
                break;
            };
            let piece = &mut buf[done..done + len];
            if self.machine.read_physical(translation.phys, piece).is_err() {
                break;
            }
            self.breakpoints.planted.hide(translation.phys, piece);
            done += len;
        }
        done
    }

    /// [`Guest::read_virtual`] by physical address.
    pub(crate) fn read_physical_hidden(&self, addr: PhysAddr, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for (addr, len) in pieces(VirtAddr(addr.0), buf.len()) {
            let phys = PhysAddr(addr.0);
            let piece = &mut buf[done..done + len];
            if self.machine.read_physical(phys, piece).is_err() {
                break;
            }
            self.breakpoints.planted.hide(phys, piece);
            done += len;
        }
        done
    }

    /// Writes all of `data` at a physical address, beneath planted bytes.
    ///
    /// # Errors
    /// It is not all RAM: nothing is written.
    pub(crate) fn write_physical_around(
        &mut self,
        addr: PhysAddr,
        data: &[u8],
    ) -> std::result::Result<(), WriteError> {
        let planted = &mut self.breakpoints.planted;
        planted
            .write_around(&mut self.machine, addr, data)
            .map_err(|source| WriteError::Memory {
                addr: VirtAddr(addr.0),
                source,
            })
    }

    /// Writes all of `data`, whatever the page tables allow.
    ///
    /// # Errors
    /// A page is not mapped: nothing is written. A page is no RAM: those before
    /// it are written.
    pub(crate) fn write_virtual(
        &mut self,
        vcpu: VcpuId,
        addr: VirtAddr,
        data: &[u8],
    ) -> std::result::Result<(), WriteError> {
        if addr
            .0
            .checked_add(data.len().saturating_sub(1) as u64)
            .is_none()
        {
            return Err(WriteError::Wraps {
                addr,
                len: data.len(),
            });
        }
        let mut places = Vec::new();
        for (addr, len) in pieces(addr, data.len()) {
            let translation = self.translate(vcpu, addr);
            let source = |source| WriteError::Address { addr, source };
            places.push((addr, translation.map_err(source)?.phys, len));
        }
        let mut rest = data;
        for (addr, phys, len) in places {
            let (piece, after) = rest.split_at(len);
            let planted = &mut self.breakpoints.planted;
            planted
                .write_around(&mut self.machine, phys, piece)
                .map_err(|source| WriteError::Memory { addr, source })?;
            rest = after;
        }
        Ok(())
    }
}

/// `len` bytes at `addr`, cut at page borders; the address space does not wrap.
pub(super) fn pieces(addr: VirtAddr, len: usize) -> impl Iterator<Item = (VirtAddr, usize)> {
    let mut at = Some(addr.0);
    let mut left = len as u64;
    std::iter::from_fn(move || {
        let addr = at.filter(|_| left > 0)?;
        let len = left.min(PAGE - addr % PAGE);
        at = addr.checked_add(len);
        left -= len;
        Some((VirtAddr(addr), len as usize))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_page_borders() {
        let cut = |addr, len| {
            pieces(VirtAddr(addr), len)
                .map(|(a, l)| (a.0, l))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(0x1000, 0), []);
        assert_eq!(cut(0x1ffe, 1), [(0x1ffe, 1)]);
        assert_eq!(
            cut(0x1ffe, 0x1004),
            [(0x1ffe, 2), (0x2000, 0x1000), (0x3000, 2)]
        );
        assert_eq!(cut(u64::MAX, 2), [(u64::MAX, 1)]);
    }
}
