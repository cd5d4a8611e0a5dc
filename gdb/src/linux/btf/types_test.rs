use super::*;
use crate::linux::testing::Types;

#[test]
fn members_of_structures_with_widths_are_told_from_others() {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    let members = [
        ("low", int, 0, 3),
        ("high", int, 3, 29),
        ("long", long, 64, 0),
    ];
    let number = types.bit_fields("bits", 16, &members);
    let btf = Btf::parse(types.bytes()).unwrap();
    assert_eq!(btf.structure_number("bits"), Some(number));
    let Some(Type::Composite(bits)) = btf.get(number) else {
        panic!("no structure");
    };
    let members: Vec<_> = bits
        .members()
        .map(|member| (member.name, member.bit_offset, member.bits))
        .collect();
    let expected: [(&[u8], u32, Option<u32>); 3] = [
        (b"low", 0, Some(3)),
        (b"high", 3, Some(29)),
        (b"long", 64, None),
    ];
    assert_eq!(members, expected);
}

#[test]
fn values_of_enumerations_have_a_sign_or_64_bits() {
    let mut types = Types::new();
    let signed = types.signed_enum("signed", &[("BELOW", -2)]);
    let wide = types.enum64("wide", &[("HUGE", 5 << 33), ("SMALL", 1)]);
    let btf = Btf::parse(types.bytes()).unwrap();
    let values = |number| match btf.get(number) {
        Some(Type::Enum(values)) => values.values().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    };
    assert_eq!(values(signed), [-2]);
    assert_eq!(values(wide), [5 << 33, 1]);
}

#[test]
fn numbers_of_no_type_are_none() {
    let mut types = Types::new();
    let int = types.int("int", 4);
    let btf = Btf::parse(types.bytes()).unwrap();
    assert!(btf.get(0).is_none());
    assert!(btf.get(int + 1).is_none());
    assert!(btf.get(u32::MAX).is_none());
    assert_eq!(btf.int_number("int"), Some(int));
    assert_eq!(btf.int_number("long"), None);
}
