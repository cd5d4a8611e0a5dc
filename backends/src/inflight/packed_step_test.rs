//! The pump on a packed ring under SIGKILL at every instruction, as
//! [`step_tests`](super::super::step_tests) has it on a split one.

use std::collections::BTreeMap;

use vhost_user_backend::VringT;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryAtomic, VolatileMemory};

use super::super::create;
use super::super::step_tests::{Executor, Pace, State, states_of};
use super::*;
use crate::packed::{Layout, PackedRing};
use crate::page_log::GuestRam;
use crate::progress::{Progress, Record};
use crate::pump::Pump;
use crate::testing::memfd;
use crate::vring::Vring;

const SIZE: u16 = 4;
const DRIVER_EVENTS: u64 = 0x100;
const DEVICE_EVENTS: u64 = 0x110;
/// One byte for each chain, by id: how often it was executed.
const DATA: u64 = 0x300;
const MEMORY: usize = 0x1000;
/// Before the ring's end, so that a chain spans it.
const START: Position = Position {
    index: 3,
    wrap: true,
};
const WRITE: u16 = 2;
const NEXT: u16 = 1;

struct World {
    memory: GuestRam,
    region: Arc<Region>,
}

impl World {
    fn new(state: &State) -> Self {
        let file = memfd(MEMORY as u64);
        let range = (GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)));
        let memory = GuestRam::from_ranges_with_files([range]).unwrap();
        memory.write_slice(&state.memory, GuestAddress(0)).unwrap();
        let shape = Shape::new(1, SIZE, 1, true).unwrap();
        let (place, file) = create(shape).unwrap();
        let region = Region::map(&place, file, 1, true).unwrap();
        region.map.as_volatile_slice().copy_from(&state.record);
        World {
            memory,
            region: Arc::new(region),
        }
    }

    fn state(&self) -> State {
        let mut memory = vec![0; 0x400];
        self.memory
            .read_slice(&mut memory, GuestAddress(0))
            .unwrap();
        let mut record = vec![0; self.region.shape.bytes()];
        self.region.map.as_volatile_slice().copy_to(&mut record[..]);
        State { memory, record }
    }

    /// A backend that has just started; it lives for so many turns.
    fn backend(&self, pace: Pace, turns: u16) -> impl FnMut() + use<> {
        let memory = GuestMemoryAtomic::new(self.memory.clone());
        let vring = Vring::new(memory.clone(), SIZE).unwrap();
        vring.set_queue_ready(true);
        vring.set_enabled(true);
        let record = Record::default();
        let mut pump = Pump::new().unwrap();
        pump.set_memory(&memory);
        pump.set_record(record.clone());
        let (region, guest) = (Arc::clone(&self.region), self.memory.clone());
        move || {
            let layout = Layout {
                size: SIZE,
                descriptors: GuestAddress(0),
                driver_events: GuestAddress(DRIVER_EVENTS),
                device_events: GuestAddress(DEVICE_EVENTS),
                event_idx: false,
            };
            let start = u32::from(START.bits());
            let mut ring = PackedRing::new(layout, start | start << 16).unwrap();
            let flags = |slot| ring.flags(&guest, slot);
            let recovered = Tracker::recover(&region, 0, SIZE, START, flags);
            ring.resume(recovered.unwrap().unwrap()).unwrap();
            *record.lock() = Progress::Packed(ring);
            let mut kept = Vec::new();
            for _ in 0..turns {
                let kept = &mut kept;
                pump.run(&vring, Executor { pace, kept }).unwrap();
            }
        }
    }
}

/// The driver: where it stands, and what it has given away, with the descriptors of each chain.
#[derive(Clone)]
struct Driver {
    next: Position,
    seen: Position,
    away: BTreeMap<u16, u16>,
}

impl Driver {
    fn flags(state: &State, position: Position) -> u16 {
        let at = 16 * usize::from(position.index) + 14;
        u16::from_le_bytes([state.memory[at], state.memory[at + 1]])
    }

