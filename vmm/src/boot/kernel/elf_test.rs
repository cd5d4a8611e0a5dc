use super::super::tests::{error, try_load};
use super::*;
use crate::memory;

const ADDR: u32 = 0x20_0000;
/// Where [`elf`] has its note and its contents.
const NOTE: usize = 0x200;
const CONTENTS: usize = 0x300;

/// A PVH note with this descriptor.
fn pvh(desc: &[u8]) -> Vec<u8> {
    let mut note = [4u32, desc.len() as u32, XEN_ELFNOTE_PHYS32_ENTRY.0]
        .map(u32::to_le_bytes)
        .concat();
    note.extend(b"Xen\0");
    note.extend(desc);
    note
}

/// A kernel of `contents`, with `memsz` bytes in RAM, and a segment of notes.
fn elf(contents: &[u8], memsz: u32, notes: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    let virt = 0xc000_0000 + ADDR;
    file.extend([virt, 52, 0, 0].map(u32::to_le_bytes).concat());
    file.extend([52u16, 32, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let len = contents.len() as u32;
    let load = [1, CONTENTS as u32, virt, ADDR, len, memsz, 7, 0x1000];
    let len = notes.len() as u32;
    let note = [4, NOTE as u32, 0, 0, len, len, 4, 4];
    file.extend(load.map(u32::to_le_bytes).concat());
    file.extend(note.map(u32::to_le_bytes).concat());
    file.resize(NOTE, 0);
    file.extend(notes);
    file.resize(CONTENTS, 0);
    file.extend(contents);
    file
}

#[test]
fn it_starts_at_its_pvh_entry() {
    let other = [4u32, 4, 1, u32::from_le_bytes(*b"GNU\0"), 7]
        .map(u32::to_le_bytes)
        .concat();
    for desc in [&[2, 0, 0x20, 0][..], &[2, 0, 0x20, 0, 0, 0, 0, 0]] {
        let notes = [&other[..], &pvh(desc)].concat();
        let kernel = try_load(&elf(b"code", 0x40, &notes)).unwrap();
        assert_eq!(kernel.entry, Entry::Pvh { rip: 0x20_0002 });
        assert_eq!(kernel.end, 0x20_0040);
        assert_eq!(kernel.initrd_max, 0xffff_ffff);
    }
}

#[test]
fn its_segments_are_at_their_physical_addresses_and_cleared_behind_the_file() {
    let bytes = elf(b"code", 0x2345, &pvh(&ADDR.to_le_bytes()));
    let memory = memory::allocate(memory::MIN_SIZE).unwrap();
    let start = GuestAddress(ADDR.into());
    // As an earlier guest has left it.
    memory.write_slice(&[0xaa; 0x3000], start).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    super::super::tests::load_file(&memory, file.path()).unwrap();
    let mut found = vec![0; 0x3000];
    memory.read_slice(&mut found, start).unwrap();
    assert_eq!(&found[..4], b"code");
    assert!(found[4..0x2345].iter().all(|byte| *byte == 0));
    assert!(found[0x2345..].iter().all(|byte| *byte == 0xaa));
}

#[test]
fn a_file_without_the_note_says_what_it_lacks() {
    for notes in [&b""[..], &[4, 0, 0, 0]] {
        let notes = [notes, &[0; 12]].concat();
        let error = error(&elf(b"code", 4, &notes)).to_string();
        assert!(error.contains("no PVH note"), "{error}");
        assert!(error.contains("CONFIG_PVH"), "{error}");
    }
}

#[test]
fn bad_files_are_told_apart() {
    let note = pvh(&ADDR.to_le_bytes());
    let good = elf(b"code", 4, &note);
    for len in [30, 60, CONTENTS + 3] {
        let error = error(&good[..len]);
        assert!(matches!(error, Error::Truncated { .. }), "{error}");
    }
    for (notes, problem) in [
        (pvh(&[0, 0, 0x20]), "too short"),
        (pvh(&[4, 0, 0x20, 0]), "PVH entry 0x200004 is in no segment"),
        (pvh(&[0xff, 0xff, 0x1f, 0]), "is in no segment"),
    ] {
        let error = error(&elf(b"code", 4, &notes)).to_string();
        assert!(error.contains(problem), "{error}");
    }
    let large = error(&elf(b"code", 1 << 30, &note));
    assert!(matches!(large, Error::TooLarge { .. }), "{large}");
    let huge = error(&elf(b"code", u32::MAX, &note));
    assert!(matches!(huge, Error::TooLarge { .. }), "{huge}");
    let empty = error(&elf(b"", 0, &note)).to_string();
    assert!(empty.contains("no loadable segment"), "{empty}");
    let mut low = good.clone();
    low[64..68].copy_from_slice(&0x7000u32.to_le_bytes());
    assert!(matches!(error(&low), Error::TooLow { addr: 0x7000, .. }));
    // The notes begin behind the file.
    let mut behind = good;
    behind[88..92].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(error(&behind), Error::Malformed { .. }));
}
