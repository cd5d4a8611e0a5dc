//! The walk against a builder of page tables that knows only the formats.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::address::PhysAddr;
use crate::arch::{Registers, cr0, cr4, efer};
use crate::error::TargetError;
use crate::target::VirtAddr;

const WRITE: u64 = 2;
const USER: u64 = 4;
const HUGE: u64 = 0x80;
const NX: u64 = 1 << 63;

/// Physical memory that exists where it was written, and page tables in it.
struct Tables {
    space: AddressSpace,
    memory: BTreeMap<u64, u64>,
    next_table: u64,
    reads: RefCell<usize>,
}

impl Tables {
    fn new(mode: Mode) -> Self {
        let mut tables = Self {
            space: AddressSpace {
                mode,
                root: 0x10_0000,
                no_execute: true,
            },
            memory: BTreeMap::new(),
            next_table: 0x10_0000,
            reads: RefCell::new(0),
        };
        tables.table();
        tables
    }

    /// (shift, entry size) of each level from the top, for the builder's own use.
    fn levels(&self) -> &'static [u32] {
        match self.space.mode {
            Mode::Off => &[],
            Mode::Bits32 { .. } => &[22, 12],
            Mode::Pae => &[30, 21, 12],
            Mode::Level4 => &[39, 30, 21, 12],
            Mode::Level5 => &[48, 39, 30, 21, 12],
        }
    }

    fn size(&self) -> u64 {
        if matches!(self.space.mode, Mode::Bits32 { .. }) {
            4
        } else {
            8
        }
    }

    fn table(&mut self) -> u64 {
        let table = self.next_table;
        self.next_table += 0x1000;
        for n in 0..0x1000 / self.size() {
            self.memory.insert(table + n * self.size(), 0);
        }
        table
    }

    fn slot(&self, table: u64, shift: u32, addr: u64) -> u64 {
        let bits = if self.size() == 4 { 10 } else { 9 };
        table + (addr >> shift & ((1 << bits) - 1)) * self.size()
    }

    /// Maps the page of size `1 << leaf` at `addr`; false when something is in
    /// the way. Returns the address of the entry written.
    fn map(&mut self, addr: u64, phys: u64, leaf: u32, flags: u64) -> Option<u64> {
        let mut table = self.space.root;
        for &shift in self.levels() {
            let slot = self.slot(table, shift, addr);
            let entry = self.memory[&slot];
            if shift == leaf {
                if entry != 0 {
                    return None;
                }
                let huge = if shift == 12 { 0 } else { HUGE };
                self.memory.insert(slot, phys | flags | huge | 1);
                return Some(slot);
            }
            if entry & HUGE != 0 {
                return None;
            }
            table = entry & 0x000f_ffff_ffff_f000;
            if entry == 0 {
                table = self.table();
                let top_of_pae = self.space.mode == Mode::Pae && shift == 30;
                let rights = if top_of_pae { 0 } else { WRITE | USER };
                self.memory.insert(slot, table | rights | 1);
            }
        }
        None
    }

    fn walk(&self, addr: u64) -> Result<Translation, WalkError> {
        *self.reads.borrow_mut() = 0;
        self.space.translate(VirtAddr(addr), |at, buf| {
            *self.reads.borrow_mut() += 1;
            let entry = self.memory.get(&at.0).ok_or(TargetError::NoRam(at))?;
            buf.copy_from_slice(&entry.to_le_bytes()[..buf.len()]);
            Ok(())
        })
    }
}

