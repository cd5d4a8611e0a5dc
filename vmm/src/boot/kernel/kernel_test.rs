//! Bad kernels give one clear error each.

use std::io::Write;

use vm_memory::{Bytes, GuestAddress};

use super::bzimage::SETUP_SECTS_OFFSET;
use super::elf::{ELFCLASS32, ELFCLASS64, EM_X86_64};
use super::parts::PT_LOAD;
use super::*;
use crate::boot::entry::Entry;
use crate::memory;

/// An ELF file with one segment of `filesz` bytes (`memsz` in RAM) at `addr`.
pub fn elf(addr: u64, filesz: u64, memsz: u64) -> Vec<u8> {
    let mut file = vec![0; 0x1000];
    file[..4].copy_from_slice(b"\x7fELF");
    file[4] = ELFCLASS64;
    file[5] = 1;
    file[6] = 1;
    file[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
    file[24..32].copy_from_slice(&(addr + 8).to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&1u16.to_le_bytes());
    let segment = &mut file[64..120];
    segment[..4].copy_from_slice(&PT_LOAD.to_le_bytes());
    segment[8..16].copy_from_slice(&0x1000u64.to_le_bytes());
    segment[24..32].copy_from_slice(&addr.to_le_bytes());
    segment[32..40].copy_from_slice(&filesz.to_le_bytes());
    segment[40..48].copy_from_slice(&memsz.to_le_bytes());
    file.extend(std::iter::repeat_n(0x90, filesz as usize));
    file
}

pub(super) fn try_load(bytes: &[u8]) -> Result<Kernel, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    load_file(&memory::allocate(memory::MIN_SIZE).unwrap(), file.path())
}

pub(super) fn load_file(memory: &GuestMemory, path: &Path) -> Result<Kernel, Error> {
    load(memory, &read(path, memory::MIN_SIZE)?)
}

pub(super) fn error(bytes: &[u8]) -> Error {
    try_load(bytes).map(|_| ()).unwrap_err()
}

#[test]
fn a_plain_elf_starts_by_the_64_bit_protocol() {
    let kernel = try_load(&elf(0x20_0000, 16, 64)).unwrap();
    assert_eq!(kernel.entry, Entry::Linux64 { rip: 0x20_0008 });
    assert_eq!(kernel.end, 0x20_0040);
}

#[test]
fn what_the_file_does_not_fill_is_cleared_also_where_ram_is_not_empty() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&elf(0x20_0000, 16, 0x3000)).unwrap();
    let memory = memory::allocate(memory::MIN_SIZE).unwrap();
    let dirty = [0xee; 0x4000];
    memory.write_slice(&dirty, GuestAddress(0x20_0000)).unwrap();
    load_file(&memory, file.path()).unwrap();
    let mut bytes = [0; 0x4000];
    memory
        .read_slice(&mut bytes, GuestAddress(0x20_0000))
        .unwrap();
    assert_eq!(bytes[..16], [0x90; 16]);
    assert!(bytes[16..0x3000].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[0x3000..], dirty[0x3000..]);
}

#[test]
fn a_segment_that_is_larger_in_the_file_than_in_ram_is_loaded_whole() {
    for (filesz, memsz) in [(0x1000, 0x10), (0x5000, 0x1000)] {
        let kernel = try_load(&elf(0x20_0000, filesz, memsz)).unwrap();
        assert_eq!(kernel.end, 0x20_0000 + filesz);
    }
}

#[test]
fn a_missing_kernel_is_named() {
    let memory = memory::allocate(memory::MIN_SIZE).unwrap();
    let error = load_file(&memory, Path::new("/nonexistent/vmlinux"))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot open kernel /nonexistent/vmlinux");
}

#[test]
fn text_and_empty_files_are_not_kernels() {
    assert!(matches!(error(b"#!/bin/sh\n"), Error::Unknown { .. }));
    assert!(matches!(error(b""), Error::Unknown { .. }));
}

