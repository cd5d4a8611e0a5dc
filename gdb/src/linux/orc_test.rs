use proptest::prelude::*;

use super::*;
use crate::linux::dwarf;
use crate::linux::testing::{DATA, IMAGE, Running, Types};

/// `struct orc_entry` of Linux 6.1, or with the kinds that 6.4 brought.
fn types(with_end: bool) -> Types {
    let mut types = Types::new();
    let (short, int) = (types.int("short int", 2), types.int("unsigned int", 4));
    let mut members = vec![
        ("sp_offset", short, 0, 0),
        ("bp_offset", short, 16, 0),
        ("sp_reg", int, 32, 4),
        ("bp_reg", int, 36, 4),
    ];
    match with_end {
        true => members.extend([("type", int, 40, 2), ("end", int, 42, 1)]),
        false => members.extend([("type", int, 40, 3), ("signal", int, 43, 1)]),
    }
    types.bit_fields("orc_entry", 6, &members);
    types
}

/// A kernel with these entries, each of offsets and the word behind them, at 16 bytes of
/// code each.
fn kernel(types: &Types, entries: &[(i16, i16, u16)]) -> Running {
    let count = entries.len() as u64;
    let (ips, table) = (DATA, DATA + 0x800);
    let mut running = Running::new(
        types,
        &[
            ("__start_orc_unwind_ip", ips),
            ("__stop_orc_unwind_ip", ips + 4 * count),
            ("__start_orc_unwind", table),
        ],
    );
    for (n, (sp, bp, word)) in entries.iter().enumerate() {
        let n = n as u64;
        let distance = (DATA + 0x1000 + 16 * n) as i32 - (ips + 4 * n) as i32;
        running.put_bytes(ips + 4 * n, &distance.to_le_bytes());
        let entry = [sp.to_le_bytes(), bp.to_le_bytes(), word.to_le_bytes()].concat();
        running.put_bytes(table + 6 * n, &entry);
    }
    running
}

fn rules(running: &Running, version: Version) -> Vec<Rule> {
    let memory = running.memory();
    let btf = running.kernel.btf(&memory).unwrap();
    let table = Table::of_kernel(&running.kernel.symbols).unwrap();
    let rows = rows(table, &memory, Some(btf), version).unwrap();
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(row.addr & 0xfff, 16 * n as u64);
    }
    rows.iter().map(|row| row.rule).collect()
}

#[test]
fn entries_are_read_as_the_kernels_types_say() {
    let at_sp = |offset| Place::At(Base::Sp, offset);
    let expected = [
        Rule::Call(at_sp(8), Bp::Unchanged),
        Rule::Call(Place::At(Base::Bp, 16), Bp::AtPlace(-16)),
        Rule::Registers(at_sp(0)),
        Rule::Exception(at_sp(8)),
        Rule::Call(Place::BehindSp(-8), Bp::AtItself(-24)),
        Rule::End,
        Rule::Unknown,
    ];
    let old = [
        (8, 0, 0x005),
        (16, -16, 0x014),
        (0, 0, 0x105),
        (8, 0, 0x205),
        (-8, -24, 0x049),
        (0, 0, 0x400),
        (0, 0, 0x000),
    ];
    let running = kernel(&types(true), &old);
    assert_eq!(rules(&running, Version(6, 1)), expected);
    // With a kind of its own for the end.
    let new = [
        (8, 0, 0x205),
        (16, -16, 0x214),
        (0, 0, 0xb05),
        (8, 0, 0x405),
        (-8, -24, 0x249),
        (0, 0, 0x100),
        (0, 0, 0x000),
    ];
    let running = kernel(&types(false), &new);
    assert_eq!(rules(&running, Version(6, 12)), expected);
    // With other numbers for the registers.
    let renumbered = [
        (8, 0, 0x203),
        (16, -16, 0x284),
        (0, 0, 0xb03),
        (8, 0, 0x403),
        (-8, -24, 0x249),
        (0, 0, 0x100),
        (0, 0, 0x000),
        (0, 0, 0x201),
        (24, 0, 0x20a),
    ];
    let running = kernel(&types(false), &renumbered);
    let more = [Place::At(Base::Ax, 0), Place::BehindBp(24)];
    let more = more.map(|place| Rule::Call(place, Bp::Unchanged));
    let expected = [&expected[..], &more].concat();
    assert_eq!(rules(&running, Version(7, 2)), expected);
}