fn level(error: Result<Translation, WalkError>) -> u8 {
    match error {
        Err(
            WalkError::NotPresent { level }
            | WalkError::Reserved { level, .. }
            | WalkError::Unreadable { level, .. },
        ) => level,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_mode_follows_the_control_registers() {
    let mut registers = Registers::default();
    let mode = |registers: &Registers| AddressSpace::of(registers).mode;
    registers.cr4 = cr4::PAE | cr4::PSE;
    assert_eq!(mode(&registers), Mode::Off);
    registers.cr0 = cr0::PE | cr0::PG;
    assert_eq!(mode(&registers), Mode::Pae);
    registers.efer = efer::LME | efer::LMA;
    assert_eq!(mode(&registers), Mode::Level4);
    registers.cr4 |= cr4::LA57;
    assert_eq!(mode(&registers), Mode::Level5);
    registers.efer = 0;
    registers.cr4 = cr4::PSE;
    assert_eq!(mode(&registers), Mode::Bits32 { huge: true });
    registers.cr4 = 0;
    assert_eq!(mode(&registers), Mode::Bits32 { huge: false });
}

#[test]
fn without_paging_addresses_are_physical() {
    let tables = Tables::new(Mode::Off);
    assert_eq!(
        tables.walk(0xffff_fff0).unwrap().phys,
        PhysAddr(0xffff_fff0)
    );
    assert!(matches!(
        tables.walk(1 << 32),
        Err(WalkError::BeyondLinear(_))
    ));
    assert_eq!(*tables.reads.borrow(), 0);
}

#[test]
fn non_canonical_addresses_are_not_walked() {
    for (mode, low, high) in [
        (Mode::Level4, 0x0000_8000_0000_0000, 0xffff_7fff_ffff_ffff),
        (Mode::Level5, 0x0100_0000_0000_0000, 0xfeff_ffff_ffff_ffff),
    ] {
        let tables = Tables::new(mode);
        for addr in [low, high] {
            assert!(matches!(tables.walk(addr), Err(WalkError::NotCanonical(a)) if a == addr));
        }
        for addr in [low - 1, high + 1] {
            assert_eq!(level(tables.walk(addr)), mode.top());
        }
        assert_eq!(*tables.reads.borrow(), 1);
    }
}

#[test]
fn each_level_is_named_when_absent_reserved_or_unreadable() {
    for mode in [
        Mode::Level5,
        Mode::Level4,
        Mode::Pae,
        Mode::Bits32 { huge: true },
    ] {
        let addr = 0x1234_5678;
        let mut tables = Tables::new(mode);
        tables.map(addr & !0xfff, 0x5000, 12, WRITE).unwrap();
        let mut table = tables.space.root;
        for (depth, &shift) in tables.levels().iter().enumerate() {
            let expected = mode.top() - depth as u8;
            let slot = tables.slot(table, shift, addr);
            let entry = tables.memory.insert(slot, 0).unwrap();
            assert_eq!(level(tables.walk(addr)), expected);
            tables.memory.remove(&slot);
            assert!(
                matches!(tables.walk(addr), Err(WalkError::Unreadable { level, .. }) if level == expected)
            );
            if tables.size() == 8 {
                tables.space.no_execute = false;
                tables.memory.insert(slot, entry | NX);
                assert!(
                    matches!(tables.walk(addr), Err(WalkError::Reserved { level, .. }) if level == expected)
                );
                tables.space.no_execute = true;
            }
            tables.memory.insert(slot, entry);
            table = entry & !0xfff;
        }
        assert_eq!(tables.walk(addr).unwrap().phys, PhysAddr(0x5678));
    }
}

#[test]
fn the_page_size_bit_is_reserved_above_1_gib() {
    for (mode, shift, expected) in [(Mode::Level5, 48, 5), (Mode::Level4, 39, 4)] {
        let mut tables = Tables::new(mode);
        tables.map(0, 0, shift, WRITE).unwrap();
        assert_eq!(level(tables.walk(0)), expected);
    }
}

#[test]
fn the_top_of_pae_may_be_marked_as_accessed_but_has_no_rights() {
    let mut tables = Tables::new(Mode::Pae);
    tables.map(0, 0x5000, 12, WRITE).unwrap();
    let top = tables.space.root;
    let entry = tables.memory[&top];
    for bit in 1..9 {
        tables.memory.insert(top, entry | 1 << bit);
        // Write-through, cache disable, accessed.
        let ignored = [3, 4, 5].contains(&bit);
        assert_eq!(tables.walk(0x123).is_ok(), ignored, "bit {bit}");
    }
}

#[test]
fn without_pse_the_page_size_bit_is_ignored() {
    let mut tables = Tables::new(Mode::Bits32 { huge: false });
    let slot = tables.map(0, 0x5000, 12, 0).unwrap();
    let directory = tables.space.root;
    let entry = tables.memory[&directory];
    tables.memory.insert(directory, entry | HUGE);
    assert_eq!(tables.walk(0x123).unwrap().phys, PhysAddr(0x5123));
    assert!(tables.memory.contains_key(&slot));
}

#[test]
fn pse_36_reaches_above_4_gib() {
    let mut tables = Tables::new(Mode::Bits32 { huge: true });
    tables
        .map(0x0040_0000, 0x0080_0000 | 0xa5 << 13, 22, WRITE)
        .unwrap();
    let translation = tables.walk(0x0052_3456).unwrap();
    assert_eq!(translation.phys, PhysAddr(0xa5_0092_3456));
    assert_eq!(translation.page_size, 4 << 20);
}

#[test]
fn rights_are_those_that_every_level_grants() {
    let mut tables = Tables::new(Mode::Level4);
    let page = tables.map(0x1000, 0x9000, 12, WRITE | USER).unwrap();
    let rights = |tables: &Tables| tables.walk(0x1000).unwrap().rights;
    let all = Rights {
        write: true,
        user: true,
        execute: true,
    };
    assert_eq!(rights(&tables), all);
    for slot in [tables.space.root, page] {
        let entry = tables.memory[&slot];
        tables.memory.insert(slot, entry & !WRITE);
        assert_eq!(
            rights(&tables),
            Rights {
                write: false,
                ..all
            }
        );
        tables.memory.insert(slot, entry & !USER);
        assert_eq!(rights(&tables), Rights { user: false, ..all });
        tables.memory.insert(slot, entry | NX);
        assert_eq!(
            rights(&tables),
            Rights {
                execute: false,
                ..all
            }
        );
        tables.memory.insert(slot, entry);
    }
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Bits32 { huge: true }),
        Just(Mode::Pae),
        Just(Mode::Level4),
        Just(Mode::Level5),
    ]
}

