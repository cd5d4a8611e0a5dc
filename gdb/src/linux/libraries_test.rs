use super::*;
use crate::linux::module_parts::{KINDS, Part};

fn module(name: &str, start: u64, kinds: &[usize]) -> Module {
    let part = |(n, kind): (usize, &usize)| Part {
        kind: KINDS[*kind],
        start: start + 0x1000 * n as u64,
        len: 0x1000,
    };
    Module {
        name: name.to_owned(),
        parts: kinds.iter().enumerate().map(part).collect(),
        ..Module::default()
    }
}

#[test]
fn a_name_changes_with_what_gdb_must_read_again() {
    let name = |start, kinds: &[usize]| of(vec![module("msr", start, kinds)]).remove(0).name;
    let first = name(0xffff_ffff_c000_1000, &[0, 1]);
    assert_eq!(first, "/outboard/modules/ffffffffc0001000/msr.ko");
    assert_ne!(name(0xffff_ffff_c000_3000, &[0, 1]), first);
    assert_ne!(name(0xffff_ffff_c000_1000, &[0, 1, 4]), first);
}

#[test]
fn names_of_the_guests_choice_are_harmless() {
    let evil = module("../\"><\u{1b}&", 0x1000, &[0]);
    let text = xml(&of(vec![
        evil.clone(),
        evil,
        module("gone", 0x1000, &[]),
        module("b", 0x2000, &[0]),
    ]));
    assert_eq!(
        text,
        "<library-list>\n\
         <library name=\"/outboard/modules/1000/________.ko\">\
         <segment address=\"0x1000\"/></library>\n\
         <library name=\"/outboard/modules/2000/b.ko\">\
         <segment address=\"0x2000\"/></library>\n\
         </library-list>\n"
    );
}
