use super::super::{Buffers, Layout};
use super::*;

/// A position's wrap counter.
const WRAPPED: u16 = 1 << 15;

/// A ring of zeros looks used to who comes with a wrap counter of 0.
#[test]
fn nothing_is_used_where_a_ring_begins_with_either_wrap_counter() {
    for base in [0, 5, WRAPPED, WRAPPED | 5] {
        let memory = Memory::new(&[Layout::new(0, 1 << 16)]).unwrap();
        let mut ring = PackedRing::new(&memory, "a ring", 8, false).unwrap();
        ring.rebase(&memory, u32::from(base) | u32::from(base) << 16)
            .unwrap();
        let buffers = Buffers::place(&memory, &[], 4).unwrap();
        for _ in 0..2 {
            let id = ring.stage(&memory, buffers.chain()).unwrap();
            assert_eq!(ring.poll(&memory), Ok(None), "{base:#x}");
            ring.publish(&memory).unwrap();
            assert_eq!(ring.poll(&memory), Ok(None), "{base:#x} {id}");
        }
    }
}
