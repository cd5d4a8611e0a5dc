use proptest::prelude::*;

use super::*;
use crate::target::TargetError;

/// 64 bytes of RAM at 0x1000.
struct Ram(Vec<u8>);

const START: u64 = 0x1000;

impl Ram {
    fn new() -> Self {
        Self((0..64).collect())
    }

    fn range(&self, addr: PhysAddr, len: usize) -> Result<std::ops::Range<usize>> {
        let start = addr.0.checked_sub(START).ok_or(TargetError::NoRam(addr))? as usize;
        let end = start + len;
        (end <= self.0.len())
            .then_some(start..end)
            .ok_or(TargetError::NoRam(addr))
    }
}

impl PhysicalMemory for Ram {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        buf.copy_from_slice(&self.0[self.range(addr, buf.len())?]);
        Ok(())
    }

    fn write(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()> {
        let range = self.range(addr, data.len())?;
        self.0[range].copy_from_slice(data);
        Ok(())
    }
}

fn at(offset: u64) -> PhysAddr {
    PhysAddr(START + offset)
}

const A: VirtAddr = VirtAddr(0xffff_8000_0000_0007);
const B: VirtAddr = VirtAddr(0x7);

#[test]
fn an_int3_stays_until_its_last_holder_leaves() {
    let (mut ram, mut planted) = (Ram::new(), Planted::default());
    planted.insert(&mut ram, at(7), A).unwrap();
    planted.insert(&mut ram, at(7), A).unwrap();
    planted.insert(&mut ram, at(7), B).unwrap();
    assert_eq!(ram.0[7], BREAKPOINT);
    planted.remove(&mut ram, at(7), A).unwrap();
    assert!(!planted.is_held_by(at(7), A) && planted.is_held_by(at(7), B));
    assert_eq!(ram.0[7], BREAKPOINT);
    planted.remove(&mut ram, at(7), B).unwrap();
    assert_eq!(ram.0, Ram::new().0);
    assert!(planted.is_empty());
}

#[test]
fn a_byte_the_guest_rewrote_is_not_restored_over() {
    let (mut ram, mut planted) = (Ram::new(), Planted::default());
    planted.insert(&mut ram, at(7), A).unwrap();
    ram.0[7] = 0x90;
    let mut seen = [0; 64];
    seen.copy_from_slice(&ram.0);
    planted.hide(at(0), &mut seen);
    assert_eq!(seen[7], 0x90, "nor hidden");
    planted.remove(&mut ram, at(7), A).unwrap();
    assert_eq!(ram.0[7], 0x90);
}

#[test]
fn planting_again_over_a_rewritten_byte_saves_the_new_one() {
    let (mut ram, mut planted) = (Ram::new(), Planted::default());
    planted.insert(&mut ram, at(7), A).unwrap();
    ram.0[7] = 0x90;
    planted.insert(&mut ram, at(7), A).unwrap();
    assert_eq!(ram.0[7], BREAKPOINT);
    planted.clear(&mut ram).unwrap();
    assert_eq!(ram.0[7], 0x90);
}

#[test]
fn a_lifted_byte_that_the_guest_rewrites_is_kept() {
    let (mut ram, mut planted) = (Ram::new(), Planted::default());
    planted.insert(&mut ram, at(7), A).unwrap();
    planted.lift(&mut ram, at(7)).unwrap();
    assert_eq!(ram.0[7], 7);
    ram.0[7] = 0x90;
    planted.replant(&mut ram, at(7)).unwrap();
    assert_eq!(ram.0[7], BREAKPOINT);
    planted.remove(&mut ram, at(7), A).unwrap();
    assert_eq!(ram.0[7], 0x90);
}

#[test]
fn the_guests_own_int3_survives_ours() {
    let (mut ram, mut planted) = (Ram::new(), Planted::default());
    ram.0[7] = BREAKPOINT;
    planted.insert(&mut ram, at(7), A).unwrap();
    planted.clear(&mut ram).unwrap();
    assert_eq!(ram.0[7], BREAKPOINT);
}

#[test]
fn what_is_no_ram_changes_nothing() {
    let (mut ram, mut planted) = (Ram::new(), Planted::default());
    assert!(planted.insert(&mut ram, at(64), A).is_err());
    assert!(planted.is_empty());
    planted.insert(&mut ram, at(63), A).unwrap();
    assert!(planted.write_around(&mut ram, at(60), &[0; 8]).is_err());
    planted.clear(&mut ram).unwrap();
    assert_eq!(ram.0, Ram::new().0);
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Remove(u64),
    Write(u64, Vec<u8>),
    Step(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let offset = 0..56u64;
    prop::collection::vec(
        prop_oneof![
            offset.clone().prop_map(Op::Insert),
            offset.clone().prop_map(Op::Remove),
            (offset.clone(), prop::collection::vec(any::<u8>(), 0..8))
                .prop_map(|(offset, data)| Op::Write(offset, data)),
            offset.prop_map(Op::Step),
        ],
        0..60,
    )
}

proptest! {
    /// gdb sees memory as if nothing were planted, and so does the guest in the end.
    #[test]
    fn planting_is_invisible(ops in ops()) {
        let (mut ram, mut planted, mut model) = (Ram::new(), Planted::default(), Ram::new());
        for op in ops {
            match op {
                Op::Insert(offset) => planted.insert(&mut ram, at(offset), A).unwrap(),
                Op::Remove(offset) => planted.remove(&mut ram, at(offset), A).unwrap(),
                Op::Write(offset, data) => {
                    planted.write_around(&mut ram, at(offset), &data).unwrap();
                    model.write(at(offset), &data).unwrap();
                }
                Op::Step(offset) => {
                    planted.lift(&mut ram, at(offset)).unwrap();
                    planted.replant(&mut ram, at(offset)).unwrap();
                }
            }
            let mut seen = ram.0.clone();
            planted.hide(at(0), &mut seen);
            prop_assert_eq!(&seen, &model.0);
            for &byte in planted.bytes.keys() {
                prop_assert_eq!(ram.0[(byte.0 - START) as usize], BREAKPOINT);
            }
        }
        planted.clear(&mut ram).unwrap();
        prop_assert_eq!(ram.0, model.0);
    }
}
