use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::virtio::page::RegisterPage;

const BASE: u64 = 4 << 30;

/// Notes what is mapped: where, how long, and whether the guest may write.
#[derive(Default)]
struct Host(Mutex<BTreeMap<u64, (usize, bool)>>);

impl Host {
    fn mapped(&self) -> Vec<(u64, usize, bool)> {
        let mapped = self.0.lock().unwrap();
        let entry = |(at, (len, writable)): (&u64, &(usize, bool))| (*at, *len, *writable);
        mapped.iter().map(entry).collect()
    }
}

impl Hypervisor for Host {
    fn add_ioeventfd(&self, _: GuestAddress, _: u32, _: &EventFd) -> io::Result<()> {
        unreachable!()
    }

    fn remove_ioeventfd(&self, _: GuestAddress, _: u32, _: &EventFd) -> io::Result<()> {
        unreachable!()
    }

    fn add_irqfd(&self, _: u32, _: &EventFd) -> io::Result<()> {
        unreachable!()
    }

    fn map_read_only(&self, _: GuestAddress, _: &Arc<RegisterPage>) -> io::Result<()> {
        unreachable!()
    }

    fn map(&self, addr: GuestAddress, mapping: FileMapping) -> io::Result<()> {
        let entry = (mapping.len(), mapping.is_writable());
        assert!(self.0.lock().unwrap().insert(addr.0, entry).is_none());
        Ok(())
    }

    fn replace_if_cut(&self, _: GuestAddress) {
        unreachable!()
    }

    fn unmap(&self, addr: GuestAddress) -> io::Result<()> {
        assert!(self.0.lock().unwrap().remove(&addr.0).is_some());
        Ok(())
    }
}

/// Two regions, of which number 2 has four pages, and a file of three pages.
fn memory() -> (Arc<Host>, SharedMemory, File) {
    let host = Arc::new(Host::default());
    let region = |id, at, pages| SharedRegion {
        id,
        base: GuestAddress(BASE + at),
        len: pages * PAGE,
    };
    let regions = vec![region(0, 0, 1), region(2, 1 << 20, 4)];
    let memory = SharedMemory::new(host.clone(), regions).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(3 * PAGE).unwrap();
    (host, memory, file)
}

/// Places and lengths are in pages.
fn asked(shmid: u8, fd_offset: u64, shm_offset: u64, len: u64, flags: u64) -> VhostUserMMap {
    VhostUserMMap {
        shmid,
        padding: [0; 7],
        fd_offset: fd_offset * PAGE,
        shm_offset: shm_offset * PAGE,
        len: len * PAGE,
        flags,
    }
}

#[test]
fn files_are_mapped_where_the_region_is_and_unmapped_whole() {
    let (host, memory, file) = memory();
    let (first, second) = (asked(2, 0, 0, 1, 1), asked(2, 1, 1, 2, 0));
    memory.map(&first, Some(&file)).unwrap();
    memory.map(&second, Some(&file)).unwrap();
    let region = BASE + (1 << 20);
    let page = PAGE as usize;
    let both = [(region, page, true), (region + PAGE, 2 * page, false)];
    assert_eq!(host.mapped(), both);
    let part = asked(2, 1, 1, 1, 0);
    let error = memory.unmap(&part).unwrap_err();
    assert!(matches!(error, MapError::NotMapped { .. }), "{error}");
    memory.unmap(&second).unwrap();
    assert_eq!(host.mapped(), both[..1]);
    memory.clear().unwrap();
    assert_eq!(host.mapped(), []);
}

#[test]
fn what_cannot_be_mapped_is_refused_by_name() {
    let (host, memory, file) = memory();
    let refuse = |asked: VhostUserMMap, expected: &str| {
        let error = memory.map(&asked, Some(&file)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refuse(asked(1, 0, 0, 1, 0), "no shared memory region 1");
    refuse(asked(0, 0, 0, 2, 0), "leave the region, which has 0x1000");
    refuse(asked(2, 0, 4, 1, 0), "leave the region");
    refuse(asked(2, 0, 0, 0, 0), "leave the region");
    refuse(asked(2, 0, 0, 4, 0), "leave the file, which has 0x3000");
    refuse(asked(2, 3, 0, 1, 0), "leave the file");
    refuse(asked(2, 0, 0, 1, 2), "flags 0x2");
    let odd = VhostUserMMap {
        shm_offset: 1,
        ..asked(2, 0, 0, 1, 0)
    };
    refuse(odd, "not whole pages");
    let far = VhostUserMMap {
        shm_offset: !(PAGE - 1),
        ..asked(2, 0, 0, 1, 0)
    };
    refuse(far, "leave the region");
    let high = VhostUserMMap {
        fd_offset: !(PAGE - 1),
        ..asked(2, 0, 0, 1, 0)
    };
    refuse(high, "leave the file");
    let error = memory.map(&asked(0, 0, 0, 1, 0), None).unwrap_err();
    assert!(matches!(error, MapError::NoFile), "{error}");
    assert_eq!(host.mapped(), []);
}

#[test]
fn a_backend_maps_nothing_over_its_own_but_over_what_another_left() {
    let (host, memory, file) = memory();
    memory.map(&asked(2, 0, 0, 2, 0), Some(&file)).unwrap();
    let over = asked(2, 0, 1, 2, 0);
    let error = memory.map(&over, Some(&file)).unwrap_err();
    assert!(matches!(error, MapError::Overlap { .. }), "{error}");
    memory.inherit();
    assert_eq!(host.mapped().len(), 1, "the guest keeps it");
    memory.map(&over, Some(&file)).unwrap();
    let region = BASE + (1 << 20);
    assert_eq!(host.mapped(), [(region + PAGE, 2 * PAGE as usize, false)]);
}
