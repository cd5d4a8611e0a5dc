use super::*;
use crate::linux::testing::{DATA, IMAGE, Running, Types};

const HEAD: u64 = DATA;
const MODULE: u64 = DATA + 0x100;
const ATTRS: u64 = DATA + 0x300;
const NAMES: u64 = DATA + 0x400;
const POINTERS: u64 = DATA + 0x500;
const BASE: u64 = 0xffff_ffff_c000_1000;

/// `struct module` with its list at 8, its name at 0x18, then the rest.
fn types(modern: bool) -> Types {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    let list = types.structure("list_head", 16, &[("next", long, 0), ("prev", long, 8)]);
    let memory = [("base", long, 0), ("size", int, 8)];
    let layout = match modern {
        true => ("mem", types.structure("module_memory", 0x10, &memory), 0x60),
        false => (
            "core_layout",
            types.structure("module_layout", 0x10, &memory),
            0x60,
        ),
    };
    let members = [
        ("list", list, 8),
        ("name", long, 0x18),
        layout,
        ("sect_attrs", long, 0x80),
    ];
    types.structure("module", 0x100, &members);
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

fn running(modern: bool) -> Running {
    let mut linux = Running::new(&types(modern), &[("modules", HEAD)]);
    linux.put(HEAD, &[IMAGE + MODULE + 8]);
    linux.put(MODULE + 8, &[IMAGE + HEAD]);
    linux.put_bytes(MODULE + 0x18, b"virtio_blk\0");
    linux.put(MODULE + 0x60, &[BASE, 0x7000]);
    linux.put(MODULE + 0x80, &[IMAGE + ATTRS]);
    match modern {
        true => linux.put(ATTRS, &[IMAGE + POINTERS]),
        false => linux.put(ATTRS + 8, &[3]),
    }
    linux.put(POINTERS, &[1, 1, 1, 0]);
    let (stride, address) = if modern { (0x10, 8) } else { (0x20, 0x18) };
    for (n, (name, addr)) in [
        (&b".text\0"[..], BASE + 0x40),
        (b".bss\0", 0xb55),
        (b".note\0", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let (n, at) = (n as u64, NAMES + 0x10 * n as u64);
        linux.put_bytes(at, name);
        linux.put(ATTRS + 0x10 + stride * n, &[IMAGE + at]);
        linux.put(ATTRS + 0x10 + stride * n + address, &[addr]);
    }
    linux
}

#[test]
fn modules_are_listed_with_their_sections() {
    for modern in [false, true] {
        let linux = running(modern);
        let modules = all(&linux.kernel, &linux.memory()).unwrap();
        let [module] = &modules[..] else {
            panic!("{modules:?}");
        };
        assert_eq!(
            (&module.name[..], module.base, module.size),
            ("virtio_blk", BASE, 0x7000)
        );
        assert_eq!(module.sections.len(), 3, "{modern}");
        assert_eq!(
            module.add_symbol_file(),
            "add-symbol-file virtio_blk.ko 0xffffffffc0001040 -s .bss 0xb55"
        );
    }
}

#[test]
fn a_module_without_sections_has_its_base() {
    let mut linux = running(false);
    linux.put(MODULE + 0x80, &[0]);
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
