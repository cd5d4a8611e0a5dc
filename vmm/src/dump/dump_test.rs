use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, elf};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::memory;

const RAM: u64 = 64 << 20;

fn snapshot(memory: &GuestMemory) -> Snapshot<'_> {
    Snapshot {
        memory,
        registers: vec![Registers::default(); 2],
        hide: &|_, _| {},
    }
}

/// RAM of which most has never been touched, and a page was touched and is zero.
fn ram() -> std::sync::Arc<GuestMemory> {
    let memory = memory::allocate(RAM).unwrap();
    memory.write_slice(b"first", GuestAddress(0x1ffe)).unwrap();
    memory
        .write_slice(&[0; 4096], GuestAddress(0x10_0000))
        .unwrap();
    memory.write_slice(b"last", GuestAddress(RAM - 4)).unwrap();
    memory
}

/// Virtual address, physical address and contents of each segment.
fn loads(file: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let header = elf::FileHeader64::<LittleEndian>::parse(file).unwrap();
    let headers = header.program_headers(LittleEndian, file).unwrap();
    let loads = headers
        .iter()
        .filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD);
    loads
        .map(|header| {
            let data = header.data(LittleEndian, file).unwrap();
            (
                header.p_vaddr(LittleEndian),
                header.p_paddr(LittleEndian),
                data,
            )
        })
        .collect()
}

#[test]
fn a_file_has_all_ram_and_disk_space_for_what_is_not_zero() {
    let memory = ram();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    let summary = snapshot(&memory).save(&path, DumpFormat::Elf).unwrap();
    assert_eq!((summary.ram, summary.written), (RAM, 3 * 4096));
    assert!(!summary.has_kernel);
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let file = fs::read(&path).unwrap();
    let loads = loads(&file);
    let [(0, 0, data)] = loads[..] else {
        panic!("{} segments", loads.len());
    };
    assert_eq!(data.len() as u64, RAM);
    assert_eq!(&data[0x1ffe..0x2003], b"first");
    assert_eq!(&data[data.len() - 4..], b"last");
    // A second dump is not longer for what the first one had, and has no more readers.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    snapshot(&memory).save(&path, DumpFormat::Elf).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len() as usize, file.len());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_dump_gives_no_pages_to_memory_that_had_none() {
    let memory = ram();
    let file = memory.iter().next().unwrap().file_offset().unwrap();
    let pages = || file.file().metadata().unwrap().blocks();
    let before = pages();
    let dir = tempfile::tempdir().unwrap();
    snapshot(&memory)
        .save(&dir.path().join("vmcore"), DumpFormat::Elf)
        .unwrap();
    assert_eq!(pages(), before);
}

#[test]
fn a_pipe_gets_the_same_bytes_as_a_file() {
    let memory = ram();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    snapshot(&memory).save(&path, DumpFormat::Elf).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let read = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let writer = File::from(std::os::fd::OwnedFd::from(writer));
    let output = Output::to(writer).unwrap();
    snapshot(&memory).write(output, DumpFormat::Elf).unwrap();
    assert!(read.join().unwrap() == fs::read(&path).unwrap());
}

#[test]
fn a_compressed_file_has_no_pages_of_zeros_and_cannot_be_a_pipe() {
    let memory = ram();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    let summary = snapshot(&memory).save(&path, DumpFormat::Kdump).unwrap();
    assert_eq!((summary.ram, summary.written), (RAM, 3 * 4096));
    let file = fs::read(&path).unwrap();
    assert!(file.starts_with(b"KDUMP   "));
    // A descriptor of 24 bytes for each page, and little beside that.
    let descriptors = RAM as usize / 4096 * 24;
    assert!((descriptors..descriptors + 64 * 1024).contains(&file.len()));
    let (_reader, writer) = std::io::pipe().unwrap();
    let output = Output::to(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
    let error = snapshot(&memory)
        .write(output, DumpFormat::Kdump)
        .unwrap_err();
    assert!(error.to_string().contains("to a pipe"), "{error}");
}

#[test]
fn a_part_of_ram_can_be_dumped() {
    let memory = ram();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    let output = Output::create(&path).unwrap();
    snapshot(&memory)
        .write_part(output, 0x1000..0x2000)
        .unwrap();
    let file = fs::read(&path).unwrap();
    let loads = loads(&file);
    assert_eq!(
        (loads.len(), loads[0].1, loads[0].2.len()),
        (1, 0x1000, 4096)
    );
    assert_eq!(&loads[0].2[0xffe..], b"fi");
}

#[test]
fn planted_bytes_are_not_in_it() {
    let memory = ram();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    let hide = |at: u64, bytes: &mut [u8]| {
        if (at..at + bytes.len() as u64).contains(&0x1ffe) {
            bytes[(0x1ffe - at) as usize] = b'F';
        }
    };
    snapshot(&memory)
        .hiding(&hide)
        .save(&path, DumpFormat::Elf)
        .unwrap();
    let file = fs::read(&path).unwrap();
    assert_eq!(&loads(&file)[0].2[0x1ffe..0x2003], b"First");
}

#[test]
fn a_kernel_is_mapped_where_it_runs() {
    let regions = [0..0x400_0000, 1 << 32..(1 << 32) + 0x1000];
    let kernel = Kernel {
        vmcoreinfo: Vec::new(),
        image: kernel::Image {
            virt: 0xffff_ffff_8100_0000,
            phys: 0x300_0000,
            len: 0x200_0000,
        },
        direct_map: Some(0xffff_8880_4000_0000),
    };
    let stack = StackPage {
        virt: 0xffff_c900_0000_3000,
        phys: 0x5000,
    };
    let nowhere = StackPage {
        virt: 0xffff_c900_0000_4000,
        phys: 0x500_0000,
    };
    // That of the first task is a part of the image.
    let first = StackPage {
        virt: 0xffff_ffff_8100_2000,
        phys: 0x300_2000,
    };
    let segments = segments(&regions, Some(&kernel), &[stack, nowhere, first]);
    let places: Vec<_> = segments
        .iter()
        .map(|segment| (segment.virt, segment.phys, segment.len, segment.offset))
        .collect();
    let expected = [
        (0xffff_c900_0000_3000, 0x5000, 0x1000, 0x5000),
        (0xffff_ffff_8100_0000, 0x300_0000, 0x100_0000, 0x300_0000),
        (0xffff_8880_4000_0000, 0, 0x400_0000, 0),
        (0xffff_8881_4000_0000, 1 << 32, 0x1000, 0x400_0000),
    ];
    assert_eq!(places, expected);
}

#[test]
fn what_is_no_file_is_refused_and_left_alone() {
    let memory = ram();
    let dir = tempfile::tempdir().unwrap();
    for path in [std::path::Path::new("/dev/null"), dir.path()] {
        let error = snapshot(&memory).save(path, DumpFormat::Elf).unwrap_err();
        assert!(matches!(error, Error::Open { .. }), "{error}");
        assert!(path.exists());
    }
}
