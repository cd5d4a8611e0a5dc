use proptest::prelude::*;

use super::*;
use crate::linux::testing::{Encoding, Order, kallsyms};

const BASE: u64 = 0xffff_ffff_9a00_0000;
/// Where [`image`] begins, and its tables, which are not aligned to 8 bytes where
/// they need not be.
const START: u64 = 0xffff_ffff_9b23_0000;
const TABLES: usize = 0x1004;

/// More symbols than one marker covers, names with long tokens and a long name.
fn named() -> Vec<(u64, char, String)> {
    let mut symbols: Vec<_> = (0..600)
        .map(|n| (BASE + 16 * n, 'T', format!("do_sys_{n}_T_")))
        .collect();
    symbols[7].1 = 'd';
    symbols[300].2 = "x".repeat(300);
    symbols[599].1 = '?';
    symbols
}

fn with_percpu() -> Vec<(u64, char, String)> {
    let percpu = [
        (0, 'A', "fixed_percpu_data".to_owned()),
        (0x1_ac00, 'A', "current_task".to_owned()),
    ];
    percpu.into_iter().chain(named()).collect()
}

fn image(symbols: &[(u64, char, String)], order: Order, encoding: Encoding) -> Vec<u8> {
    let symbols: Vec<_> = symbols
        .iter()
        .map(|(addr, kind, name)| (*addr, *kind, name.as_str()))
        .collect();
    let tables = kallsyms(&symbols, BASE, order, encoding);
    // Amid other data, with another run of digits in front.
    let other = [b"\x01\0", DIGITS, &[0x55; 0x1002 - DIGITS.len() - 12]].concat();
    let gap = match encoding {
        Encoding::FromPlace(_) => TABLES - (0x1000 - 8),
        _ => 8,
    };
    [
        &other[..0x1000 - 8],
        &[0; 12][..gap],
        &tables[..],
        &[0x55; 0x1000],
    ]
    .concat()
}

#[test]
fn symbols_are_found_in_every_order_and_encoding() {
    let cases = [
        (with_percpu(), Order::WideMarkers, Encoding::Whole),
        (with_percpu(), Order::WideMarkers, Encoding::AbsolutePercpu),
        (with_percpu(), Order::AddressesFirst, Encoding::Whole),
        (
            with_percpu(),
            Order::AddressesFirst,
            Encoding::AbsolutePercpu,
        ),
        (
            with_percpu(),
            Order::AddressesLast,
            Encoding::AbsolutePercpu,
        ),
        (named(), Order::AddressesFirst, Encoding::Unsigned),
        (named(), Order::AddressesLast, Encoding::Unsigned),
        (
            named(),
            Order::AddressesLast,
            Encoding::FromPlace(START + TABLES as u64),
        ),
    ];
    for (expected, order, encoding) in cases {
        let found = find(&image(&expected, order, encoding), START);
        let found = found.unwrap_or_else(|| panic!("nothing: {order:?}, {encoding:?}"));
        let found: Vec<_> = found
            .iter()
            .map(|symbol| (symbol.addr, symbol.kind, symbol.name.to_vec()))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(addr, kind, name)| {
                let kind = if *kind == 'T' { Kind::Text } else { Kind::Data };
                (*addr, kind, name.clone().into_bytes())
            })
            .collect();
        assert_eq!(found, expected, "{order:?}, {encoding:?}");
    }
}

#[test]
fn tables_that_disagree_are_no_symbols() {
    let good = image(&named(), Order::AddressesFirst, Encoding::Unsigned);
    let base = BASE.to_le_bytes();
    let base_at = memchr::memmem::find(&good, &base).unwrap();
    let markers_at = {
        let digits = memchr::memmem::rfind(&good, DIGITS).unwrap();
        let image = Image {
            bytes: &good,
            start: START,
            align: 8,
        };
        Tokens::around(image, digits).unwrap().table - 16
    };
    for (what, at, bytes) in [
        ("a base outside of the kernel's area", base_at, &[0; 8][..]),
        ("too many symbols", base_at + 8, &[0xff, 0xff, 0xff, 0x7f]),
        ("one symbol more", base_at + 8, &601u32.to_le_bytes()),
        ("another marker", markers_at + 4, &[1, 2, 3]),
        ("addresses that are not sorted", base_at - 8, &[0; 4]),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(find(&bad, START).is_none(), "{what}");
    }
    assert!(find(&good, START).is_some());
}

proptest! {
    /// Whatever is there, looking ends without a panic.
    #[test]
    fn any_damage_is_borne(damage in prop::collection::vec((0usize..20_000, any::<u8>()), 1..40)) {
        let by_place = Encoding::FromPlace(START + TABLES as u64);
        for (symbols, order, encoding) in [
            (with_percpu(), Order::AddressesLast, Encoding::AbsolutePercpu),
            (named(), Order::AddressesLast, by_place),
            (with_percpu(), Order::WideMarkers, Encoding::Whole),
        ] {
            let mut bytes = image(&symbols, order, encoding);
            for &(at, byte) in &damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let cut = bytes.len() - bytes[0x1010] as usize;
            let _ = find(&bytes[..cut], START);
        }
    }
}
