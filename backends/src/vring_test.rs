use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserVringAddrFlags};

use super::*;
use crate::testing::{eventfd, memfd};

const USER: u64 = 0x7f00_0000_0000;
const SIZE: u64 = 0x10000;

fn memory() -> MemoryTable<()> {
    let region = VhostUserMemoryRegion::new(0x4000_0000, SIZE, USER, 0);
    MemoryTable::map(&[region], vec![memfd(SIZE)]).unwrap()
}

fn addresses(descriptors: u64, available: u64, used: u64) -> RingAddresses {
    RingAddresses {
        descriptors: UserAddress(USER + descriptors),
        available: UserAddress(USER + available),
        used: UserAddress(USER + used),
        log: None,
    }
}

fn complete() -> RingSetup {
    let mut setup = RingSetup::default();
    setup.set_size(64, 256, false).unwrap();
    setup.set_addresses(addresses(0, 0x1000, 0x2000));
    setup.set_base(7, false).unwrap();
    setup.kick = Some(eventfd());
    setup.flow = Flow::Passed;
    setup
}

#[test]
fn a_complete_ring_is_ready_at_its_guest_addresses() {
    let (setup, memory) = (complete(), memory());
    let ready = setup.ready(&memory, false).unwrap().unwrap();
    assert_eq!(ready.size, 64);
    assert_eq!(ready.descriptors, GuestAddress(0x4000_0000));
    assert_eq!(ready.available, GuestAddress(0x4000_1000));
    assert_eq!(ready.used, GuestAddress(0x4000_2000));
    assert_eq!(ready.base, 7);
}

#[test]
fn whatever_is_missing_a_ring_is_not_ready() {
    let check = |what, setup: RingSetup, memory: &MemoryTable<()>| {
        assert_eq!(setup.missing(memory), Some(what));
        assert!(setup.ready(memory, false).unwrap().is_none());
    };
    let memory = memory();
    let mut setup = complete();
    setup.size = None;
    check(Missing::Size, setup, &memory);
    let mut setup = complete();
    setup.addresses = None;
    check(Missing::Addresses, setup, &memory);
    let mut setup = complete();
    setup.kick = None;
    check(Missing::Kick, setup, &memory);
    let mut setup = complete();
    setup.flow = Flow::Held;
    check(Missing::Enable, setup, &memory);
    check(Missing::Memory, complete(), &MemoryTable::default());
}

#[test]
fn every_byte_of_a_ring_must_be_shared() {
    let memory = memory();
    let sizes = [(0, 64 * 16), (1, 6 + 64 * 2), (2, 6 + 64 * 8)];
    for (part, len) in sizes {
        for (slack, fits) in [(0, true), (1, false)] {
            let mut at = [0, 0x1000, 0x2000];
            at[part] = SIZE - len + slack;
            let mut setup = complete();
            setup.set_addresses(addresses(at[0], at[1], at[2]));
            let ready = setup.ready(&memory, false);
            assert_eq!(ready.is_ok(), fits, "part {part}, slack {slack}");
        }
    }
}

#[test]
fn sizes_and_bases_are_checked() {
    let mut setup = complete();
    for wrong in [0, 3, 100, 512, 65536, u32::MAX] {
        assert!(setup.set_size(wrong, 256, false).is_err(), "{wrong}");
    }
    // What was refused changes nothing.
    assert_eq!(setup.ready(&memory(), false).unwrap().unwrap().size, 64);
    for right in [1, 2, 256] {
        setup.set_size(right, 256, false).unwrap();
    }
    setup.set_base(65535, false).unwrap();
    assert!(setup.set_base(65536, false).is_err());
    assert_eq!(setup.base, 65535);
}

#[test]
fn only_a_packed_ring_has_a_size_that_is_no_power_of_two() {
    let (mut setup, memory) = (complete(), memory());
    for wrong in [0, 257, 65536, u32::MAX] {
        assert!(setup.set_size(wrong, 256, true).is_err(), "{wrong}");
    }
    setup.set_size(100, 256, true).unwrap();
    assert_eq!(setup.ready(&memory, true).unwrap().unwrap().size, 100);
    // The frontend may agree on split rings after all.
    let split = setup.ready(&memory, false);
    assert!(matches!(split, Err(RingError::SplitSize(100))));
}

#[test]
fn misaligned_parts_are_refused() {
    let message =
        |d, u, a| VhostUserVringAddr::new(0, VhostUserVringAddrFlags::empty(), d, u, a, 0);
    assert!(RingAddresses::from_message(&message(0x1000, 0x2004, 0x3002)).is_ok());
    for (descriptors, used, available) in [(8, 0, 0), (0, 2, 0), (0, 0, 1)] {
        let wrong = message(descriptors, used, available);
        assert!(matches!(
            RingAddresses::from_message(&wrong),
            Err(RingError::Alignment { .. })
        ));
    }
}