#[test]
fn a_truncated_elf_says_what_is_missing() {
    let whole = elf(0x20_0000, 0x100, 0x100);
    let Error::Truncated { needed, found, .. } = error(&whole[..0x1080]) else {
        panic!()
    };
    assert_eq!((needed, found), (0x1100, 0x1080));
    assert!(matches!(error(&whole[..80]), Error::Truncated { .. }));
    assert!(matches!(error(&whole[..20]), Error::Truncated { .. }));
}

#[test]
fn a_kernel_for_another_machine_is_refused_by_name() {
    let mut arm = elf(0x20_0000, 16, 16);
    arm[18..20].copy_from_slice(&183u16.to_le_bytes());
    assert!(error(&arm).to_string().contains("AArch64 (64-bit)"));
    let mut x32 = elf(0x20_0000, 16, 16);
    x32[4] = ELFCLASS32;
    assert!(error(&x32).to_string().contains("x86-64 (32-bit)"));
}

#[test]
fn a_kernel_that_does_not_fit_says_how_much_it_needs() {
    let Error::TooLarge { needed, ram, .. } = error(&elf(0x20_0000, 16, 1 << 30)) else {
        panic!()
    };
    assert_eq!((needed, ram), (0x20_0000 + (1 << 30), memory::MIN_SIZE));
    assert!(matches!(
        error(&elf(u64::MAX - 64, 16, 64)),
        Error::TooLarge { .. }
    ));
}

#[test]
fn a_kernel_over_the_boot_data_is_refused() {
    assert!(matches!(
        error(&elf(0x7000, 16, 16)),
        Error::TooLow { addr: 0x7000, .. }
    ));
}

/// The first sectors of a bzImage with a `syssize` of `units` * 16 bytes.
fn bzimage(version: u16, xloadflags: u16, init_size: u32, units: u32) -> Vec<u8> {
    let mut file = vec![0; 1024 + units as usize * 16];
    file[SETUP_SECTS_OFFSET] = 1;
    file[0x1f4..0x1f8].copy_from_slice(&units.to_le_bytes());
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    file[0x211] = 1;
    file[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    file[0x236..0x238].copy_from_slice(&xloadflags.to_le_bytes());
    file[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    file[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
    file
}

#[test]
fn a_bzimage_starts_behind_its_32_bit_entry() {
    let kernel = try_load(&bzimage(0x20f, 1, 0x10_0000, 64)).unwrap();
    assert_eq!(kernel.entry, Entry::Linux64 { rip: 0x10_0200 });
    assert_eq!(kernel.end, 0x110_0000);
    assert_eq!(kernel.initrd_max, 0x7fff_ffff);
}

#[test]
fn a_bzimage_without_a_64_bit_entry_starts_at_its_32_bit_one() {
    // In protocol 2.11 the flags are something else.
    for (version, xloadflags) in [(0x20f, 0), (0x20f, 0x7e), (0x20b, 1), (0x20a, 1)] {
        let kernel = try_load(&bzimage(version, xloadflags, 0x10_0000, 64)).unwrap();
        assert_eq!(kernel.entry, Entry::Linux32 { rip: 0x10_0000 });
        assert_eq!(kernel.end, 0x110_0000);
    }
}

#[test]
fn bad_bzimages_are_told_apart() {
    let good = bzimage(0x20f, 1, 0x10_0000, 64);
    assert!(matches!(error(&good[..1500]), Error::Truncated { .. }));
    assert!(matches!(error(&good[..0x220]), Error::Truncated { .. }));
    let old = error(&bzimage(0x209, 0, 0, 64));
    assert!(matches!(old, Error::TooOld { .. }), "{old}");
    assert!(old.to_string().contains("has boot protocol 2.9,"), "{old}");
    assert!(matches!(
        error(&bzimage(0x20f, 1, 1 << 30, 64)),
        Error::TooLarge { .. }
    ));
}
