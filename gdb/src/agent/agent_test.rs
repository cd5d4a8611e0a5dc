//! Agent expressions, among them some as gdb 13 makes them.

use super::*;

/// Registers are ten times their number, and a byte of memory is the low byte of
/// its address. There is none from 0x1000 on.
struct Model;

impl Vcpu for Model {
    fn register(&self, number: usize) -> Option<u64> {
        (number < 20).then_some(number as u64 * 10)
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        for (n, byte) in (0..).zip(&mut *buf) {
            *byte = (addr + n) as u8;
        }
        addr + (buf.len() as u64) <= 0x1000
    }
}

fn value(code: &[u8]) -> Result<Option<u64>> {
    evaluate(code, &Model, &mut Variables::default(), &mut |_| {})
}

fn collected(code: &[u8]) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let record = &mut |effect| match effect {
        Effect::Memory(addr, len) => ranges.push((addr, len)),
        other => panic!("{other:?}"),
    };
    evaluate(code, &Model, &mut Variables::default(), record).unwrap();
    ranges
}

/// `a OP b`.
fn apply(opcode: u8, a: i64, b: i64) -> Result<i64> {
    let (a, b) = (a.to_be_bytes(), b.to_be_bytes());
    let code = [&[0x25][..], &a, &[0x25], &b, &[opcode, 0x27]].concat();
    value(&code).map(|value| value.unwrap().cast_signed())
}

#[test]
fn arithmetic_and_comparison() {
    for (opcode, a, b, expected) in [
        (0x02, i64::MAX, 1, i64::MIN),
        (0x03, 5, 7, -2),
        (0x04, -3, 5, -15),
        (0x05, -7, 2, -3),
        (0x05, i64::MIN, -1, i64::MIN),
        (0x06, -1, 2, i64::MAX),
        (0x07, -7, 2, -1),
        (0x08, 7, 4, 3),
        (0x09, 1, 4, 16),
        (0x09, 1, 64, 0),
        (0x0a, -16, 2, -4),
        (0x0a, -16, 200, -1),
        (0x0b, -1, 63, 1),
        (0x0b, -1, -1, 0),
        (0x0f, 6, 3, 2),
        (0x10, 6, 3, 7),
        (0x11, 6, 3, 5),
        (0x13, 6, 6, 1),
        (0x14, -1, 0, 1),
        (0x15, -1, 0, 0),
    ] {
        assert_eq!(apply(opcode, a, b), Ok(expected), "{opcode:#x}: {a}, {b}");
    }
    for opcode in 0x05..=0x08 {
        assert_eq!(apply(opcode, 1, 0), Err(AgentError::DivideByZero));
    }
}

#[test]
fn extensions_and_negations() {
    assert_eq!(value(&[0x22, 0xff, 0x16, 8, 0x27]), Ok(Some(u64::MAX)));
    assert_eq!(value(&[0x22, 0x7f, 0x16, 8, 0x27]), Ok(Some(0x7f)));
    assert_eq!(value(&[0x23, 0x12, 0x34, 0x2a, 8, 0x27]), Ok(Some(0x34)));
    for bits in [0, 64, 255] {
        assert_eq!(value(&[0x22, 0xff, 0x16, bits, 0x27]), Ok(Some(0xff)));
    }
    assert_eq!(value(&[0x22, 0, 0x0e, 0x27]), Ok(Some(1)));
    assert_eq!(value(&[0x22, 0, 0x12, 0x27]), Ok(Some(u64::MAX)));
}

#[test]
fn registers_memory_and_the_stack() {
    assert_eq!(value(&[0x26, 0, 7, 0x27]), Ok(Some(70)));
    assert_eq!(value(&[0x26, 0, 99, 0x27]), Err(AgentError::Register(99)));
    assert_eq!(value(&[0x22, 0x40, 0x18, 0x27]), Ok(Some(0x4140)));
    let ref64 = [0x22, 0x10, 0x1a, 0x27];
    assert_eq!(value(&ref64), Ok(Some(0x1716_1514_1312_1110)));
    let missing = [0x23, 0x0f, 0xff, 0x18, 0x27];
    assert_eq!(value(&missing), Err(AgentError::Memory(0xfff)));
    // 1 2 3, then …: what is on top at the end.
    let with = |tail: &[u8]| value(&[&[0x22, 1, 0x22, 2, 0x22, 3], tail, &[0x27]].concat());
    assert_eq!(with(&[0x2b]), Ok(Some(2)), "swap");
    assert_eq!(with(&[0x33]), Ok(Some(2)), "rot: 3 1 2");
    assert_eq!(with(&[0x33, 0x29, 0x29]), Ok(Some(3)), "rot: 3 is the last");
    assert_eq!(with(&[0x32, 2]), Ok(Some(1)), "pick");
    assert_eq!(with(&[0x28, 0x02]), Ok(Some(6)), "dup");
    assert_eq!(with(&[0x32, 3]), Err(AgentError::StackEmpty));
    assert_eq!(value(&[0x27]), Ok(None));
}

