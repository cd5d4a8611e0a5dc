use proptest::prelude::*;

use super::*;
use crate::x86_64::{Served, target_xml};

/// The value of `attribute` in the XML element that `line` holds.
fn attribute<'a>(line: &'a str, attribute: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{attribute}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

const SETS: [VectorSet; 3] = [VectorSet::Sse, VectorSet::Avx, VectorSet::Avx512];

#[test]
fn the_description_and_the_layout_agree() {
    for (set, count) in SETS.into_iter().zip([66, 82, 154]) {
        let described: Vec<_> = target_xml(set)
            .lines()
            .filter(|line| line.trim_start().starts_with("<reg "))
            .map(|line| {
                let bits: usize = attribute(line, "bitsize").parse().unwrap();
                (attribute(line, "name").to_owned(), bits / 8)
            })
            .collect();
        let encoded: Vec<_> = Register::all(set).map(|r| (r.name(), r.size())).collect();
        assert_eq!(described, encoded);
        assert_eq!(described.len(), count);
        for (number, register) in Register::all(set).enumerate() {
            assert_eq!(register.number(), number);
            assert_eq!(Register::from_number(number), Some(register));
            assert!(register.is_in(set) && register.size() <= MAX_SIZE);
        }
    }
    assert_eq!(Register::from_number(154), None);
    assert!(!Register::from_number(66).unwrap().is_in(VectorSet::Sse));
    assert!(!Register::from_number(82).unwrap().is_in(VectorSet::Avx));
}

#[test]
fn all_registers_survive_the_g_packet_of_each_set() {
    use gdbstub::arch::Registers as _;
    for set in SETS {
        let mut registers = Registers::blank();
        registers.vectors.set = set;
        for (n, part) in VectorPart::all(set).into_iter().enumerate() {
            part.bytes_mut(&mut registers.vectors).fill(n as u8 + 1);
        }
        registers.gpr[3] = 7;
        let mut bytes = Vec::new();
        let mut served = Served::from(registers);
        served.gdb_serialize(|byte| bytes.push(byte.unwrap()));
        let mut read = Served::default();
        read.gdb_deserialize(&bytes).unwrap();
        assert_eq!(read, served);
        served.known = Some([Register::Gpr(3)].into());
        let mut known = 0;
        served.gdb_serialize(|byte| known += usize::from(byte.is_some()));
        assert_eq!(known, 8, "the others are sent as unknown");
        bytes.pop();
        assert!(read.gdb_deserialize(&bytes).is_err());
    }
}

#[test]
fn selectors_do_not_change() {
    let mut registers = Registers::default();
    registers.cs.selector = 0x10;
    let cs = Register::Selector(0);
    assert_eq!(cs.set(&mut registers, 0x10), Ok(()));
    assert_eq!(cs.set(&mut registers, 0x33), Err(WriteError::Selector));
    assert_eq!(registers.cs.selector, 0x10);
}

#[test]
fn a_wrong_length_is_refused() {
    let mut registers = Registers::default();
    let error = WriteError::Size { size: 8, found: 4 };
    assert_eq!(Register::Rip.set_bytes(&mut registers, &[1; 4]), Err(error));
    assert_eq!(registers, Registers::default());
}

#[test]
fn the_full_tag_word_follows_the_contents() {
    let mut fpu = Fpu::default();
    assert_eq!(full_tag_word(&fpu), 0xffff, "all empty after FNINIT");

    // fldz; fld1: top is 6, ST0 (physical 6) is 1.0, ST1 (physical 7) is 0.0.
    fpu.fsw = 6 << 11;
    fpu.ftw = 0b1100_0000;
    fpu.st[0] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f];
    assert_eq!(full_tag_word(&fpu), 0b01_00_11_11_11_11_11_11);

    // Infinity in ST1, an unnormal in ST0.
    fpu.st[1] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x7f];
    fpu.st[0][7] = 0x40;
    assert_eq!(full_tag_word(&fpu), 0b10_10_11_11_11_11_11_11);
    assert_eq!(abridged_tag_word(full_tag_word(&fpu)), fpu.ftw);
}

proptest! {
    /// Whatever gdb writes it reads back, and no other register changes.
    #[test]
    fn registers_are_independent(number in 0..154usize, value: [u8; MAX_SIZE]) {
        let register = Register::from_number(number).unwrap();
        let mut value = value;
        value[register.size()..].fill(0);
        match register {
            Register::Selector(_) => value.fill(0),
            // Tags are derived from contents but for empty; these have 16 bits of 32.
            Register::Ftag => value[..4].copy_from_slice(&[0xff, 0xff, 0, 0]),
            Register::Fctrl | Register::Fstat | Register::Fop | Register::Fiseg
            | Register::Foseg => value[2..].fill(0),
            _ => {}
        }
        let before = Registers::blank();
        let mut after = before;
        register.set_bytes(&mut after, &value[..register.size()]).unwrap();
        prop_assert_eq!(register.bytes(&after), value);
        for other in Register::all(VectorSet::Avx512).filter(|&other| other != register) {
            prop_assert_eq!(other.bytes(&after), other.bytes(&before));
        }
    }
}
