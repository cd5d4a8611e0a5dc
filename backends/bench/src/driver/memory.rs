//! Guest memory, in which every byte that a backend should not have written is noticed.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::error::DriverError;

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;

/// What a user address is more than the guest-physical address of the same byte, unless a layout
/// says otherwise: a backend that takes one for the other finds nothing there.
pub const USER_BASE: u64 = 0x7e00_0000_0000;

/// One region of guest memory, in whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Guest-physical.
    pub addr: u64,
    /// In bytes.
    pub size: u64,
    pub user: u64,
    /// Where it begins in its file, which is as much longer.
    pub offset: u64,
}

impl Layout {
    /// At user addresses that are not the guest-physical ones, from the begin of its file.
    pub fn new(addr: u64, size: u64) -> Self {
        Self {
            addr,
            size,
            user: USER_BASE + addr,
            offset: 0,
        }
    }

    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    fn contains(&self, addr: u64) -> bool {
        (self.addr..self.addr + self.size).contains(&addr)
    }
}

/// Bytes that changed where the device had nothing to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub addr: u64,
    pub was: u8,
    pub is: u8,
    /// What the driver has there.
    pub place: String,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            addr,
            was,
            is,
            place,
        } = self;
        write!(
            f,
            "guest address {addr:#x} ({place}) was {was:#04x} and is {is:#04x}"
        )
    }
}

/// A part of memory that has been given out.
#[derive(Debug)]
struct Area {
    begin: u64,
    end: u64,
    name: String,
    /// The device may write it now.
    open: bool,
}

#[derive(Debug)]
struct Region {
    layout: Layout,
    file: Arc<File>,
    /// What memory is to hold wherever the device may not write.
    expected: RefCell<Vec<u8>>,
}

/// Guest memory. It is full of a pattern; what the driver has not given to the device keeps it.
#[derive(Debug)]
pub struct Memory {
    regions: Vec<Region>,
    map: GuestMemoryMmap,
    areas: RefCell<Vec<Area>>,
    /// The first byte that has not been given out, by region.
    next: Cell<(usize, u64)>,
}

/// Bytes between two areas that belong to nobody.
const GUARD: u64 = 64;

impl Memory {
    /// # Errors
    /// The host has no memory, or a layout is not of whole pages, or two overlap.
    pub fn new(layouts: &[Layout]) -> Result<Self, DriverError> {
        let mut regions = Vec::new();
        for layout in layouts {
            let file = host_io::files::sealed_memfd("guest", layout.offset + layout.size)?;
            regions.push(Region {
                layout: *layout,
                file: Arc::new(file),
                expected: RefCell::new(pattern(layout)),
            });
        }
        let ranges = regions.iter().map(|region| {
            let Layout {
                addr, size, offset, ..
            } = region.layout;
            let file = FileOffset::from_arc(Arc::clone(&region.file), offset);
            (GuestAddress(addr), size as usize, Some(file))
        });
        let map = GuestMemoryMmap::from_ranges_with_files(ranges);
        let memory = Self {
            map: map.map_err(std::io::Error::other)?,
            next: Cell::new((0, layouts.first().map_or(0, |layout| layout.addr))),
            regions,
            areas: RefCell::default(),
        };
        for region in &memory.regions {
            let bytes = region.expected.borrow();
            memory.raw_write(region.layout.addr, &bytes)?;
        }
        Ok(memory)
    }

    /// The regions as SET_MEM_TABLE and ADD_MEM_REG have them, each with its file.
    pub fn table(&self) -> Vec<(VhostUserMemoryRegion, BorrowedFd<'_>)> {
        let entry = |region: &Region| {
            let Layout {
                addr,
                size,
                user,
                offset,
            } = region.layout;
            VhostUserMemoryRegion::new(addr, size, user, offset)
        };
        let regions = self.regions.iter();
        regions
            .map(|region| (entry(region), region.file.as_fd()))
            .collect()
    }

    /// The user address of a byte of guest memory, or the address itself outside of all regions.
    pub fn user(&self, addr: u64) -> u64 {
        let region = self
            .regions
            .iter()
            .find(|region| region.layout.contains(addr));
        region.map_or(addr, |region| {
            addr - region.layout.addr + region.layout.user
        })
    }

    /// Takes `len` bytes for something that is called `name`. Between two such areas is a gap.
    pub fn take(&self, name: &str, len: u64, align: u64) -> Result<u64, DriverError> {
        let (region, next) = self.next.get();
        let end = |region: usize| {
            let layout = self.regions.get(region)?.layout;
            Some((layout.addr, layout.addr + layout.size))
        };
        let begin = (next + GUARD).next_multiple_of(align);
        if end(region).is_some_and(|(_, end)| begin + len + GUARD <= end) {
            self.next.set((region, begin + len));
            self.areas.borrow_mut().push(Area {
                begin,
                end: begin + len,
                name: name.to_owned(),
                open: false,
            });
            return Ok(begin);
        }
        match end(region + 1) {
            Some((begin, _)) => {
                self.next.set((region + 1, begin));
                self.take(name, len, align)
            }
            None => Err(DriverError::MemoryFull(len)),
        }
    }

