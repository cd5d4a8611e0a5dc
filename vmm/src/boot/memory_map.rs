//! The memory map for the guest.

use devices::virtio::GuestMemory;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::layout;

/// A piece of the map; everything else is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub start: u64,
    pub size: u64,
    pub kind: Kind,
}

/// E820 types; PVH uses the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// End of the RAM that starts at 0.
pub fn low_ram_end(memory: &GuestMemory) -> u64 {
    memory.iter().next().map_or(0, |region| region.len())
}

/// The map in ascending order.
pub fn pieces(memory: &GuestMemory) -> Vec<Piece> {
    let ram = |start: u64, end: u64| Piece {
        start,
        size: end - start,
        kind: Kind::Ram,
    };
    let mut pieces = vec![
        ram(0, layout::LOW_RAM_END),
        Piece {
            start: layout::LOW_RAM_END,
            size: layout::HIGH_RAM.0 - layout::LOW_RAM_END,
            kind: Kind::Reserved,
        },
        ram(layout::HIGH_RAM.0, low_ram_end(memory)),
    ];
    let above = memory.iter().skip(1);
    pieces.extend(above.map(|region| {
        let start = region.start_addr().raw_value();
        ram(start, start + region.len())
    }));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn the_map_covers_all_ram_but_the_legacy_area() {
        let size = 4 << 30;
        let memory = memory::allocate(size).unwrap();
        let pieces = pieces(&memory);
        let total: u64 = pieces.iter().map(|piece| piece.size).sum();
        assert_eq!(total, size);
        assert!(
            pieces
                .windows(2)
                .all(|two| two[0].start + two[0].size <= two[1].start)
        );
        assert_eq!(pieces.last().unwrap().start, 1 << 32);
        let reserved: Vec<_> = pieces.iter().filter(|p| p.kind == Kind::Reserved).collect();
        assert!(reserved[0].start <= layout::RSDP.0);
    }
}
