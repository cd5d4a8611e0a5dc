//! Regions against translations of single pages.

use std::collections::BTreeMap;

use super::*;

const PRESENT_WRITE: u64 = 0b011;
const READ_ONLY: u64 = 0b001;
const BIG: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// Tables of 512 entries by their address.
#[derive(Default)]
struct Tables(BTreeMap<u64, [u64; 512]>);

impl Tables {
    /// A page table that maps nothing yet, reached by the entries `indices` from the top.
    fn table(&mut self, indices: &[usize]) -> u64 {
        let mut table = 0x1000;
        self.0.entry(table).or_insert([0; 512]);
        for &index in indices {
            let next = 0x1000 * (self.0.len() as u64 + 1);
            let entry = &mut self.0.get_mut(&table).unwrap()[index];
            if *entry == 0 {
                *entry = next | PRESENT_WRITE;
            }
            table = *entry & !0xfff;
            self.0.entry(table).or_insert([0; 512]);
        }
        table
    }

    fn map(&mut self, indices: &[usize], entry: u64) {
        let (last, above) = indices.split_last().unwrap();
        let table = self.table(above);
        self.0.get_mut(&table).unwrap()[*last] = entry;
    }

    fn region(&self, addr: u64) -> Region {
        let space = AddressSpace {
            mode: Mode::Level4,
            root: 0x1000,
            no_execute: true,
        };
        space.region(addr, |at, buf| {
            let table = self.0.get(&(at.0 & !0xfff)).ok_or(TargetError::NoRam(at))?;
            let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            let offset = (at.0 & 0xfff) as usize;
            buf.copy_from_slice(&bytes[offset..offset + buf.len()]);
            Ok(())
        })
    }
}

/// Two pages of 2 MiB and the one of 4 KiB behind them are one region; the next page may
/// not be written, and the one behind may not be executed.
fn guest() -> Tables {
    let mut tables = Tables::default();
    tables.map(&[0, 0, 1], 0x20_0000 | BIG | PRESENT_WRITE);
    tables.map(&[0, 0, 2], 0x40_0000 | BIG | PRESENT_WRITE);
    tables.map(&[0, 0, 3, 0], 0x60_0000 | PRESENT_WRITE);
    tables.map(&[0, 0, 3, 1], 0x60_1000 | READ_ONLY);
    tables.map(&[0, 0, 3, 2], 0x60_2000 | PRESENT_WRITE | NO_EXECUTE);
    tables.map(&[511, 510, 0], BIG | PRESENT_WRITE);
    tables
}

#[test]
fn pages_of_equal_rights_are_one_region() {
    let tables = guest();
    for addr in [0x20_0000, 0x3f_ffff, 0x40_1234, 0x60_0000] {
        let region = tables.region(addr);
        assert_eq!(
            (region.start, region.last),
            (0x20_0000, 0x60_0fff),
            "{addr:#x}"
        );
        assert!(
            region
                .rights
                .is_some_and(|rights| rights.write && rights.execute)
        );
    }
    let region = tables.region(0x60_1800);
    assert_eq!((region.start, region.last), (0x60_1000, 0x60_1fff));
    assert!(region.rights.is_some_and(|rights| !rights.write));
    let region = tables.region(0x60_2fff);
    assert_eq!((region.start, region.last), (0x60_2000, 0x60_2fff));
    assert!(region.rights.is_some_and(|rights| !rights.execute));
}

#[test]
fn gaps_reach_from_a_region_to_the_next() {
    const KERNEL: u64 = 0xffff_ffff_8000_0000;
    let tables = guest();
    let gap = |start, last| Region {
        start,
        last,
        rights: None,
    };
    assert_eq!(tables.region(0), gap(0, 0x1f_ffff));
    assert_eq!(tables.region(0x60_3000), gap(0x60_3000, KERNEL - 1));
    // Looked at in its own gigabyte alone.
    assert_eq!(tables.region((5 << 30) + 0x123), gap(5 << 30, KERNEL - 1));
    assert_eq!(tables.region(KERNEL).last, KERNEL + 0x1f_ffff);
    let behind = gap(KERNEL + 0x20_0000, u64::MAX);
    assert_eq!(tables.region(KERNEL + 0x20_0000), behind);
    assert_eq!(tables.region(u64::MAX), gap(!((1 << 30) - 1), u64::MAX));
}

#[test]
fn without_paging_all_that_can_be_addressed_is_one() {
    let space = AddressSpace {
        mode: Mode::Off,
        root: 0,
        no_execute: false,
    };
    let read = |at, _: &mut [u8]| Err(TargetError::NoRam(at));
    let region = space.region(0x1234, read);
    assert_eq!((region.start, region.last), (0, u64::from(u32::MAX)));
    assert_eq!(space.region(1 << 32, read).rights, None);
}
