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

/// All bytes of the region, of which the second queue's part begins at the middle.
fn bytes(record: &Inflight) -> Vec<u8> {
    let mut bytes = vec![0; record.place.mmap_size as usize];
    let at = record.place.mmap_offset;
    record.file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn a_queue_that_is_taken_away_leaves_a_part_that_nobody_has_begun() {
    for format in [Format::Split, Format::Packed] {
        let record = record(format, VERSION, &[0, 3], 4096);
        let before = bytes(&record);
        let mut used = before.clone();
        let (_, second) = used.split_at_mut(before.len() / 2);
        // The features, and all behind the number of entries.
        second[..8].fill(0x77);
        second[12..16].fill(0x55);
        record.file.write_all_at(&used, 4096).unwrap();
        record.empty(0, format).unwrap();
        assert_eq!(bytes(&record), used, "another queue's");
        record.empty(1, format).unwrap();
        let after = bytes(&record);
        let (first, second) = after.split_at(after.len() / 2);
        assert!(first.iter().all(|byte| *byte == 0));
        assert_eq!(second[..8], [0x77; 8]);
        assert_eq!(second[8..12], [0, 0, 4, 0], "not used yet, four entries");
        match format {
            Format::Split => assert!(second[12..].iter().all(|byte| *byte == 0)),
            Format::Packed => {
                assert_eq!(
                    second[12..32],
                    [[0; 8].as_slice(), &[1, 1], &[0; 10]].concat()
                );
                let next = second[32..]
                    .chunks_exact(32)
                    .take(4)
                    .map(|entry| (entry[0], entry[2]));
                assert!(next.eq([(0, 1), (0, 2), (0, 3), (0, 4)]));
            }
        }
    }
}

#[test]
fn a_part_of_another_layout_is_left_as_it_is() {
    for version in [0, 2] {
        let record = record(Format::Split, version, &[1], 0);
        let before = bytes(&record);
        record.empty(1, Format::Split).unwrap();
        record.empty(2, Format::Split).unwrap();
        assert_eq!(bytes(&record), before);
    }
    let mut cut = record(Format::Split, VERSION, &[], 0);
    cut.place.mmap_offset = 1 << 20;
    assert!(cut.empty(1, Format::Split).is_err(), "beyond the file");
}
