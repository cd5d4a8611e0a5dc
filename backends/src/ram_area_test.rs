use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::VhostUserLog;

use super::*;
use crate::page_log::{Log, attach};
use crate::testing::memfd;

/// Two regions of four pages, of which the first begins at page 2 and the second at page 32.
fn memory() -> Arc<GuestRam> {
    let regions = [
        (GuestAddress(0x2000), 0x4000),
        (GuestAddress(0x20000), 0x4000),
    ];
    Arc::new(GuestRam::from_ranges(&regions).unwrap())
}

fn spans(start: u64) -> Areas<Span> {
    let span = |start| Span {
        start: GuestAddress(start),
        len: 64,
    };
    Areas {
        descriptors: span(start),
        driver: span(start + 64),
        device: span(start + 0x1000),
    }
}

#[test]
fn areas_are_looked_up_again_where_ring_or_memory_is_another() {
    let (memory, other) = (memory(), memory());
    let mut areas = FoundAreas::default();
    let first = areas.find(&memory, spans(0x2000)).unwrap();
    let same = areas.find(&memory, spans(0x2000)).unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let moved = areas.find(&memory, spans(0x20000)).unwrap();
    assert!(!Arc::ptr_eq(&first, &moved));
    let replaced = areas.find(&other, spans(0x20000)).unwrap();
    assert!(!Arc::ptr_eq(&moved, &replaced));
    replaced.driver.store(0, 0x1234, Ordering::Release).unwrap();
    let at = GuestAddress(0x20040);
    assert_eq!(other.read_obj::<u16>(at).unwrap(), 0x1234);
    assert_eq!(memory.read_obj::<u16>(at).unwrap(), 0);
}

#[test]
fn an_area_keeps_its_memory() {
    let memory = memory();
    let weak = Arc::downgrade(&memory);
    let mut areas = FoundAreas::default();
    let found = areas.find(&memory, spans(0x2000)).unwrap();
    drop(memory);
    areas.forget();
    found.device.write(8, 7u64).unwrap();
    assert_eq!(found.device.read::<u64>(8).unwrap(), 7);
    drop(found);
    assert!(weak.upgrade().is_none());
}

#[test]
fn an_area_is_in_one_piece_of_memory() {
    for start in [0x1000, 0x5fe0, 0x6000, 0x5000, u64::MAX - 0x1040] {
        let error = FoundAreas::default().find(&memory(), spans(start));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("are not in one piece of guest memory"),
            "{error}"
        );
    }
}

#[test]
fn nothing_outside_an_area_is_accessed() {
    let areas = Areas::find(&memory(), spans(0x2000)).unwrap();
    let driver = &areas.driver;
    assert!(driver.write(56, 1u64).is_ok());
    assert!(driver.write(57, 1u64).is_err());
    assert!(driver.store(64, 1, Ordering::Relaxed).is_err());
    assert!(driver.load(usize::MAX, Ordering::Relaxed).is_err());
}

#[test]
fn writes_are_logged_at_their_pages() {
    let memory = memory();
    let areas = Areas::find(&memory, spans(0x20000)).unwrap();
    let file = memfd(8);
    let log = Log::map(&VhostUserLog::new(8, 0), file.try_clone().unwrap()).unwrap();
    attach(&memory, Some(&Arc::new(log)), &[]).unwrap();
    let pages = || {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        u64::from_le_bytes(bytes)
    };
    let _: u64 = areas.descriptors.read(0).unwrap();
    assert_eq!(pages(), 0);
    areas.device.store(2, 1, Ordering::Release).unwrap();
    assert_eq!(pages(), 1 << 33);
    areas.driver.write(0, 1u32).unwrap();
    assert_eq!(pages(), 1 << 33 | 1 << 32);
}
