use proptest::prelude::*;

use super::*;
use crate::linux::symbols::{Kind, Symbols};
use crate::linux::testing::{DATA, IMAGE, Running, Types};
use crate::linux::{libraries, module_file, module_symbols};

const HEAD: u64 = DATA;
const MODULE: u64 = DATA + 0x100;
const ATTRS: u64 = DATA + 0x300;
const NAMES: u64 = DATA + 0x400;
const POINTERS: u64 = DATA + 0x500;
const TABLE: u64 = DATA + 0x600;
const SYMBOLS: u64 = DATA + 0x640;
const STRINGS: u64 = DATA + 0x700;
const BASE: u64 = 0xffff_ffff_c000_1000;
const DATA_BASE: u64 = 0xffff_ffff_c000_8000;
const INIT: u64 = 0xffff_ffff_c000_a000;
/// Offsets in `struct module`.
const LAYOUTS: u64 = 0x60;
const MEM: u64 = 0x60;

/// `struct module` with its list at 8, its name at 0x18, then the rest.
fn types(modern: bool) -> Types {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    let list = types.structure("list_head", 16, &[("next", long, 0), ("prev", long, 8)]);
    let members = [
        ("list", list, 8),
        ("name", long, 0x18),
        ("kallsyms", long, 0x50),
        ("sect_attrs", long, 0x58),
    ];
    let memory = [("base", long, 0), ("size", int, 8), ("text_size", int, 12)];
    let of_memory = match modern {
        true => {
            let memory = types.structure("module_memory", 0x10, &memory[..2]);
            vec![("mem", types.array(memory, 7), MEM as u32)]
        }
        false => {
            let layout = types.structure("module_layout", 0x10, &memory);
            let at = LAYOUTS as u32;
            vec![
                ("core_layout", layout, at),
                ("init_layout", layout, at + 0x10),
            ]
        }
    };
    types.structure("module", 0x100, &[&members[..], &of_memory[..]].concat());
    let members = [
        ("symtab", long, 0),
        ("num_symtab", int, 8),
        ("strtab", long, 16),
    ];
    types.structure("mod_kallsyms", 0x20, &members);
    let attribute = types.structure("attribute", 8, &[("name", long, 0)]);
    let battr = types.structure(
        "bin_attribute",
        0x10,
        &[("attr", attribute, 0), ("private", long, 8)],
    );
    if !modern {
        let members = [("battr", battr, 0), ("address", long, 0x18)];
        types.structure("module_sect_attr", 0x20, &members);
    }
    let group = types.structure("attribute_group", 8, &[("bin_attrs", long, 0)]);
    let members = [
        ("grp", group, 0),
        ("attrs", battr, 0x10),
        ("nsections", int, 8),
    ];
    // The last is not there any more.
    let members = &members[..if modern { 2 } else { 3 }];
    types.structure("module_sect_attrs", 0x10, members);
    types
}

const SECTIONS: [(&[u8], u64); 7] = [
    (b".text\0", BASE + 0x40),
    (b".bss\0", DATA_BASE),
    (b".init.text\0", INIT),
    (b".init.data\0", INIT + 0x800),
    (b".note\0", 1),
    (b".data..percpu\0", 0x3_0000),
    (b".exit.text\0", BASE + 0x400),
];

fn running(modern: bool) -> Running {
    let mut linux = Running::new(&types(modern), &[("modules", HEAD)]);
    linux.put(HEAD, &[IMAGE + MODULE + 8]);
    linux.put(MODULE + 8, &[IMAGE + HEAD]);
    linux.put_bytes(MODULE + 0x18, b"virtio_blk\0");
    linux.put(MODULE + 0x50, &[IMAGE + TABLE, IMAGE + ATTRS]);
    if modern {
        linux.put(MODULE + MEM, &[BASE, 0x7000, DATA_BASE, 0x1000]);
        linux.put(ATTRS, &[IMAGE + POINTERS]);
    } else {
        linux.put(MODULE + LAYOUTS, &[BASE, 0x8000 | 0x7000 << 32]);
        linux.put(ATTRS + 8, &[SECTIONS.len() as u64]);
    }
    linux.put(POINTERS, &[1; SECTIONS.len()]);
    linux.put(POINTERS + 8 * SECTIONS.len() as u64, &[0]);
    let (stride, address) = if modern { (0x10, 8) } else { (0x20, 0x18) };
    for (n, (name, addr)) in SECTIONS.into_iter().enumerate() {
        let (n, at) = (n as u64, NAMES + 0x10 * n as u64);
        linux.put_bytes(at, name);
        linux.put(ATTRS + 0x10 + stride * n, &[IMAGE + at]);
        linux.put(ATTRS + 0x10 + stride * n + address, &[addr]);
    }
    initialise(&mut linux, modern, true);
    linux
}

/// Gives the module what it has while it is initialised, or takes it away.
fn initialise(linux: &mut Running, modern: bool, coming: bool) {
    let (text, data) = match coming {
        true => ([INIT, 0x800], [INIT + 0x800, 0x800]),
        false => ([0, 0], [0, 0]),
    };
    if modern {
        linux.put(MODULE + MEM + 4 * 0x10, &[text, data].concat());
    } else {
        let size = if coming { 0x1000 | 0x800 << 32 } else { 0 };
        linux.put(MODULE + LAYOUTS + 0x10, &[text[0], size]);
    }
    // none; undefined; code; code of the initialisation; absolute; data
    let symbols = [
        (0, 0, 0),
        (1, 0, BASE),
        (5, 1, BASE + 0x44),
        (10, 2, INIT + 0x10),
        (10, 0xfff1, 0x54),
        (5, 3, DATA_BASE + 8),
    ];
    let count = symbols.len() as u64;
    linux.put(TABLE, &[IMAGE + SYMBOLS, count, IMAGE + STRINGS]);
    for (n, (name, section, value)) in symbols.into_iter().enumerate() {
        let entry = [name | section << 48, value, 0];
        linux.put(SYMBOLS + 24 * n as u64, &entry);
    }
    linux.put_bytes(STRINGS, b"\0abs\0work\0start\0");
}

