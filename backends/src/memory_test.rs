use vm_memory::{Bytes, GuestMemoryBackend};

use super::*;
use crate::testing::memfd;

const PAGE: u64 = 4096;

fn region(guest: u64, size: u64, user: u64, offset: u64) -> VhostUserMemoryRegion {
    VhostUserMemoryRegion::new(guest, size, user, offset)
}

fn map(regions: &[VhostUserMemoryRegion]) -> Result<MemoryTable<()>, MemoryError> {
    let files = regions.iter().map(|_| memfd(64 * PAGE)).collect();
    MemoryTable::map(regions, files)
}

#[test]
fn regions_in_any_order_make_one_memory() {
    let file = memfd(64 * PAGE);
    let files = vec![file.try_clone().unwrap(), file];
    // As frontends do it: memory above 4 GiB first, both parts in one file.
    let regions = [
        region(1 << 32, 2 * PAGE, 0x7000_0000, 4 * PAGE),
        region(0, 4 * PAGE, 0x6000_0000, 0),
    ];
    let table = MemoryTable::<()>::map(&regions, files).unwrap();
    let memory = table.guest_memory().unwrap();
    assert_eq!(memory.num_regions(), 2);
    memory.write_obj(7u32, GuestAddress(1 << 32)).unwrap();
    assert!(memory.write_obj(7u32, GuestAddress(4 * PAGE)).is_err());
}

#[test]
fn user_addresses_translate_within_one_region_only() {
    let table = map(&[
        region(0, 2 * PAGE, 0x10_0000, 0),
        region(0x20_0000, 2 * PAGE, 0x10_0000 + 2 * PAGE, 0),
    ])
    .unwrap();
    let at = |address, len| table.translate(UserAddress(address), len).ok();
    assert_eq!(at(0x10_0000, 2 * PAGE), Some(GuestAddress(0)));
    assert_eq!(at(0x10_0010, 16), Some(GuestAddress(0x10)));
    assert_eq!(at(0x10_0000 + 2 * PAGE, 1), Some(GuestAddress(0x20_0000)));
    // Adjacent for the frontend, not for the guest.
    assert_eq!(at(0x10_0000 + 2 * PAGE - 8, 16), None);
    assert_eq!(at(0xf_ffff, 1), None);
    assert_eq!(at(0x10_0000 + 4 * PAGE, 1), None);
    assert_eq!(at(0x10_0000 + 4 * PAGE - 1, u64::MAX), None);
    // A guest address is not a user address.
    assert_eq!(at(0, 16), None);
}

#[test]
fn impossible_regions_are_refused() {
    let refused = |r| map(&[r]).unwrap_err();
    assert!(matches!(
        refused(region(0, 0, 0, 0)),
        MemoryError::Empty { guest: 0 }
    ));
    for wrapping in [
        region(u64::MAX - PAGE, 2 * PAGE, 0, 0),
        region(0, 2 * PAGE, u64::MAX - PAGE, 0),
        region(0, 2 * PAGE, 0, u64::MAX - PAGE + 1),
        region(PAGE, u64::MAX, 0, 0),
    ] {
        assert!(matches!(refused(wrapping), MemoryError::Wraps { .. }));
    }
    // Longer than the file: reading there would be a SIGBUS.
    assert!(matches!(
        refused(region(0, 64 * PAGE, 0, PAGE)),
        MemoryError::PastEnd { .. }
    ));
    assert!(matches!(
        refused(region(0, 1 << 60, 0, 0)),
        MemoryError::PastEnd { .. }
    ));
    // mmap wants whole pages.
    assert!(matches!(
        refused(region(0, PAGE, 0, 100)),
        MemoryError::Map { .. }
    ));
}

#[test]
fn overlapping_regions_are_refused_in_both_spaces() {
    let guest = map(&[region(0, 2 * PAGE, 0, 0), region(PAGE, PAGE, 9 * PAGE, 0)]);
    assert!(matches!(
        guest.unwrap_err(),
        MemoryError::Overlap {
            space: "guest-physical",
            ..
        }
    ));
    let user = map(&[
        region(0, 2 * PAGE, 0, 0),
        region(8 * PAGE, 2 * PAGE, PAGE, 0),
    ]);
    assert!(matches!(
        user.unwrap_err(),
        MemoryError::Overlap { space: "user", .. }
    ));
    // Touching is not overlapping.
    map(&[region(0, PAGE, 0, 0), region(PAGE, PAGE, PAGE, 0)]).unwrap();
}

#[test]
fn regions_come_and_go_one_by_one() {
    let table = MemoryTable::<()>::default();
    assert!(table.is_empty());
    assert_eq!(table.guest_memory().unwrap().num_regions(), 0);
    let first = region(0, PAGE, 0x1000, 0);
    let second = region(8 * PAGE, PAGE, 0x9000, 0);
    let table = table.with_region(&second, memfd(PAGE)).unwrap();
    let table = table.with_region(&first, memfd(PAGE)).unwrap();
    assert_eq!(table.guest_memory().unwrap().num_regions(), 2);
    // Same place, another size: not that region.
    assert!(matches!(
        table.without_region(&region(0, 2 * PAGE, 0x1000, 0)),
        Err(MemoryError::NoSuchRegion { .. })
    ));
    let table = table.without_region(&first).unwrap();
    assert!(table.translate(UserAddress(0x1000), 1).is_err());
    assert!(table.translate(UserAddress(0x9000), 1).is_ok());
    assert!(table.without_region(&second).unwrap().is_empty());
}

#[test]
fn the_table_has_an_end() {
    let mut table = MemoryTable::<()>::default();
    let file = memfd(PAGE);
    for i in 0..MAX_SLOTS as u64 {
        let at = region(2 * i * PAGE, PAGE, 2 * i * PAGE, 0);
        table = table.with_region(&at, file.try_clone().unwrap()).unwrap();
    }
    let one_more = region(1 << 40, PAGE, 1 << 40, 0);
    assert!(matches!(
        table.with_region(&one_more, file),
        Err(MemoryError::TooMany(_))
    ));
}
