use super::*;
use crate::target::TargetError;

/// 16 KiB of RAM at 0.
struct Ram(Vec<u8>);

impl PhysicalMemory for Ram {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        let start = addr.0 as usize;
        let bytes = self.0.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(addr))?);
        Ok(())
    }

    fn write(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()> {
        let start = addr.0 as usize;
        self.0[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn piece(virt: u64, phys: u64, len: u64) -> Piece {
    Piece {
        virt: VirtAddr(virt),
        phys: PhysAddr(phys),
        len,
    }
}

/// 32 bytes at 0xff0, whose two pages lie the other way round in RAM.
fn crossing() -> Watched {
    let mut watched = Watched::default();
    let pieces = vec![piece(0xff0, 0x2ff0, 16), piece(0x1000, 0x1000, 16)];
    watched.add(VirtAddr(0xff0), 32, pieces).unwrap();
    watched
}

#[test]
fn addresses_are_those_of_the_pages() {
    let watched = crossing();
    assert_eq!(watched.addr_of(PhysAddr(0x2fff)), Some(VirtAddr(0xfff)));
    assert_eq!(watched.addr_of(PhysAddr(0x100f)), Some(VirtAddr(0x100f)));
    assert_eq!(watched.addr_of(PhysAddr(0x1010)), None);
    assert!(watched.covers(VirtAddr(0x100f)) && !watched.covers(VirtAddr(0x1010)));
    let range = |start, end| PhysAddr(start)..PhysAddr(end);
    let ranges = [range(0x2ff0, 0x3000), range(0x1000, 0x1010)];
    assert_eq!(watched.ranges(), ranges);
}

#[test]
fn change_is_told_from_its_first_to_its_last_byte() {
    let watched = crossing();
    let mut ram = Ram(vec![0; 0x4000]);
    let before = watched.snapshot(&ram).unwrap();
    assert_eq!(before.change(&ram).unwrap(), None);
    ram.write(PhysAddr(0x1010), &[1]).unwrap();
    assert_eq!(before.change(&ram).unwrap(), None, "beside");
    ram.write(PhysAddr(0x1002), &[7, 0, 9]).unwrap();
    let change = Change {
        addr: PhysAddr(0x1002),
        old: vec![0, 0, 0],
        new: vec![7, 0, 9],
    };
    assert_eq!(before.change(&ram).unwrap(), Some(change));
}

#[test]
fn twice_is_once_and_removed_is_gone() {
    let mut watched = crossing();
    let again = vec![piece(0xff0, 0x3ff0, 16), piece(0x1000, 0x1000, 16)];
    watched.add(VirtAddr(0xff0), 32, again).unwrap();
    assert_eq!(watched.ranges().len(), 2);
    watched.remove(VirtAddr(0xff0), 16);
    assert_eq!(watched.ranges().len(), 2, "another length is another one");
    watched.remove(VirtAddr(0xff0), 32);
    assert_eq!(watched.ranges(), []);
}

#[test]
fn pages_are_counted_once_and_are_limited() {
    let mut watched = Watched::default();
    let pages = |first: u64, count: u64| {
        let page = |n| piece(n * PAGE, n * PAGE, PAGE);
        (first..first + count).map(page).collect::<Vec<_>>()
    };
    let most = MOST_PAGES as u64;
    watched.add(VirtAddr(0), 1, pages(0, most)).unwrap();
    watched.add(VirtAddr(8), 1, pages(1, 2)).unwrap();
    let refused = watched.add(VirtAddr(16), 1, pages(most - 1, 2));
    assert_eq!(refused, Err(TooManyPages(MOST_PAGES + 1)));
}