    /// Has the next [`take`](Self::take) be in region `index`, or behind it.
    pub fn take_from(&self, index: usize) {
        let (current, _) = self.next.get();
        if let Some(region) = self.regions.get(index).filter(|_| index > current) {
            self.next.set((index, region.layout.addr));
        }
    }

    /// Writes as a driver does.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), DriverError> {
        self.expect(addr, bytes);
        self.raw_write(addr, bytes)
    }

    /// A store that the device sees after all that was written before.
    pub fn store_u16(&self, addr: u64, value: u16) -> Result<(), DriverError> {
        self.expect(addr, &value.to_le_bytes());
        let stored = self
            .map
            .store(value.to_le(), GuestAddress(addr), Ordering::Release);
        Ok(stored.map_err(std::io::Error::other)?)
    }

    pub fn load_u16(&self, addr: u64) -> Result<u16, DriverError> {
        let loaded = self.map.load::<u16>(GuestAddress(addr), Ordering::Acquire);
        Ok(u16::from_le(loaded.map_err(std::io::Error::other)?))
    }

    pub fn read(&self, addr: u64, len: usize) -> Result<Vec<u8>, DriverError> {
        let mut bytes = vec![0; len];
        let read = self.map.read_slice(&mut bytes, GuestAddress(addr));
        read.map_err(std::io::Error::other)?;
        Ok(bytes)
    }

    pub fn read_u32(&self, addr: u64) -> Result<u32, DriverError> {
        let bytes = self.read(addr, 4)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes)))
    }

    /// The device may write these bytes of an area, from now on.
    pub fn open(&self, addr: u64) {
        self.set_open(addr, true);
    }

    /// The device has written the area that begins there, and may not do so again.
    pub fn close(&self, addr: u64) -> Result<(), DriverError> {
        self.set_open(addr, false);
        let area = self
            .areas
            .borrow()
            .iter()
            .find(|area| area.begin == addr)
            .map(|area| area.end);
        if let Some(end) = area {
            let bytes = self.read(addr, (end - addr) as usize)?;
            self.expect(addr, &bytes);
        }
        Ok(())
    }

    fn set_open(&self, addr: u64, open: bool) {
        let mut areas = self.areas.borrow_mut();
        for area in areas.iter_mut().filter(|area| area.begin == addr) {
            area.open = open;
        }
    }

    /// The first byte that changed though the device may not write there.
    pub fn stray(&self) -> Result<Option<Stray>, DriverError> {
        for region in &self.regions {
            let Layout { addr, size, .. } = region.layout;
            let now = self.read(addr, size as usize)?;
            let expected = region.expected.borrow();
            if now == *expected {
                continue;
            }
            let changed = now.iter().zip(expected.iter()).enumerate();
            for (at, (is, was)) in changed.filter(|(_, (is, was))| is != was) {
                if let Some(place) = self.closed_place(addr + at as u64) {
                    return Ok(Some(Stray {
                        addr: addr + at as u64,
                        was: *was,
                        is: *is,
                        place,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// What is at a byte that the device may not write.
    fn closed_place(&self, addr: u64) -> Option<String> {
        let areas = self.areas.borrow();
        let area = areas
            .iter()
            .find(|area| (area.begin..area.end).contains(&addr));
        match area {
            Some(area) if area.open => None,
            Some(area) => Some(format!("{} + {:#x}", area.name, addr - area.begin)),
            None => Some("no buffer of the driver's".into()),
        }
    }

    /// Pages that are not as the driver left them, by page number.
    pub fn written_pages(&self) -> Result<Vec<u64>, DriverError> {
        let mut pages = Vec::new();
        for region in &self.regions {
            let Layout { addr, size, .. } = region.layout;
            let now = self.read(addr, size as usize)?;
            let expected = region.expected.borrow();
            let both = now
                .chunks(PAGE as usize)
                .zip(expected.chunks(PAGE as usize));
            let written = (addr / PAGE..).zip(both).filter(|(_, (is, was))| is != was);
            pages.extend(written.map(|(page, _)| page));
        }
        Ok(pages)
    }

    fn raw_write(&self, addr: u64, bytes: &[u8]) -> Result<(), DriverError> {
        let written = self.map.write_slice(bytes, GuestAddress(addr));
        Ok(written.map_err(std::io::Error::other)?)
    }

    fn expect(&self, addr: u64, bytes: &[u8]) {
        let region = self
            .regions
            .iter()
            .find(|region| region.layout.contains(addr));
        if let Some(region) = region {
            let mut expected = region.expected.borrow_mut();
            let begin = (addr - region.layout.addr) as usize;
            if let Some(place) = expected.get_mut(begin..begin + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

/// What nobody has written: bytes that differ from their neighbours and from other pages.
fn pattern(layout: &Layout) -> Vec<u8> {
    let byte = |at: u64| 0xa5 ^ (at as u8) ^ ((at >> 12) as u8);
    (0..layout.size).map(|at| byte(layout.addr + at)).collect()
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
