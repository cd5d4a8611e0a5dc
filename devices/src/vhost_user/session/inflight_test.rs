use std::io::Write;

use super::*;

/// The record of two queues of four entries each, in a file behind `offset` bytes.
fn record(format: Format, version: u16, taken: &[usize], offset: u64) -> Inflight {
    let (header, entry): (usize, usize) = match format {
        Format::Split => (16, 16),
        Format::Packed => (32, 32),
    };
    let part = (header + 4 * entry).next_multiple_of(64);
    let mut bytes = vec![0; offset as usize + 2 * part];
    let second = &mut bytes[offset as usize + part..];
    second[8..10].copy_from_slice(&version.to_ne_bytes());
    second[10..12].copy_from_slice(&4u16.to_ne_bytes());
    for index in taken {
        second[header + index * entry] = 1;
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let place = VhostUserInflight::new(2 * part as u64, offset, 2, 4);
    Inflight::new(&place, Some(file), 2, 4).unwrap()
}

#[test]
fn requests_that_were_taken_are_counted() {
    for format in [Format::Split, Format::Packed] {
        for offset in [0, 4096] {
            let count = |taken: &[usize]| record(format, VERSION, taken, offset).taken(1, format);
            assert_eq!(count(&[]), Some(0));
            assert_eq!(count(&[0, 3]), Some(2), "{format:?}");
        }
    }
}

#[test]
fn what_is_not_there_or_not_known_is_not_counted() {
    let split = Format::Split;
    assert_eq!(record(split, 0, &[], 0).taken(1, split), None, "unused");
    assert_eq!(
        record(split, 2, &[0], 0).taken(1, split),
        None,
        "another layout"
    );
    assert_eq!(
        record(split, VERSION, &[], 0).taken(2, split),
        None,
        "no such queue"
    );
    let mut cut = record(split, VERSION, &[], 0);
    cut.place.mmap_offset = 1 << 20;
    assert_eq!(cut.taken(1, split), None, "beyond the file");
    cut.place.mmap_offset = u64::MAX;
    assert_eq!(cut.taken(1, split), None);
}