    /// Makes a chain of `slots` descriptors available.
    fn add(&mut self, state: &mut State, id: u16, slots: u16) {
        assert!(self.away.insert(id, slots).is_none());
        state.memory[(DATA + u64::from(id)) as usize] = 0;
        let first = self.next;
        for slot in 0..slots {
            let at = 16 * usize::from(self.next.index);
            let data = DATA + u64::from(id) + u64::from(slot) * 0x40;
            let next = if slot + 1 < slots { NEXT } else { 0 };
            let flags = WRITE | next | self.next.available();
            let bytes = &mut state.memory[at..at + 16];
            bytes[..8].copy_from_slice(&data.to_le_bytes());
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
            bytes[12..14].copy_from_slice(&id.to_le_bytes());
            bytes[14..].copy_from_slice(&flags.to_le_bytes());
            self.next = self.next.advanced(1, SIZE);
        }
        assert_ne!(first, self.next);
    }

    /// Takes back what was used; each of it was away, and executed.
    fn collect(&mut self, state: &State) -> Vec<(u16, u16)> {
        let mut back = Vec::new();
        let used = |position: Position| if position.wrap { OWNER } else { 0 };
        while !self.away.is_empty() && Self::flags(state, self.seen) & OWNER == used(self.seen) {
            let at = 16 * usize::from(self.seen.index) + 12;
            let id = u16::from_le_bytes([state.memory[at], state.memory[at + 1]]);
            let slots = self.away.remove(&id);
            let slots = slots.unwrap_or_else(|| panic!("chain {id} came back twice"));
            assert_ne!(state.memory[(DATA + u64::from(id)) as usize], 0);
            self.seen = self.seen.advanced(slots, SIZE);
            back.push((id, slots));
        }
        back
    }
}

/// Lets a backend run to its end from `state`; the driver then has all back.
fn finish(state: &State, pace: Pace, mut driver: Driver) {
    let world = World::new(state);
    world.backend(pace, 2 * SIZE)();
    driver.collect(&world.state());
    assert!(driver.away.is_empty(), "lost: {:?}", driver.away);
}

fn kill_at_any_instruction(pace: Pace) {
    let mut state = State {
        memory: vec![0; 0x400],
        record: vec![0; Shape::new(1, SIZE, 1, true).unwrap().bytes()],
    };
    let mut driver = Driver {
        next: START,
        seen: START,
        away: BTreeMap::new(),
    };
    driver.add(&mut state, 2, 2);
    driver.add(&mut state, 0, 1);
    let run = |state: &State, turns| {
        let world = World::new(state);
        states_of(state, world.backend(pace, turns), || world.state())
    };
    let (first, mut steps) = run(&state, 3);
    // A new record, and of each chain what the document tells to store.
    assert!(first.len() > 30, "only {} states", first.len());
    let mut count = first.len();
    for mut state in first {
        let mut driver = driver.clone();
        finish(&state, pace, driver.clone());
        // The driver uses the descriptors again at once, before the next backend comes.
        for (id, slots) in driver.collect(&state) {
            driver.add(&mut state, id, slots);
        }
        let (second, more) = run(&state, 1);
        steps += more;
        count += second.len();
        for state in second {
            finish(&state, pace, driver.clone());
        }
    }
    println!("{count} states in {steps} instructions");
}

#[test]
fn killed_at_any_instruction_a_packed_ring_loses_nothing_and_repeats_nothing() {
    kill_at_any_instruction(Pace::AtOnce);
}

#[test]
fn killed_with_requests_pending_a_packed_ring_loses_nothing_and_repeats_nothing() {
    kill_at_any_instruction(Pace::Later(1));
}

#[test]
fn killed_while_it_completes_several_a_packed_ring_loses_nothing_and_repeats_nothing() {
    kill_at_any_instruction(Pace::Later(2));
}
