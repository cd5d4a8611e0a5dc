use object::read::{Object, ObjectSection, ObjectSegment, ObjectSymbol};

use super::*;
use crate::linux::module_parts::{KINDS, Part};

const BASE: u64 = 0xffff_ffff_9000_0000;

fn symbols(list: &[(&[u8], u64, Kind)]) -> Symbols {
    let mut symbols = Symbols::default();
    for (name, addr, kind) in list {
        symbols.push(name, *addr, *kind);
    }
    symbols.seal();
    symbols
}

#[test]
fn symbols_are_in_the_part_of_the_image_that_has_them() {
    let symbols = symbols(&[
        (b"_text", BASE, Kind::Text),
        (b"run", BASE + 0x10, Kind::Text),
        (b"_etext", BASE + 0x100, Kind::Text),
        (b"jiffies", BASE + 0x200, Kind::Data),
        (b"_sinittext", BASE + 0x300, Kind::Text),
        (b"start_kernel", BASE + 0x310, Kind::Text),
        (b"_einittext", BASE + 0x400, Kind::Text),
        (b"_end", BASE + 0x500, Kind::Data),
        (b"current_task", 0x1_ac00, Kind::Data),
    ]);
    let bytes = kernel(&symbols, BASE, &[]).unwrap();
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&bytes[..]).unwrap();
    let section = |name: &str| {
        let symbol = file
            .symbols()
            .find(|symbol| symbol.name() == Ok(name))
            .unwrap();
        let section = symbol.section_index();
        section.map(|index| {
            file.section_by_index(index)
                .unwrap()
                .name()
                .unwrap()
                .to_owned()
        })
    };
    for (name, expected) in [
        ("run", Some(".text")),
        ("jiffies", Some(".data")),
        ("start_kernel", Some(".init.text")),
        ("_end", Some(".bss")),
        ("current_task", None),
    ] {
        assert_eq!(section(name).as_deref(), expected, "{name}");
    }
    let segments: Vec<_> = object::read::Object::segments(&file).collect();
    let [segment] = &segments[..] else {
        panic!("{} segments", segments.len());
    };
    assert_eq!((segment.address(), segment.size()), (BASE, 0x501));
}

/// A module that is being initialised, with two symbols.
fn loaded() -> ModuleSymbols {
    let part = |kind, start| Part {
        kind,
        start,
        len: 0x1000,
    };
    let module = Module {
        name: "dummy".to_owned(),
        parts: vec![
            part(KINDS[1], 0xffff_ffff_c000_1000),
            part(KINDS[4], 0xffff_ffff_c000_9000),
        ],
        ..Module::default()
    };
    ModuleSymbols {
        modules: vec![module],
        symbols: symbols(&[
            (b"dummy_ops", 0xffff_ffff_c000_1010, Kind::Data),
            (b"dummy_init", 0xffff_ffff_c000_9010, Kind::Text),
        ]),
    }
}

#[test]
fn modules_have_a_file_of_their_own() {
    let bytes = modules(&loaded()).unwrap();
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&bytes[..]).unwrap();
    let found: Vec<_> = file
        .symbols()
        .map(|symbol| (symbol.name().unwrap().to_owned(), symbol.address()))
        .collect();
    let expected = [
        ("dummy_ops", 0xffff_ffff_c000_1010),
        ("dummy_init", 0xffff_ffff_c000_9010),
    ];
    assert_eq!(found, expected.map(|(name, addr)| (name.to_owned(), addr)));
    let section = file.section_by_name("dummy.init.text").unwrap();
    assert_eq!(section.address(), 0xffff_ffff_c000_9000);
    assert!(modules(&ModuleSymbols::default()).is_ok());
}

#[test]
fn a_module_is_a_library_with_its_own_sections() {
    let loaded = loaded();
    let bytes = module(&loaded.modules[0], &loaded.symbols, &[]).unwrap();
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&bytes[..]).unwrap();
    let segments: Vec<_> = file.segments().map(|segment| segment.address()).collect();
    let starts = [0xffff_ffff_c000_1000, 0xffff_ffff_c000_9000];
    assert_eq!(segments, starts[..1]);
    let sections = [".data", ".init.text"].map(|name| file.section_by_name(name).unwrap());
    assert_eq!(sections.map(|section| section.address()), starts);
}

#[test]
fn names_that_make_no_sense_are_borne() {
    let symbols = symbols(&[
        (b"", BASE, Kind::Text),
        (b"\xff\x01", BASE, Kind::Data),
        (b"same", u64::MAX, Kind::Text),
        (b"same", 0, Kind::Text),
    ]);
    let bytes = kernel(&symbols, BASE, &[]).unwrap();
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&bytes[..]).unwrap();
    assert_eq!(file.symbols().count(), 4);
    assert!(kernel(&Symbols::default(), BASE, &[]).is_ok());
}
