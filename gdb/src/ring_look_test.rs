use super::*;
use crate::target::TargetError;

/// Descriptors at 0x100, the driver's part at 0x200, the device's at 0x300.
const QUEUE: Virtqueue = Virtqueue {
    packed: false,
    size: 4,
    descriptors: PhysAddr(0x100),
    available: PhysAddr(0x200),
    used: PhysAddr(0x300),
};

struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Self {
        Self(vec![0; 0x1000])
    }

    fn words(mut self, at: usize, words: &[u16]) -> Self {
        for (place, word) in (at..).step_by(2).zip(words) {
            self.0[place..place + 2].copy_from_slice(&word.to_le_bytes());
        }
        self
    }

    fn descriptor(mut self, index: usize, addr: u64, len: u32, flags: u16, next: u16) -> Self {
        let at = 0x100 + 16 * index;
        self.0[at..at + 8].copy_from_slice(&addr.to_le_bytes());
        self.0[at + 8..at + 12].copy_from_slice(&len.to_le_bytes());
        self.words(at + 12, &[flags, next])
    }

    fn look(&self, packed: bool, event_idx: bool) -> Ring {
        let queue = Virtqueue { packed, ..QUEUE };
        let read = |at: PhysAddr, buf: &mut [u8]| {
            let start = usize::try_from(at.0).unwrap();
            let bytes = start
                .checked_add(buf.len())
                .and_then(|end| self.0.get(start..end));
            buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(at))?);
            Ok(())
        };
        look(&queue, event_idx, &read).unwrap()
    }
}

#[test]
fn indices_and_wishes_of_a_split_ring_are_seen() {
    let memory = Memory::new().words(0x200, &[1, 7, 0, 0, 0, 0, 5]);
    let memory = memory.words(0x300, &[1, 6]).words(0x324, &[9]);
    let ring = memory.look(false, false);
    assert_eq!(
        ring.indices,
        Some(Indices {
            available: 7,
            used: 6
        })
    );
    assert_eq!((ring.interrupts, ring.kicks), (Wish::Never, Wish::Never));
    assert!(ring.is_touched && ring.has_used);
    let ring = memory.look(false, true);
    assert_eq!(
        (ring.interrupts, ring.kicks),
        (Wish::AtIndex(5), Wish::AtIndex(9))
    );
    let ring = Memory::new().look(false, false);
    assert_eq!((ring.interrupts, ring.kicks), (Wish::Always, Wish::Always));
    assert!(!ring.is_touched && !ring.has_used);
}

#[test]
fn what_no_device_can_make_sense_of_is_named() {
    let given = |memory: Memory| memory.words(0x200, &[0, 1, 0]).look(false, false).broken;
    let whole = Memory::new().descriptor(0, 0x800, 16, 0, 0);
    assert_eq!(given(whole), [""; 0]);
    let looped = Memory::new()
        .descriptor(0, 0x800, 16, 1, 1)
        .descriptor(1, 0x800, 1, 1, 0);
    assert_eq!(
        given(looped),
        ["chain 0: the chain comes back to descriptor 0"]
    );
    let outside = Memory::new().descriptor(0, 0xff8, 16, 0, 0);
    assert_eq!(
        given(outside),
        ["chain 0: descriptor 0: 16 bytes at 0xff8 are not in RAM"]
    );
    let far = Memory::new().descriptor(0, u64::MAX, u32::MAX, 0, 0);
    assert_eq!(given(far).len(), 1);
    let next = Memory::new().descriptor(0, 0x800, 16, 1, 9);
    assert_eq!(
        given(next),
        ["chain 0: descriptor 9 is beyond the table's 4"]
    );
    let ahead = Memory::new().words(0x200, &[0, 5]).look(false, false);
    let text =
        "the available index 5 is 5 ahead of the used index 0, more than the queue's size of 4";
    assert_eq!(ahead.broken, [text]);
}

#[test]
fn a_packed_ring_shows_its_wishes_and_what_was_made_available() {
    let ring = Memory::new().look(true, true);
    assert!(!ring.is_touched && !ring.has_used && ring.indices.is_none());
    // In flags: available by bit 7, used by bits 7 and 15.
    let memory = Memory::new().descriptor(0, 0x800, 16, 3, 1 << 7);
    let memory = memory.descriptor(1, 0x1000, 16, 4, 1 << 7);
    let memory = memory.words(0x200, &[0x8003, 2]).words(0x300, &[0, 1]);
    let ring = memory.look(true, true);
    assert_eq!(
        (ring.interrupts, ring.kicks),
        (Wish::AtEntry(3, true), Wish::Never)
    );
    assert!(ring.is_touched && !ring.has_used);
    assert_eq!(
        ring.broken,
        ["descriptor 1: 16 bytes at 0x1000 are not in RAM"]
    );
    let used = memory
        .descriptor(0, 0x800, 16, 3, 1 << 7 | 1 << 15)
        .look(true, true);
    assert!(used.has_used);
    assert_ne!(used.digest, ring.digest);
}

#[test]
fn any_change_changes_the_digest() {
    let look = |memory: Memory| memory.look(false, false).digest;
    assert_eq!(look(Memory::new()), look(Memory::new()));
    assert_ne!(look(Memory::new()), look(Memory::new().words(0x204, &[2])));
    assert_ne!(look(Memory::new()), look(Memory::new().words(0x304, &[2])));
}
