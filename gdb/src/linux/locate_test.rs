use super::super::testing::{Encoding, Order, Paged, TABLES, kallsyms, vmlinux};
use super::*;
use crate::arch::Registers;

const LINKED: u64 = DEFAULT_BASE;
const SLIDE: u64 = 0x1920_0000;
const BANNER_TEXT: &[u8] = b"Linux version 6.1.0 (somebody) #1 SMP\n\0";
/// Offsets in the image.
const BANNER_AT: u64 = 0x800;
const TABLES_AT: u64 = 0x2000;

fn contents(banner: &[u8]) -> Vec<u8> {
    let mut contents = vec![0x90; 0x1000];
    contents[BANNER_AT as usize..][..banner.len()].copy_from_slice(banner);
    contents
}

fn file() -> (tempfile::TempDir, SymbolFile) {
    let symbols = [
        (LINKED, "_text"),
        (LINKED + BANNER_AT, "linux_banner"),
        (LINKED + TABLES_AT, "init_top_pgt"),
        (0x40, "current_task"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    std::fs::write(&path, vmlinux(LINKED, &contents(BANNER_TEXT), &symbols)).unwrap();
    let file = SymbolFile::open(&path).unwrap();
    (dir, file)
}

fn guest_at(base: u64) -> Paged {
    let mut guest = Paged::new();
    guest.place(base, 0x4000, &contents(BANNER_TEXT));
    guest
}

#[test]
fn the_slide_is_where_the_banner_is() {
    let (_dir, file) = file();
    for slide in [0, SLIDE] {
        let kernel = kernel(&guest_at(LINKED + slide), Some(&file)).unwrap();
        assert_eq!(kernel.base, LINKED + slide);
        assert_eq!(kernel.has_moved(), slide != 0);
        assert_eq!(kernel.symbols.get("_text"), Some(LINKED + slide));
        assert_eq!(kernel.symbols.get("current_task"), Some(0x40));
        assert_eq!(
            kernel.banner.as_deref(),
            Some("Linux version 6.1.0 (somebody) #1 SMP")
        );
        assert!(!kernel.from_guest);
    }
}

#[test]
fn early_in_the_boot_more_than_the_image_is_mapped() {
    let (_dir, file) = file();
    let mut guest = guest_at(LINKED);
    guest.map(TABLES, LINKED - 0x20_0000, 0);
    assert_eq!(kernel(&guest, Some(&file)).unwrap().base, LINKED);
}

#[test]
fn the_kernels_own_tables_are_used_whoever_runs() {
    let (_dir, file) = file();
    let base = LINKED + SLIDE;
    let mut guest = guest_at(base);
    // In the first task's tables there is more than in those of the vCPU.
    let tables = 0x8000;
    guest.map(TABLES, base + TABLES_AT, tables);
    guest.map(tables, base, 0x4000);
    guest.map(tables, 0xffff_ffff_c000_0000, 0x9000);
    // User mode's, one page above, have a part.
    guest.registers.cr3 = TABLES | USER_TABLES;
    let kernel = kernel(&guest, Some(&file)).unwrap();
    assert_eq!(kernel.space(&guest).root, tables);
    guest.write(0x9010, b"module\0");
    let memory = kernel.memory(&guest);
    assert_eq!(
        memory.string(0xffff_ffff_c000_0010, 64),
        Ok("module".into())
    );
}

#[test]
fn a_kernel_that_was_found_early_is_read_by_the_tables_it_has_later() {
    let (_dir, file) = file();
    let mut guest = guest_at(LINKED);
    let tables = 0x8000;
    guest.map(TABLES, LINKED + TABLES_AT, tables);
    let kernel = kernel(&guest, Some(&file)).unwrap();
    assert_eq!(kernel.space(&guest).root, TABLES, "the others are empty");
    guest.map(tables, LINKED, 0x4000);
    assert_eq!(kernel.space(&guest).root, tables);
    // It was found before EFER.NXE was set, and has data that is not executable.
    let data = LINKED + 0x20_0000;
    guest.map(tables, data, 0x9000 | 1 << 63);
    guest.write(0x9000, b"data\0");
    let memory = kernel.memory(&guest);
    assert_eq!(memory.string(data, 8), Ok("data".into()));
}

#[test]
fn a_kernel_without_a_file_is_found_by_its_own_symbols() {
    let base = LINKED + SLIDE;
    let mut symbols = vec![
        (base, 'T', "_text"),
        (base + BANNER_AT, 'D', "linux_banner"),
    ];
    symbols.extend((0..100).map(|n| (base + 0x900 + n, 'T', "do_work")));
    let tables = kallsyms(
        &symbols,
        base,
        Order::AddressesFirst,
        Encoding::AbsolutePercpu,
    );
    let mut image = [contents(BANNER_TEXT), tables].concat();
    image.resize(image.len() + 0x1000, 0);
    let mut guest = Paged::new();
    guest.place(base, 0x4000, &image);
    for file in [None, Some(())] {
        // One that is another kernel's does not keep it from being found.
        let (_dir, other) = other_file();
        let kernel = kernel(&guest, file.map(|()| &other)).unwrap();
        assert_eq!((kernel.base, kernel.has_moved()), (base, true));
        assert_eq!(kernel.symbols.get("do_work"), Some(base + 0x900));
        assert!(
            kernel
                .banner
                .as_deref()
                .unwrap()
                .starts_with("Linux version 6.1.0")
        );
        assert!(kernel.from_guest);
        assert!(kernel.is_still_there(&guest));
        guest.write(0x4000 + BANNER_AT, b"Linux version 7");
        assert!(!kernel.is_still_there(&guest));
        guest.write(0x4000 + BANNER_AT, BANNER_TEXT);
    }
}

#[test]
fn what_an_old_kernel_lacks_is_said() {
    let base = LINKED + SLIDE;
    let at = |release: &str| {
        let banner = format!("Linux version {release} (debian-kernel@lists.debian.org)\n\0");
        let mut symbols = vec![
            (base, 'T', "_text"),
            (base + BANNER_AT, 'D', "linux_banner"),
        ];
        symbols.extend((0..100).map(|n| (base + 0x900 + n, 'T', "do_work")));
        let tables = kallsyms(&symbols, base, Order::WideMarkers, Encoding::AbsolutePercpu);
        let mut image = [contents(banner.as_bytes()), tables].concat();
        image.resize(image.len() + 0x1000, 0);
        let mut guest = Paged::new();
        guest.place(base, 0x4000, &image);
        let kernel = kernel(&guest, None).unwrap();
        assert_eq!(kernel.symbols.get("do_work"), Some(base + 0x900));
        let error = kernel.btf(&kernel.memory(&guest)).err().unwrap();
        (kernel.version(), error)
    };
    let old = Version(4, 19);
    let error = LookError::TooOldForTypes(old);
    assert_eq!(
        error.to_string(),
        "this needs the kernel's type information, which Linux has from 5.2 on; 4.19 has its \
         symbols only"
    );
    assert_eq!(at("4.19.0-27-amd64"), (Some(old), error));
    assert_eq!(at("5.2-rc1+"), (Some(Version(5, 2)), LookError::NoTypes));
    assert_eq!(at("next"), (None, LookError::NoTypes));
}

fn other_file() -> (tempfile::TempDir, SymbolFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    let symbols = [(LINKED + BANNER_AT, "linux_banner")];
    let elf = vmlinux(LINKED, &contents(b"Linux version 5.0 (other)\0"), &symbols);
    std::fs::write(&path, elf).unwrap();
    let file = SymbolFile::open(&path).unwrap();
    (dir, file)
}

#[test]
fn what_is_no_kernel_is_said() {
    let (_dir, file) = file();
    let mut guest = Paged::new();
    assert_eq!(kernel(&guest, Some(&file)).err(), Some(NotFound::TooEarly));
    guest.place(LINKED, 0x4000, &[0x90; 0x3000]);
    assert_eq!(kernel(&guest, None).err(), Some(NotFound::NoSymbols));
    let mismatch = kernel(&guest, Some(&file)).err().unwrap();
    assert!(
        matches!(&mismatch, NotFound::Mismatch { expected, .. } if expected.starts_with(BANNER))
    );
    assert!(!mismatch.may_change());
    guest.registers = Registers::default();
    assert_eq!(kernel(&guest, None).err(), Some(NotFound::TooEarly));
}

#[test]
fn a_32_bit_kernel_is_told_from_none() {
    use crate::arch::cr4;
    let mut guest = Paged::new();
    for (cr4, efer, expected) in [
        (cr4::PAE, 0, NotFound::Bits32),
        (cr4::PSE, 0, NotFound::Bits32),
        (cr4::PAE, guest.registers.efer, NotFound::TooEarly),
    ] {
        guest.registers.cr4 = cr4;
        guest.registers.efer = efer;
        let found = kernel(&guest, None).err();
        assert_eq!(found, Some(expected), "{cr4:#x} {efer:#x}");
    }
    // A boot loader may yet start a 64-bit one.
    assert!(NotFound::Bits32.may_change());
    guest.registers.cr0 = 0;
    assert_eq!(kernel(&guest, None).err(), Some(NotFound::TooEarly));
}

#[test]
fn tables_that_lead_to_themselves_are_bounded() {
    let mut guest = Paged::new();
    // Every entry of every level is the table itself: all of the area is mapped.
    let entries: Vec<u8> = (0..512).flat_map(|_| (TABLES | 3).to_le_bytes()).collect();
    guest.write(TABLES, &entries);
    assert_eq!(kernel(&guest, None).err(), Some(NotFound::NoSymbols));
}