#[test]
fn what_is_collected() {
    assert_eq!(collected(&[0x22, 0x40, 0x22, 9, 0x0c, 0x27]), [(0x40, 9)]);
    let quick = [0x22, 0x40, 0x0d, 4, 0x30, 1, 2, 0x27];
    assert_eq!(collected(&quick), [(0x40, 4), (0x40, 0x102)]);
    // The first 0 is at 0x100.
    let string = |limit| collected(&[0x22, 0xf0, 0x22, limit, 0x2f, 0x27]);
    assert_eq!(string(0), [(0xf0, 17)]);
    assert_eq!(string(5), [(0xf0, 5)]);
    // One that ends with the memory.
    assert_eq!(
        collected(&[0x23, 0x0f, 0xfd, 0x22, 0, 0x2f, 0x27]),
        [(0xffd, 3)]
    );
}

/// `collect $a`, `teval $a = $a + 1` and a condition, as gdb 13 makes them of a
/// variable that is number 1.
#[test]
fn variables_are_read_set_and_collected() {
    let mut variables = Variables::default();
    let definition = VariableDefinition::parse("1:fffffffffffffffe:0:61").unwrap();
    variables.define(definition).unwrap();
    let mut run = |code: &[u8]| {
        let mut found = Vec::new();
        let record = &mut |effect| found.push(effect);
        let value = evaluate(code, &Model, &mut variables, record);
        (value, found)
    };
    let minus_2 = Some((-2i64).cast_unsigned());
    let collected = vec![Effect::Variable(1, -2)];
    assert_eq!(run(&[0x2e, 0, 1, 0x27]), (Ok(None), collected));
    assert_eq!(run(&[0x2c, 0, 1, 0x27]), (Ok(minus_2), vec![]));
    let add = [0x2c, 0, 1, 0x22, 5, 0x02, 0x2d, 0, 1, 0x2e, 0, 1, 0x27];
    let collected = vec![Effect::Variable(1, 3)];
    assert_eq!(run(&add), (Ok(Some(3)), collected));
    let missing = Err(AgentError::Variable(0x102));
    for code in [[0x2c, 1, 2, 0x27], [0x2e, 1, 2, 0x27]] {
        assert_eq!(run(&code), (missing.clone(), vec![]));
    }
    assert_eq!(run(&[0x22, 1, 0x2d, 1, 2, 0x27]), (missing, vec![]));
    let empty = Err(AgentError::StackEmpty);
    assert_eq!(run(&[0x2d, 0, 1, 0x27]), (empty, vec![]));
    assert_eq!(run(&[0x2c, 0]), (Err(AgentError::Truncated), vec![]));
    assert_eq!(variables.get(1), Some(3));
}

#[test]
fn branches_go_by_the_value() {
    // if_goto 8; const8 2; end; 8: const8 1; end
    let branch = |first| value(&[0x22, first, 0x20, 0, 8, 0x22, 2, 0x27, 0x22, 1, 0x27]);
    assert_eq!(branch(0), Ok(Some(2)));
    assert_eq!(branch(9), Ok(Some(1)));
}

#[test]
fn no_expression_is_endless_or_unbounded() {
    assert_eq!(value(&[0x21, 0, 0]), Err(AgentError::TooLong));
    let grows = [0x22, 1, 0x21, 0, 0];
    assert_eq!(value(&grows), Err(AgentError::StackFull));
    assert_eq!(value(&[]), Err(AgentError::Truncated));
    assert_eq!(value(&[0x24, 0, 0]), Err(AgentError::Truncated));
    assert_eq!(value(&[0x21, 0xff, 0xff]), Err(AgentError::Truncated));
    assert_eq!(value(&[0x02]), Err(AgentError::StackEmpty));
    for opcode in [0x00, 0x01, 0x1b, 0x35, 0xff] {
        assert_eq!(value(&[opcode]), Err(AgentError::Opcode(opcode)));
    }
}

/// `printf` of a format and its values, below a function and a channel of 0.
fn printed(format: &[u8], values: &[u64]) -> Result<Vec<Effect>> {
    let mut code = Vec::new();
    for value in values.iter().rev().chain(&[0, 0]) {
        code.push(0x25);
        code.extend(value.to_be_bytes());
    }
    let len = (format.len() as u16 + 1).to_be_bytes();
    code.extend([0x34, values.len() as u8, len[0], len[1]]);
    code.extend(format);
    code.extend([0, 0x27]);
    let mut effects = Vec::new();
    let record = &mut |effect| effects.push(effect);
    evaluate(&code, &Model, &mut Variables::default(), record)?;
    Ok(effects)
}

#[test]
fn texts_are_printed_with_their_values_in_order() {
    let text = printed(b"%d then %s\\n", &[7, 0x141]).unwrap();
    let alphabet = (0x41..=0xff).map(char::from).take(0x7f - 0x40);
    let expected: String = alphabet.collect();
    let [Effect::Printed(text)] = &text[..] else {
        panic!("{text:?}");
    };
    assert!(text.starts_with(&format!("7 then {expected}")), "{text}");
    assert!(text.ends_with('\n'));
    assert_eq!(
        printed(b"%s", &[0xfff0]),
        Err(FormatError::Memory(0xfff0).into())
    );
    // More values than there are, and a text that ends too early.
    let empty = Err(AgentError::StackEmpty);
    assert_eq!(value(&[0x22, 0, 0x28, 0x34, 1, 0, 1, 0, 0x27]), empty);
    assert_eq!(value(&[0x34, 0, 0, 9, 0, 0x27]), Err(AgentError::Truncated));
}