#[test]
fn code_that_calls_on_another_stack_is_found() {
    let row = |addr, place| Row {
        addr,
        rule: Rule::Call(place, Bp::Unchanged),
    };
    let at_sp = Place::At(Base::Sp, 8);
    let rows = [
        row(0x10, at_sp),
        row(0x20, Place::BehindSp(8)),
        row(0x30, at_sp),
        row(0x40, Place::BehindSp(8)),
        row(0x50, at_sp),
        row(0x60, Place::BehindSp(8)),
    ];
    assert_eq!(stack_switches(&rows), [0x20..0x30, 0x40..0x50]);
}

#[test]
fn rows_of_memory_that_is_not_there_are_left_out() {
    let row = |addr, offset| Row {
        addr,
        rule: Rule::Call(Place::At(Base::Sp, offset), Bp::Unchanged),
    };
    let end = |addr| Row {
        addr,
        rule: Rule::Unknown,
    };
    let rows = vec![row(0x10, 8), row(0x20, 16), row(0x30, 8), row(0x50, 8)];
    assert_eq!(
        rows_in(rows, &[0x20..0x30, 0x30..0x40]),
        [row(0x20, 16), end(0x30), row(0x30, 8), end(0x40)]
    );
}

#[test]
fn offsets_of_old_pointers_on_the_stack_are_not_guessed() {
    let running = kernel(&types(true), &[(-8, 0, 0x009), (0, 0, 0)]);
    assert_eq!(rules(&running, Version(5, 10))[0], Rule::Unknown);
}

#[test]
fn kernels_without_types_have_the_layout_of_their_version() {
    let entry = |word: u64| word << 32 | 8;
    let of =
        |version, word| Layout::of_version(version).rule(entry(word), Numbering::FIRST, version);
    let call = Rule::Call(Place::At(Base::Sp, 8), Bp::Unchanged);
    assert_eq!(of(Version(4, 14), 0x005), call);
    assert_eq!(of(Version(6, 1), 0x400), Rule::End);
    assert_eq!(of(Version(6, 3), 0x800), Rule::End);
    assert_eq!(of(Version(6, 4), 0x205), call);
    assert_eq!(of(Version(6, 4), 0x100), Rule::End);
}

#[test]
fn tables_that_make_no_sense_are_none() {
    let running = kernel(&types(true), &[(8, 0, 0x005), (8, 0, 0x005)]);
    let memory = running.memory();
    let rows = |symbols: &Symbols| rows(Table::of_kernel(symbols)?, &memory, None, Version(6, 1));
    assert!(rows(&running.kernel.symbols).is_some());
    let start = running.kernel.symbol("__start_orc_unwind_ip").unwrap();
    for end in [start - 4, start + (MAX_ROWS + 1) * 4, u64::MAX] {
        let mut symbols = Symbols::default();
        let data = crate::linux::symbols::Kind::Data;
        symbols.push(b"__start_orc_unwind_ip", start, data);
        symbols.push(b"__stop_orc_unwind_ip", end, data);
        symbols.push(b"__start_orc_unwind", start, data);
        symbols.seal();
        assert!(rows(&symbols).is_none(), "{end:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_table_is_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0x1000),
        count in any::<u64>(),
        is_short in any::<bool>(),
        (major, minor) in (4u32..8, 0u32..20),
    ) {
        let mut running = kernel(&types(true), &[]);
        running.put_bytes(DATA, &bytes);
        let table = Table {
            places: Table::of_kernel(&running.kernel.symbols).unwrap().places,
            entries: IMAGE + DATA + 0x800,
            count: if is_short { count % 8 } else { count },
        };
        let memory = running.memory();
        let btf = running.kernel.btf(&memory).unwrap();
        for btf in [Some(&**btf), None] {
            let rows = rows(table, &memory, btf, Version(major, minor));
            let rows = rows.unwrap_or_default();
            prop_assert!(rows.len() as u64 <= MAX_ROWS);
            let memory = rows.first().map(|row| row.addr..row.addr.saturating_add(0x100));
            let rows = rows_in(rows, memory.as_slice());
            stack_switches(&rows);
            let _ = dwarf::frames(&rows);
        }
    }
}