#[test]
fn modules_are_listed_with_the_sections_that_they_have() {
    for modern in [false, true] {
        let mut linux = running(modern);
        let text = "add-symbol-file virtio_blk.ko 0xffffffffc0001040 -s .bss 0xffffffffc0008000";
        for (coming, init) in [
            (
                true,
                "-s .init.text 0xffffffffc000a000 -s .init.data 0xffffffffc000a800",
            ),
            // Others may have the memory by now.
            (
                false,
                "-s .init.text 0xdead000000000000 -s .init.data 0xdead000100000000",
            ),
        ] {
            initialise(&mut linux, modern, coming);
            let modules = all(&linux.kernel, &linux.memory()).unwrap();
            let [module] = &modules[..] else {
                panic!("{modules:?}");
            };
            assert_eq!(
                (&module.name[..], module.base(), module.size()),
                ("virtio_blk", BASE, 0x8000)
            );
            assert_eq!(module.is_coming(), coming);
            let exit = "-s .exit.text 0xffffffffc0001400";
            assert_eq!(module.add_symbol_file(), [text, init, exit].join(" "));
        }
    }
    assert!(is_freed(0xdead_0001_0000_0054));
    assert!(!is_freed(0x8000_0000_0000_0000));
}

#[test]
fn symbols_are_those_of_the_memory_that_is_there() {
    for modern in [false, true] {
        let mut linux = running(modern);
        for coming in [true, false] {
            initialise(&mut linux, modern, coming);
            let modules = all(&linux.kernel, &linux.memory()).unwrap();
            let mut symbols = Symbols::default();
            module_symbols::add(&linux.kernel, &linux.memory(), &modules[0], &mut symbols).unwrap();
            symbols.seal();
            let found: Vec<_> = symbols
                .iter()
                .map(|symbol| (symbol.name, symbol.addr, symbol.kind))
                .collect();
            let all = [
                (&b"work"[..], BASE + 0x44, Kind::Text),
                (b"work", DATA_BASE + 8, Kind::Data),
                (b"start", INIT + 0x10, Kind::Text),
            ];
            assert_eq!(found, all[..if coming { 3 } else { 2 }]);
        }
    }
}

#[test]
fn tables_of_symbols_that_make_no_sense_are_refused() {
    let mut linux = running(true);
    let add = |linux: &Running| {
        let modules = all(&linux.kernel, &linux.memory()).unwrap();
        let mut symbols = Symbols::default();
        module_symbols::add(&linux.kernel, &linux.memory(), &modules[0], &mut symbols)
    };
    linux.put(TABLE + 8, &[1 << 20]);
    assert_eq!(
        add(&linux),
        Err(LookError::Nonsense("a module's symbol table"))
    );
    linux.put(TABLE + 8, &[6]);
    linux.put(SYMBOLS, &[u64::MAX]);
    assert_eq!(add(&linux), Err(LookError::Nonsense("a module's names")));
    linux.put(SYMBOLS, &[0x10_0000]);
    assert!(matches!(add(&linux), Err(LookError::Unreadable(_))));
    linux.put(TABLE, &[0xdead_0000]);
    assert!(matches!(add(&linux), Err(LookError::Unreadable(_))));
    linux.put(MODULE + 0x50, &[0]);
    assert_eq!(add(&linux), Ok(()));
}

#[test]
fn a_module_without_sections_has_its_base() {
    let mut linux = running(false);
    linux.put(MODULE + 0x58, &[0]);
    let modules = all(&linux.kernel, &linux.memory()).unwrap();
    assert_eq!(
        modules[0].add_symbol_file(),
        "add-symbol-file virtio_blk.ko 0xffffffffc0001000"
    );
}

#[test]
fn more_sections_than_any_module_has_are_cut() {
    for modern in [false, true] {
        let mut linux = running(modern);
        match modern {
            true => linux.put(POINTERS, &[1; 300]),
            false => linux.put(ATTRS + 8, &[u64::MAX]),
        }
        let error = all(&linux.kernel, &linux.memory());
        // The names beyond lead nowhere.
        assert!(error.is_err(), "{error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_damage_is_borne(
        modern in any::<bool>(),
        damage in prop::collection::vec((0u64..0x800, damaged()), 1..20),
    ) {
        let mut linux = running(modern);
        for (at, word) in damage {
            linux.put(DATA + at, &[word]);
        }
        let memory = linux.memory();
        for module in brief(&linux.kernel, &memory).unwrap_or_default() {
            let _ = module_file::make(&linux.kernel, &memory, &module);
            libraries::xml(&libraries::of(vec![module]));
        }
        for module in all(&linux.kernel, &memory).unwrap_or_default() {
            module.add_symbol_file();
        }
    }
}

/// A word that may lead somewhere.
fn damaged() -> impl Strategy<Value = u64> {
    let anything = any::<u64>();
    let count = 0u64..0x1_0000;
    let within = (0u64..0x1000).prop_map(|at| IMAGE + DATA + at);
    prop_oneof![anything, count, within]
}
