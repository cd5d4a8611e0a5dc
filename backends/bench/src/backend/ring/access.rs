//! Numbers in guest memory.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::chain::RingError;
use crate::backend::trouble::Trouble;

/// Numbers of a ring, which are little-endian.
pub trait LittleEndian: vm_memory::AtomicAccess {
    fn to_native(self) -> Self;
}

macro_rules! little_endian {
    ($($number:ty),*) => {$(
        impl LittleEndian for $number {
            fn to_native(self) -> Self {
                Self::from_le(self)
            }
        }
    )*};
}

little_endian!(u16, u32, u64);

pub fn load<T: LittleEndian>(
    memory: &GuestMemoryMmap,
    part: GuestAddress,
    at: u64,
) -> Result<T, RingError> {
    let place = GuestAddress(part.0.wrapping_add(at));
    let loaded = memory.load::<T>(place, Ordering::Acquire);
    loaded
        .map(LittleEndian::to_native)
        .map_err(|_| unreachable(place))
}

/// What was written before is seen by whoever sees this.
pub fn publish(
    memory: &GuestMemoryMmap,
    part: GuestAddress,
    at: u64,
    number: u16,
) -> Result<(), RingError> {
    let place = GuestAddress(part.0.wrapping_add(at));
    memory
        .store(number.to_le(), place, Ordering::Release)
        .map_err(|_| unreachable(place))
}

pub fn write(
    memory: &GuestMemoryMmap,
    part: GuestAddress,
    at: u64,
    bytes: &[u8],
) -> Result<(), RingError> {
    let place = GuestAddress(part.0.wrapping_add(at));
    memory
        .write_slice(bytes, place)
        .map_err(|_| unreachable(place))
}

fn unreachable(place: GuestAddress) -> RingError {
    let text = format!("guest address {:#x} of a ring is in no region", place.0);
    (Trouble::Unreachable, text)
}
