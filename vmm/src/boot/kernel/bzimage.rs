//! bzImages, by the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst).

use std::ops::Range;

use devices::virtio::GuestMemory;
use linux_loader::loader::{BzImage, KernelLoader};

use super::error::Error;
use super::fields::{u16_at, u32_at, u64_at};
use super::image::{Image, Kernel};
use crate::boot::entry::Entry;
use crate::boot::ram_reader::RamReader;
use crate::layout;

/// The magic of the setup header.
const MAGIC_OFFSET: u64 = 0x202;
const MAGIC: &[u8] = b"HdrS";

/// Fields of the setup header that the file is judged by.
pub(super) const SETUP_SECTS_OFFSET: usize = 0x1f1;
const SYSSIZE_OFFSET: usize = 0x1f4;
const VERSION_OFFSET: usize = 0x206;
const INITRD_ADDR_MAX_OFFSET: usize = 0x22c;
const XLOADFLAGS_OFFSET: usize = 0x236;
const PREF_ADDRESS_OFFSET: usize = 0x258;
const INIT_SIZE_OFFSET: usize = 0x260;
pub(super) const SETUP_HEADER_END: u64 = 0x268;

/// The first protocol that says where the kernel unpacks itself to.
const PROTOCOL_2_10: u16 = 0x20a;
/// The first with `xloadflags`, and with them its bit for a 64-bit entry.
const PROTOCOL_2_12: u16 = 0x20c;
const XLF_KERNEL_64: u16 = 1;

/// The 64-bit entry's distance from the load address, where the 32-bit one is.
const ENTRY_64_OFFSET: u64 = 0x200;

impl Image<'_> {
    pub(super) fn is_bzimage(&self) -> Result<bool, Error> {
        Ok(self.prefix(MAGIC_OFFSET, MAGIC.len() as u64)? == MAGIC)
    }

    pub(super) fn load_bzimage(&mut self, memory: &GuestMemory) -> Result<Kernel, Error> {
        let header = self.bytes(0, SETUP_HEADER_END)?;
        self.require_len(loaded(&header).end)?;
        let version = u16_at(&header, VERSION_OFFSET);
        if version < PROTOCOL_2_10 {
            let path = self.path().to_owned();
            return Err(Error::TooOld { path, version });
        }
        // The kernel unpacks itself to pref_address and needs init_size there.
        let pref_address = u64_at(&header, PREF_ADDRESS_OFFSET);
        let end = pref_address.saturating_add(u32_at(&header, INIT_SIZE_OFFSET).into());
        self.require_ram(end)?;
        let mut reader = RamReader::new(self.file(), memory);
        let loaded = BzImage::load(memory, None, &mut reader, Some(layout::HIGH_RAM));
        let loaded = loaded.map_err(|error| self.malformed(error))?;
        let start = loaded.kernel_load.0;
        let entry = if has_64_bit_entry(&header) {
            Entry::Linux64 {
                rip: start + ENTRY_64_OFFSET,
            }
        } else {
            Entry::Linux32 { rip: start }
        };
        Ok(Kernel {
            entry,
            end: end.max(loaded.kernel_end),
            initrd_max: u32_at(&header, INITRD_ADDR_MAX_OFFSET).into(),
            setup_header: loaded.setup_header,
        })
    }
}

/// Where the file has the real-mode and the protected-mode part, by its header.
pub(super) fn loaded(header: &[u8]) -> Range<u64> {
    let setup_sects = match header.get(SETUP_SECTS_OFFSET) {
        None | Some(0) => 4,
        Some(sects) => u64::from(*sects),
    };
    let payload = (setup_sects + 1) * 512;
    // The protected-mode part in 16-byte units.
    let syssize = u64::from(u32_at(header, SYSSIZE_OFFSET)) * 16;
    0..payload + syssize
}

/// Whether the kernel says that it has one. It is a 32-bit kernel otherwise, or an
/// old one, whose 32-bit entry finds the way into long mode.
fn has_64_bit_entry(header: &[u8]) -> bool {
    u16_at(header, VERSION_OFFSET) >= PROTOCOL_2_12
        && u16_at(header, XLOADFLAGS_OFFSET) & XLF_KERNEL_64 != 0
}
