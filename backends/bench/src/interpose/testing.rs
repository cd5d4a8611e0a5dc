//! Guest memory for tests of what looks into rings.

use std::fs::File;

use super::{Access, Memory, Place};

/// Where the driver and the frontend have the one region.
pub const GUEST: u64 = 0x10_0000;
pub const USER: u64 = 0x7000_0000;
const SIZE: u64 = 0x4000;

/// A file, and the memory that is in it.
pub fn memory(access: Access) -> (File, Memory) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    let mut memory = Memory::new(access);
    let place = Place {
        guest: GUEST,
        size: SIZE,
        user: USER,
        offset: 0,
    };
    memory.add(place, file.try_clone().unwrap());
    (file, memory)
}
