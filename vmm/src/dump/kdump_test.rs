use std::io::Read;

use flate2::read::ZlibDecoder;

use super::*;

const NOTES: &[u8] = b"notes and VMCOREINFO's text";

fn about() -> About<'static> {
    About {
        cpus: 3,
        notes: NOTES,
        vmcoreinfo: 10..20,
        release: b"6.1.0",
        phys_base: 0x400_0000,
    }
}

fn word(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
}

fn long(file: &[u8], at: usize) -> usize {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize
}

/// The page that a descriptor at `at` is of.
fn page(file: &[u8], at: usize) -> Vec<u8> {
    let (offset, len) = (long(file, at), word(file, at + 8) as usize);
    let contents = &file[offset..offset + len];
    let mut page = Vec::new();
    match word(file, at + 12) {
        0 => page.extend_from_slice(contents),
        flags => {
            assert_eq!(flags, ZLIB);
            assert!(len < PAGE);
            ZlibDecoder::new(contents).read_to_end(&mut page).unwrap();
        }
    }
    page
}

/// What cannot be compressed.
fn noise() -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..PAGE).map(next).collect()
}

fn written(regions: &[Range<u64>], pages: &[(u64, &[u8])]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    let file = File::create(&path).unwrap();
    let mut writer = Writer::begin(&file, regions, &about()).unwrap();
    for (addr, bytes) in pages {
        writer.put(*addr, bytes).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn pages_are_found_by_their_numbers() {
    let regions = [0..0x8000, 1 << 32..(1 << 32) + 0x2000];
    let noise = noise();
    let text = [b"text".as_slice(), &[0; PAGE - 4]].concat();
    let two = [noise.as_slice(), &text].concat();
    let file = written(&regions, &[(0x2000, &two), ((1 << 32) + 0x1000, &text)]);

    assert!(file.starts_with(b"KDUMP   \x06\0\0\0"));
    let names: [&[u8]; 4] = [b"Linux\0", b"6.1.0\0", b"unknown\0", b"x86_64\0"];
    for (place, name) in [0, 2, 3, 4].into_iter().zip(names) {
        assert!(file[12 + place * 65..].starts_with(name));
    }
    let [status, block, sub, bitmaps] = [424, 428, 432, 436].map(|at| word(&file, at) as usize);
    assert_eq!((status, block, sub), (1, PAGE, 1));
    assert_eq!((word(&file, 444), word(&file, 460)), (10, 3));

    let header = &file[PAGE..];
    assert_eq!(long(header, 0), 0x400_0000);
    let [text_at, text_len, notes, notes_len] = [32, 40, 48, 56].map(|at| long(header, at));
    assert_eq!(&file[notes..notes + notes_len], NOTES);
    assert_eq!(&file[text_at..text_at + text_len], b"VMCOREINFO");
    let end = (1 << 20) + 2;
    assert_eq!(long(header, 96), end);

    let bitmap = bitmaps / 2 * PAGE;
    assert!(bitmap >= end / 8);
    let first = (1 + sub) * PAGE;
    for bits in [&file[first..][..bitmap], &file[first + bitmap..][..bitmap]] {
        assert_eq!((bits[0], bits[1], bits[1 << 17]), (0xff, 0, 3));
        let set: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(set, 10);
    }
    let descriptors = first + 2 * bitmap;
    let zeros = vec![0; PAGE];
    for number in 0..10 {
        let found = page(&file, descriptors + number * DESCRIPTOR);
        let expected = match number {
            2 => &noise,
            3 | 9 => &text,
            _ => &zeros,
        };
        assert!(found == *expected, "page {number}");
    }
}

#[test]
fn a_machine_without_anything_in_memory_has_a_file_too() {
    let ram = 0..0x1000 * 1000;
    let file = written(std::slice::from_ref(&ram), &[]);
    let descriptors = 4 * PAGE;
    assert_eq!(page(&file, descriptors + 999 * DESCRIPTOR).len(), PAGE);
}

#[test]
fn more_runs_than_are_under_way_at_once_stay_in_order() {
    let ram = 0..0x2000 * 200;
    let pages: Vec<_> = (0..200u8).map(|number| [number; PAGE]).collect();
    let put = (0..)
        .step_by(0x2000)
        .zip(pages.iter().map(<[u8; PAGE]>::as_slice));
    let file = written(std::slice::from_ref(&ram), &put.collect::<Vec<_>>());
    let descriptors = 4 * PAGE;
    for (number, expected) in pages.iter().enumerate() {
        let found = page(&file, descriptors + 2 * number * DESCRIPTOR);
        assert!(found == expected, "page {number}");
        let gap = page(&file, descriptors + (2 * number + 1) * DESCRIPTOR);
        assert!(gap == [0; PAGE], "behind page {number}");
    }
}
