//! The zero page of the Linux/x86 boot protocol.

use devices::virtio::GuestMemory;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};

use super::error::Error;
use super::initrd::Placed;
use super::kernel::Kernel;
use super::memory_map;
use crate::layout;

/// "HdrS", the magic of the setup header.
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// A boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x100_0000;

pub fn write(
    memory: &GuestMemory,
    kernel: &Kernel,
    initrd: Option<Placed>,
    cmdline: &str,
) -> Result<(), Error> {
    let mut params = boot_params {
        hdr: kernel.setup_header.unwrap_or_else(plain_header),
        acpi_rsdp_addr: layout::RSDP.0,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = layout::CMDLINE.0 as u32;
    params.hdr.cmdline_size = cmdline.len() as u32;
    if let Some(initrd) = initrd {
        // The loader placed it below 4 GiB, where `initrd_max` ends.
        params.hdr.ramdisk_image = initrd.addr as u32;
        params.hdr.ramdisk_size = initrd.size as u32;
    }
    let pieces = memory_map::pieces(memory);
    for (entry, piece) in params.e820_table.iter_mut().zip(&pieces) {
        *entry = boot_e820_entry {
            addr: piece.start,
            size: piece.size,
            r#type: piece.kind as u32,
        };
    }
    params.e820_entries = pieces.len() as u8;
    let params = BootParams::new(&params, layout::ZERO_PAGE);
    LinuxBootConfigurator::write_bootparams(&params, memory).map_err(no_room)
}

/// An ELF kernel has no header of its own.
fn plain_header() -> setup_header {
    setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        kernel_alignment: KERNEL_ALIGNMENT,
        ..Default::default()
    }
}

/// Boot data goes to fixed low addresses that every RAM size has.
pub(super) fn no_room(_: linux_loader::configurator::Error) -> Error {
    Error::Memory(vm_memory::GuestMemoryError::InvalidGuestAddress(
        layout::ZERO_PAGE,
    ))
}
