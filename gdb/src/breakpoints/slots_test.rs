use proptest::prelude::*;

use super::*;

fn hardware(addr: u64) -> Holder {
    Holder::Hardware(VirtAddr(addr))
}

fn watch_at(addr: u64, len: u64) -> Holder {
    Holder::Watch {
        addr: VirtAddr(addr),
        len,
        kind: WatchKind::Write,
    }
}

#[test]
fn an_exhausted_set_says_what_holds_it() {
    let mut slots = Slots::default();
    slots.add(hardware(0x1000)).unwrap();
    slots.add(Holder::Software(VirtAddr(0x2000))).unwrap();
    slots.add(watch_at(0x3004, 12)).unwrap();
    let before = slots.to_arm(None);
    let error = slots.add(hardware(0x4000)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "all 4 hardware slots are taken: hbreak 0x1000, break 0x2000, watch 0x3004 (12 bytes)"
    );
    assert_eq!(slots.to_arm(None), before);

    slots.remove(hardware(0x1000));
    slots.add(hardware(0x4000)).unwrap();
}

#[test]
fn equal_slots_are_shared() {
    let mut slots = Slots::default();
    for n in 0..HW_SLOTS as u64 {
        slots.add(hardware(n)).unwrap();
        slots.add(hardware(n)).unwrap();
        slots.add(Holder::Software(VirtAddr(n))).unwrap();
    }
    let [Some(first), ..] = slots.to_arm(None) else {
        panic!("nothing armed");
    };
    let holders: Vec<_> = slots.holders(first).collect();
    assert_eq!(holders, [hardware(0), Holder::Software(VirtAddr(0))]);
    slots.remove(hardware(0));
    assert!(
        slots.executes_at(VirtAddr(0)),
        "its other holder still needs it"
    );
}

#[test]
fn arming_leaves_out_what_is_stepped_over() {
    let mut slots = Slots::default();
    slots.add(hardware(0x1000)).unwrap();
    slots.add(watch_at(0x1000, 8)).unwrap();
    let armed = slots.to_arm(Some(VirtAddr(0x1000)));
    assert_eq!(armed[0], None);
    assert!(matches!(
        armed[1],
        Some(HwBreakpoint {
            kind: HwKind::Write,
            ..
        })
    ));
}

#[test]
fn too_wide_a_watch_is_refused() {
    let mut slots = Slots::default();
    for (addr, len) in [(0x1000, 33), (0x1001, 31), (u64::MAX, 2), (0, u64::MAX)] {
        assert_eq!(
            slots.add(watch_at(addr, len)),
            Err(SlotError::TooWide { addr, len })
        );
    }
    assert_eq!(
        slots.add(watch_at(0x1000, 0)),
        Err(SlotError::Empty(0x1000))
    );
    slots.add(watch_at(0x1000, 32)).unwrap();
}

proptest! {
    /// Pieces are aligned, adjoin and cover exactly what was asked.
    #[test]
    fn pieces_cover_the_range(addr: u64, len in 1..40u64) {
        if let Ok(pieces) = watch(addr, len, WatchKind::Access) {
            let mut at = addr;
            for piece in &pieces {
                prop_assert_eq!(piece.addr.0, at);
                prop_assert!([1, 2, 4, 8].contains(&piece.len));
                prop_assert_eq!(at % u64::from(piece.len), 0);
                at += u64::from(piece.len);
            }
            prop_assert_eq!(at, addr + len);
            prop_assert!(pieces.len() <= HW_SLOTS);
        }
    }
}
