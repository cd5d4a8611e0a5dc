//! The start info of the PVH boot protocol (Xen, docs/misc/pvh.pandoc).

use devices::virtio::GuestMemory;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};

use super::error::Error;
use super::initrd::Placed;
use super::linux::no_room;
use super::memory_map;
use crate::layout;

/// The version with a memory map.
const VERSION: u32 = 1;

pub fn write(memory: &GuestMemory, initrd: Option<Placed>) -> Result<(), Error> {
    let map: Vec<_> = memory_map::pieces(memory)
        .iter()
        .map(|piece| hvm_memmap_table_entry {
            addr: piece.start,
            size: piece.size,
            type_: piece.kind as u32,
            reserved: 0,
        })
        .collect();
    let modules: Vec<_> = initrd
        .iter()
        .map(|initrd| hvm_modlist_entry {
            paddr: initrd.addr,
            size: initrd.size,
            ..Default::default()
        })
        .collect();
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: modules.len() as u32,
        modlist_paddr: if modules.is_empty() {
            0
        } else {
            layout::PVH_MODULES.0
        },
        cmdline_paddr: layout::CMDLINE.0,
        rsdp_paddr: layout::RSDP.0,
        memmap_paddr: layout::PVH_MEMORY_MAP.0,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, layout::PVH_START_INFO);
    params.set_sections(&map, layout::PVH_MEMORY_MAP);
    params.set_modules(&modules, layout::PVH_MODULES);
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(no_room)
}