proptest! {
    /// Every mapped page translates to what the builder mapped, at any offset.
    #[test]
    fn translates_what_was_mapped(
        mode in modes(),
        pages in prop::collection::vec((any::<u64>(), any::<u64>(), 0..3usize, any::<u64>()), 1..20),
    ) {
        let mut tables = Tables::new(mode);
        let mut mapped = Vec::new();
        for (addr, phys, size, offset) in pages {
            let sizes: &[u32] = match mode {
                Mode::Bits32 { .. } => &[12, 22],
                Mode::Pae => &[12, 21],
                _ => &[12, 21, 30],
            };
            let shift = sizes[size % sizes.len()];
            let unused = 64 - mode.address_bits();
            let addr = match unused {
                32 => addr & 0xffff_ffff,
                _ => ((addr << unused) as i64 >> unused) as u64,
            } >> shift << shift;
            let phys = phys & if tables.size() == 4 { 0xffff_ffff } else { 0xf_ffff_ffff_f000 };
            let phys = phys >> shift << shift;
            if tables.map(addr, phys, shift, WRITE).is_some() {
                mapped.push((addr, phys, shift, offset & ((1 << shift) - 1)));
            }
        }
        for (addr, phys, shift, offset) in mapped {
            let translation = tables.walk(addr + offset).unwrap();
            prop_assert_eq!(translation.phys, PhysAddr(phys + offset));
            prop_assert_eq!(translation.page_size, 1 << shift);
        }
    }

    /// Whatever is in memory, the walk ends after at most a read per level.
    #[test]
    fn garbage_ends_the_walk(
        mode in modes(), root: u64, addr: u64, entries: [u64; 5], no_execute: bool,
    ) {
        let space = AddressSpace { mode, root, no_execute };
        let mut reads = 0;
        let _ = space.translate(VirtAddr(addr), |_, buf| {
            buf.copy_from_slice(&entries[reads].to_le_bytes()[..buf.len()]);
            reads += 1;
            Ok(())
        });
        prop_assert!(reads <= usize::from(mode.top()));
    }
}
