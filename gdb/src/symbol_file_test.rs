use super::*;
use crate::linux::testing::{CONTENTS, PERCPU_SECTION as SECTION, PERCPU_SEGMENT, vmlinux};

const BASE: u64 = 0xffff_ffff_8100_0000;

fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn headers_contents_and_symbols_are_read() {
    let symbols = [(BASE, "_text"), (0x40, "current_task")];
    let (_dir, path) = file(&vmlinux(BASE, b"contents", &symbols));
    let file = SymbolFile::open(&path).unwrap();
    assert!(file.is_64_bit());
    assert_eq!(file.base(), BASE);
    assert_eq!(file.len(), std::fs::metadata(&path).unwrap().len());
    let mut found = Vec::new();
    let each = |symbol: FileSymbol<'_>| {
        found.push((
            symbol.addr,
            String::from_utf8_lossy(symbol.name).into_owned(),
        ));
    };
    file.symbols(each).unwrap();
    assert_eq!(found, symbols.map(|(addr, name)| (addr, name.to_owned())));
    assert_eq!(file.read_linked(BASE + 3, 100).unwrap(), b"tents");
    assert_eq!(file.read_linked(BASE + 8, 1).unwrap(), b"");
}

/// A 32-bit program of one segment at 0xc0100000, with one symbol.
fn program_32() -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let halves =
        |halves: &[u16]| -> Vec<u8> { halves.iter().flat_map(|h| h.to_le_bytes()).collect() };
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(halves(&[2, 3]));
    elf.extend(words(&[1, 0xc010_0000, 52, 84, 0]));
    elf.extend(halves(&[52, 32, 1, 40, 3, 2]));
    elf.extend(words(&[1, 300, 0xc010_0000, 0x10_0000, 8, 8, 5, 4]));
    elf.resize(84 + 40, 0);
    // SHT_SYMTAB of two symbols, the first empty; SHT_STRTAB.
    elf.extend(words(&[0, 2, 0, 0, 204, 32, 2, 0, 4, 16]));
    elf.extend(words(&[0, 3, 0, 0, 240, 7, 0, 0, 1, 0]));
    elf.resize(204 + 16, 0);
    elf.extend(words(&[1, 0xc010_0004, 4, 0x1_0012]));
    elf.resize(240, 0);
    elf.extend(b"\0start\0");
    elf.resize(300, 0);
    elf.extend(b"contents");
    elf
}

#[test]
fn a_32_bit_program_is_read_as_one() {
    let (_dir, path) = file(&program_32());
    let file = SymbolFile::open(&path).unwrap();
    assert!(!file.is_64_bit());
    assert_eq!(file.base(), 0xc010_0000);
    let mut found = Vec::new();
    file.symbols(|symbol| found.push((symbol.addr, symbol.name.to_vec())))
        .unwrap();
    assert_eq!(found, [(0xc010_0004, b"start".to_vec())]);
    assert_eq!(file.read_linked(0xc010_0003, 100).unwrap(), b"tents");
    assert_eq!(file.read_linked(0xc010_0008, 1).unwrap(), b"");
}

#[test]
fn an_address_is_found_by_its_lower_half() {
    let (_dir, path) = file(&vmlinux(BASE, b"contents", &[]));
    let kernel = SymbolFile::open(&path).unwrap();
    for (low, whole) in [
        (0x8100_0000, Some(BASE)),
        (0x8100_0007, Some(BASE + 7)),
        (0x8100_0008, None),
        (0x80ff_ffff, None),
        // The per-CPU section is not above 4 GiB.
        (0, None),
    ] {
        assert_eq!(kernel.above_4_gib(low), whole, "{low:#x}");
    }
    let (_dir, path) = file(&vmlinux(0xffff_ffff, b"contents", &[]));
    let kernel = SymbolFile::open(&path).unwrap();
    assert_eq!(kernel.above_4_gib(0xffff_ffff), None);
    assert_eq!(kernel.above_4_gib(0x20), None);
    let (_dir, path) = file(&vmlinux(0xffff_fff0, &[0; 0x40], &[]));
    let kernel = SymbolFile::open(&path).unwrap();
    assert_eq!(kernel.above_4_gib(0x20), Some(0x1_0000_0020));
    let (_dir, path) = file(&program_32());
    let program = SymbolFile::open(&path).unwrap();
    assert_eq!(program.above_4_gib(0xc010_0000), None);
}

#[test]
fn gdb_sees_the_per_cpu_section_outside_of_any_segment() {
    let original = vmlinux(BASE, b"contents", &[]);
    let (_dir, path) = file(&original);
    let file = SymbolFile::open(&path).unwrap();
    let mut expected = original.clone();
    expected[PERCPU_SEGMENT..PERCPU_SEGMENT + 4].fill(0);
    expected[SECTION + 4] = 8;
    let mut whole = vec![0; original.len() + 10];
    assert_eq!(file.read_at(0, &mut whole).unwrap(), original.len());
    assert_eq!(whole[..original.len()], expected);
    // However the reads are cut.
    for start in [
        PERCPU_SEGMENT - 3,
        PERCPU_SEGMENT + 2,
        SECTION + 4,
        CONTENTS,
    ] {
        let mut piece = [0; 5];
        assert_eq!(file.read_at(start as u64, &mut piece).unwrap(), 5);
        assert_eq!(piece, expected[start..start + 5], "{start:#x}");
    }
    assert_eq!(file.read_at(u64::MAX >> 1, &mut whole).unwrap(), 0);
}

#[test]
fn what_is_no_symbol_file_is_said() {
    let good = vmlinux(BASE, b"contents", &[]);
    let mut arm = good.clone();
    arm[18] = 183;
    // A 64-bit program in 32-bit headers: x32.
    let mut x32 = program_32();
    x32[18] = 62;
    let mut nothing = good.clone();
    nothing[64] = 0;
    nothing[PERCPU_SEGMENT] = 0;
    for (bytes, problem) in [
        (&b"MZ"[..], "it is no ELF file"),
        (&x32, "it is for neither x86 nor x86-64"),
        (&arm, "it is for neither x86 nor x86-64"),
        (&nothing, "it has nothing to load"),
        (&good[..0x200], "its section headers are not in the file"),
    ] {
        let (_dir, path) = file(bytes);
        let error = SymbolFile::open(&path).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(error.contains("vmlinux is no source of symbols"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path(), &dir.path().join("absent")] {
        let error = SymbolFile::open(path).unwrap_err().to_string();
        assert!(error.starts_with("cannot read symbols from "), "{error}");
    }
}
