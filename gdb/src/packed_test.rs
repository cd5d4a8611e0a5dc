use super::*;
use crate::target::TargetError;

const QUEUE: Virtqueue = Virtqueue {
    packed: true,
    size: 2,
    descriptors: PhysAddr(0),
    available: PhysAddr(0x20),
    used: PhysAddr(0x24),
};

fn ring(memory: &[u8]) -> Result<Ring> {
    Ring::read(&QUEUE, &|at, buf| {
        let end = at.0 as usize + buf.len();
        let bytes = memory.get(at.0 as usize..end);
        buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(at))?);
        Ok(())
    })
}

fn memory(descriptors: [(u64, u32, u16, u16); 2], driver: [u16; 2], device: [u16; 2]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (addr, len, id, flags) in descriptors {
        bytes.extend(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(id.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
    for word in [driver, device].concat() {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

#[test]
fn two_bits_tell_whose_turn_a_descriptor_was_and_in_which_round() {
    for (flags, turn, wrap) in [
        (0, Turn::Used, false),
        (AVAIL, Turn::Available, true),
        (USED, Turn::Available, false),
        (AVAIL | USED, Turn::Used, true),
    ] {
        let bytes = memory([(0x1234, 512, 7, flags | 2), (0, 0, 0, 0)], [0; 2], [0; 2]);
        let expected = Descriptor {
            addr: PhysAddr(0x1234),
            len: 512,
            id: 7,
            flags: 2,
            turn,
            wrap,
        };
        assert_eq!(ring(&bytes).unwrap().descriptors[0], expected);
    }
}

#[test]
fn each_side_says_when_it_wants_to_be_notified() {
    let read = |driver, device| {
        let ring = ring(&memory([(0, 0, 0, 0); 2], driver, device)).unwrap();
        (ring.driver, ring.device)
    };
    assert_eq!(read([9, 0], [9, 1]), (Wish::Always, Wish::Never));
    let at = |entry, wrap| Wish::At { entry, wrap };
    assert_eq!(read([1, 2], [0x8001, 2]), (at(1, false), at(1, true)));
    assert_eq!(read([0, 3], [0, 0]).0, Wish::Reserved(3));
}

#[test]
fn a_part_outside_ram_is_an_error() {
    for len in [0, 31, 35, 39] {
        assert!(ring(&vec![0; len]).is_err(), "{len}");
    }
    assert!(ring(&[0; 40]).is_ok());
}
