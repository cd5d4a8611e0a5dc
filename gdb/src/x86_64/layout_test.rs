use proptest::prelude::*;

use super::view::{abridged_tag_word, full_tag_word};
use super::*;

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
