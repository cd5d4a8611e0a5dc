use super::*;
use crate::linux::testing::{DATA, IMAGE, Running, Types};

const POINTER: u64 = DATA;
const RING: u64 = DATA + 0x100;
const DESCS: u64 = DATA + 0x200;
const INFOS: u64 = DATA + 0x300;
const TEXT: u64 = DATA + 0x400;
/// Numbers of records wrap at 62 bits; these are about to.
const TAIL: u64 = (1 << 62) - 2;

fn types() -> Types {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    let members = [
        ("count_bits", int, 0),
        ("descs", long, 8),
        ("infos", long, 16),
        ("head_id", long, 24),
        ("tail_id", long, 32),
    ];
    let descs = types.structure("prb_desc_ring", 40, &members);
    let texts = types.structure(
        "prb_data_ring",
        16,
        &[("size_bits", int, 0), ("data", long, 8)],
    );
    let members = [("desc_ring", descs, 0), ("text_data_ring", texts, 40)];
    types.structure("printk_ringbuffer", 56, &members);
    let place = types.structure(
        "prb_data_blk_lpos",
        16,
        &[("begin", long, 0), ("next", long, 8)],
    );
    types.structure(
        "prb_desc",
        24,
        &[("state_var", long, 0), ("text_blk_lpos", place, 8)],
    );
    types.structure(
        "printk_info",
        24,
        &[("ts_nsec", long, 8), ("text_len", int, 16)],
    );
    types
}

/// A ring of four records and 64 bytes of text: two lines in one record, one that
/// is being written, one without text, and one that has wrapped.
fn running() -> Running {
    let mut linux = Running::new(&types(), &[("prb", POINTER)]);
    linux.put(POINTER, &[IMAGE + RING]);
    linux.put(
        RING,
        &[2, IMAGE + DESCS, IMAGE + INFOS, 1, TAIL, 6, IMAGE + TEXT],
    );
    let records = [
        (
            TAIL & 3,
            FINALIZED,
            0,
            24,
            1_500_000_000,
            &b"one\ntwo\x1b"[..],
        ),
        (3, 0, 24, 40, 0, b"half"),
        (0, COMMITTED, 1, 1, 2_000_001_000, b""),
        (1, COMMITTED, 56, 64 + 16, 12_345_000_000_000, b"wrapped"),
    ];
    for (index, state, begin, next, time, text) in records {
        linux.put(DESCS + 24 * index, &[state << STATE_SHIFT, begin, next]);
        linux.put(INFOS + 24 * index + 8, &[time, text.len() as u64]);
        let from = if next > 64 { 0 } else { begin & !1 };
        if !text.is_empty() && next <= 64 {
            linux.put_bytes(TEXT + from + 8, text);
        }
    }
    // What has wrapped would lie over the first: it has a place of its own here.
    linux
}

fn lines(linux: &Running, max: u64) -> Result<Vec<String>, LookError> {
    let mut lines = Vec::new();
    last(&linux.kernel, &linux.memory(), max, |line| {
        lines.push(line.to_owned())
    })?;
    Ok(lines)
}

#[test]
fn records_are_shown_oldest_first() {
    let linux = running();
    let expected = [
        "[    1.500000] one",
        "[    1.500000] two\u{fffd}",
        "[    2.000001] ",
        // At the ring's beginning, where the first record is.
        "[12345.000000] one\u{fffd}two",
    ];
    let found = lines(&linux, 100).unwrap();
    assert_eq!(found[..3], expected[..3]);
    assert_eq!(found[3..], ["[12345.000000] one", "[12345.000000] two"]);
    assert_eq!(lines(&linux, 2).unwrap(), found[2..]);
}

#[test]
fn the_log_of_before_5_10_is_named() {
    let linux = Running::new(&types(), &[("log_first_idx", POINTER)]);
    assert_eq!(lines(&linux, 1), Err(LookError::OldLog));
}

#[test]
fn a_ring_that_makes_no_sense_is_bounded() {
    let mut linux = running();
    for (at, words) in [(RING, 63), (RING + 40, 40)] {
        let mut bad = running();
        bad.put(at, &[words]);
        assert_eq!(
            lines(&bad, 100),
            Err(LookError::Nonsense("the log's ring buffer"))
        );
    }
    // A head far from the tail: no more than the ring has.
    linux.put(RING + 24, &[TAIL.wrapping_sub(1)]);
    assert!(lines(&linux, u64::MAX).unwrap().len() <= 6);
    linux.put(RING + 48, &[0x1000]);
    assert!(matches!(lines(&linux, 100), Err(LookError::Unreadable(_))));
}
