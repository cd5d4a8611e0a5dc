use proptest::prelude::*;

use super::*;
use crate::linux::testing::Types;

/// struct task { int pid; struct { struct list head; } ; list_t children; }, with
/// struct list { long next, prev; } and list_t a typedef of it.
fn types() -> Types {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    let list = types.structure("list", 16, &[("next", long, 0), ("prev", long, 8)]);
    let unnamed = types.structure("", 16, &[("head", list, 0)]);
    let list_t = types.typedef("list_t", list);
    let members = [("pid", int, 0), ("", unnamed, 8), ("children", list_t, 24)];
    types.structure("task", 40, &members);
    types
}

#[test]
fn members_are_found_through_typedefs_and_what_has_no_name() {
    let btf = Btf::parse(types().bytes()).unwrap();
    assert_eq!(btf.size("task"), Ok(40));
    for (path, offset) in [
        ("pid", 0),
        ("head", 8),
        ("head.prev", 16),
        ("children", 24),
        ("children.prev", 32),
    ] {
        assert_eq!(btf.offset("task", path), Ok(offset), "{path}");
    }
    for (structure, path) in [
        ("task", "pi"),
        ("task", "pid.next"),
        ("task", "head.pid"),
        ("int", "pid"),
        ("tas", "pid"),
    ] {
        assert!(btf.offset(structure, path).is_err(), "{structure}.{path}");
    }
    let missing = btf.offset("task", "stack").unwrap_err().to_string();
    assert_eq!(missing, "the kernel's type information has no task.stack");
}

#[test]
fn arrays_have_a_length() {
    let mut types = types();
    let long = types.int("long", 8);
    let array = types.array(long, 7);
    let array = types.typedef("array_t", array);
    types.structure("arrays", 64, &[("one", long, 0), ("many", array, 8)]);
    let btf = Btf::parse(types.bytes()).unwrap();
    assert_eq!(btf.elements("arrays", "many"), Ok(7));
    assert!(btf.elements("arrays", "one").is_err());
    assert!(btf.elements("arrays", "none").is_err());
}

#[test]
fn malformed_data_is_refused() {
    let good = types().bytes();
    assert!(Btf::parse(good.clone()).is_some());
    assert!(Btf::parse(Vec::new()).is_none());
    assert!(Btf::parse(good[..good.len() - 1].to_vec()).is_none(), "cut");
    let mut kind = good.clone();
    kind[24 + 7] = 0x1f;
    assert!(Btf::parse(kind).is_none(), "an unknown kind");
    let mut magic = good.clone();
    magic[0] = 0;
    assert!(Btf::parse(magic).is_none());
    let mut header = good;
    header[4..8].fill(0xff);
    assert!(Btf::parse(header).is_none());
}

#[test]
fn types_that_contain_themselves_come_to_an_end() {
    let mut types = Types::new();
    types.typedef("loop_t", 1);
    types.structure("inner", 8, &[("", 2, 0), ("", 2, 0)]);
    types.structure("outer", 8, &[("a", 1, 0)]);
    let btf = Btf::parse(types.bytes()).unwrap();
    assert!(btf.offset("outer", "a.b").is_err());
    assert!(btf.offset("inner", "b").is_err());
}

#[test]
fn a_structure_that_contains_itself_many_times_comes_to_an_end() {
    let mut types = Types::new();
    types.structure("many", 8, &vec![("", 1, 0); 60_000]);
    let btf = Btf::parse(types.bytes()).unwrap();
    assert!(btf.offset("many", "b").is_err());
}

proptest! {
    #[test]
    fn any_damage_is_borne(damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..20)) {
        let mut bytes = types().bytes();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some(btf) = Btf::parse(bytes) {
            let _ = btf.offset("task", "children.prev");
            let _ = btf.size("list");
        }
    }
}
