use super::*;

fn back<T: Payload>(payload: &T) -> T {
    let bytes = payload.to_bytes();
    assert!(bytes.len() <= T::MAX_SIZE);
    T::decode(&bytes).unwrap()
}

#[test]
fn plain_values_are_their_bytes_and_may_be_followed_by_others() {
    assert_eq!(7u64.to_bytes(), 7u64.to_ne_bytes());
    assert_eq!(u64::decode(&[1; 9]), Ok(u64::from_ne_bytes([1; 8])));
    let short = PayloadError::Short { got: 7, want: 8 };
    assert_eq!(u64::decode(&[1; 7]), Err(short));
    let state = back(&VhostUserVringState::new(3, 99));
    assert_eq!(({ state.index }, { state.num }), (3, 99));
    assert_eq!(<()>::decode(&[1]), Ok(()));
}

#[test]
fn a_memory_table_has_the_regions_that_it_counts() {
    let region = |at: u64| VhostUserMemoryRegion::new(at, 0x1000, at + 1, 2);
    let table = MemoryTable((0..3).map(region).collect());
    let mut bytes = table.to_bytes();
    assert_eq!(bytes.len(), 8 + 3 * 32);
    // As user-mode-linux sends it.
    bytes.resize(8 + 8 * 32, 0);
    let found = MemoryTable::decode(&bytes).unwrap().0;
    let starts: Vec<u64> = found.iter().map(|region| region.guest_phys_addr).collect();
    assert_eq!(starts, [0, 1, 2]);
    let short = MemoryTable::decode(&bytes[..8 + 3 * 32 - 1]).err();
    assert_eq!(
        short,
        Some(PayloadError::Short {
            got: 103,
            want: 104
        })
    );
    assert!(MemoryTable::decode(&[0xff; 100]).is_err());
    assert!(MemoryTable::decode(&[0; 7]).is_err());
}

#[test]
fn a_ring_s_file_is_there_or_not() {
    let with = VringFile {
        index: 255,
        has_file: true,
    };
    let without = VringFile {
        index: 2,
        has_file: false,
    };
    assert_eq!(with.to_bytes(), 0xffu64.to_ne_bytes());
    assert_eq!(without.to_bytes(), 0x102u64.to_ne_bytes());
    assert_eq!((back(&with), back(&without)), (with, without));
}

#[test]
fn the_place_of_a_record_may_be_padded() {
    let place = VhostUserInflight::new(1 << 40, 4096, 3, 256);
    let bytes = place.to_bytes();
    assert_eq!((bytes.len(), &bytes[20..]), (24, &[0; 4][..]));
    for len in [20, 24] {
        let found = VhostUserInflight::decode(&bytes[..len]).unwrap();
        assert_eq!((found.mmap_size, found.mmap_offset), (1 << 40, 4096));
        assert_eq!((found.num_queues, found.queue_size), (3, 256));
    }
    let short = VhostUserInflight::decode(&bytes[..19]).err();
    assert_eq!(short, Some(PayloadError::Short { got: 19, want: 20 }));
}

#[test]
fn configuration_replies_of_every_kind_of_backend() {
    let header = |size: u32| [[0; 4], size.to_ne_bytes(), [0; 4]].concat();
    let decode = |bytes: &[u8]| ConfigReply::decode(bytes).ok().map(|reply| reply.0);
    let full = [header(4), vec![1, 2, 3, 4]].concat();
    assert_eq!(decode(&full), Some(vec![1, 2, 3, 4]));
    assert_eq!(decode(&[]), Some(vec![]), "libvhost-user refuses so");
    assert_eq!(decode(&header(0)), Some(vec![]), "rust-vmm refuses so");
    let longer = [header(2), vec![1, 2, 0, 0]].concat();
    assert_eq!(decode(&longer), Some(vec![1, 2]));
    let shorter = [header(8), vec![1, 2]].concat();
    assert_eq!(decode(&shorter), None);
    assert_eq!(decode(&[0; 11]), None);
    assert_eq!(decode(&header(u32::MAX)), None);
    for reply in [vec![], vec![5; 4096]] {
        assert_eq!(back(&ConfigReply(reply.clone())).0, reply);
    }
}

#[test]
fn sizes_of_shared_memory_are_all_there_or_as_many_as_come() {
    let sizes = SharedMemorySizes(vec![0, 0x1000, 0, 0x2000]);
    let bytes = sizes.to_bytes();
    assert_eq!(bytes.len(), 8 + 256 * 8);
    assert_eq!(bytes[..4], 2u32.to_ne_bytes());
    let found = back(&sizes).0;
    assert_eq!((found.len(), &found[..4]), (256, &sizes.0[..]));
    let some = SharedMemorySizes::decode(&bytes[..8 + 16]).unwrap();
    assert_eq!(some.0, [0, 0x1000]);
    for odd in [7, 9, 8 + 17] {
        assert!(SharedMemorySizes::decode(&bytes[..odd]).is_err(), "{odd}");
    }
}
