use std::cell::Cell;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::arch::Registers;
use crate::linux::Linux;
use crate::linux::image::AREA;
use crate::linux::memory::Snapshot;
use crate::linux::testing::Paged;
use crate::target::{PhysAddr, SharedMemory, TargetError};

/// Memory that can be read once it is `open`; and how often it was.
#[derive(Default)]
struct Gate {
    ram: Vec<u8>,
    open: Mutex<bool>,
    changed: Condvar,
    reads: Mutex<usize>,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn reads(&self) -> usize {
        *self.reads.lock().unwrap()
    }
}

impl SharedMemory for Gate {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
        *self.reads.lock().unwrap() += 1;
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_while(open, |open| !*open).unwrap());
        let start = addr.0 as usize;
        let bytes = self.ram.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(addr))?);
        Ok(())
    }
}

/// One vCPU in 64-bit mode.
#[derive(Default)]
struct Guarded {
    gate: Arc<Gate>,
    epoch: Cell<u64>,
}

impl Guest for Guarded {
    fn registers(&self) -> Vec<Option<Registers>> {
        vec![Some(Paged::new().registers)]
    }

    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
        self.gate.read(addr, buf)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            registers: self.registers(),
            memory: self.gate.clone(),
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch.get()
    }
}

#[test]
fn a_search_ends_when_nobody_wants_to_know() {
    let guest = Guarded::default();
    let search = Search::start(&guest, None);
    drop(search);
    guest.gate.open();
    // Its thread lets go of the memory.
    let deadline = Instant::now() + Duration::from_secs(20);
    while Arc::strong_count(&guest.gate) > 1 {
        assert!(Instant::now() < deadline, "the search does not end");
        thread::yield_now();
    }
    assert!(guest.gate.reads() <= 1);
}

#[test]
fn what_was_not_found_while_the_guest_ran_is_looked_for_again() {
    let mut paged = Paged::new();
    paged.place(AREA.start, 0x1000, b"no symbols");
    for runs in [false, true] {
        let guest = Guarded {
            gate: Arc::new(Gate {
                ram: paged.ram.clone(),
                ..Gate::default()
            }),
            epoch: Cell::default(),
        };
        let mut linux = Linux::new(None);
        linux.look_again(&guest);
        guest.epoch.set(u64::from(runs));
        guest.gate.open();
        linux.finish_search(&guest);
        let looked = guest.gate.reads();
        assert_eq!(linux.kernel(&guest).err(), Some(NotFound::NoSymbols));
        assert_eq!(guest.gate.reads() > looked, runs);
    }
}

#[test]
fn a_search_is_not_begun_again_for_the_next_client() {
    let guest = Guarded::default();
    let mut linux = Linux::new(None);
    for _ in 0..10 {
        linux.look_again(&guest);
    }
    guest.gate.open();
    linux.finish_search(&guest);
    // An entry of the first page table, which is not there.
    assert_eq!(guest.gate.reads(), 1);
}
