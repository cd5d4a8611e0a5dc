//! The pump under SIGKILL at every instruction.
//!
//! A child process runs the real pump over shared memory, one instruction at a time; after each
//! the parent looks whether anything in that memory has changed. So every state that a killed
//! backend can leave behind is seen, for the code as it was compiled, and from each of them
//! another pump has to resume such that the driver gets back every chain exactly once. That one
//! is killed at every instruction too.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use vhost_user_backend::VringT;
use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryAtomic, VolatileMemory};

use super::*;
use crate::page_log::GuestRam;
use crate::progress::{Progress, Record};
use crate::pump::{Pump, Serve};
use crate::request::{Finished, Outcome, Request};
use crate::testing::{DEADLINE, memfd};
use crate::vring::Vring;

const SIZE: u16 = 4;
const AVAIL: u64 = 0x100;
const USED: u64 = 0x200;
/// One byte for each chain, by head: how often it was executed.
const DATA: u64 = 0x300;
const MEMORY: usize = 0x1000;

/// All that survives a backend: the ring and the record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) memory: Vec<u8>,
    pub(super) record: Vec<u8>,
}

/// The same mapped, so that a backend can resume from it.
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
        let shape = Shape::new(1, SIZE, 1, false).unwrap();
        let (place, file) = create(shape).unwrap();
        let region = Region::map(&place, file, 1, false).unwrap();
        let slice = region.map.as_volatile_slice();
        slice.copy_from(&state.record);
        World {
            memory,
            region: Arc::new(region),
        }
    }

    fn state(&self) -> State {
        let mut state = State {
            memory: vec![0; 0x400],
            record: vec![0; self.region.shape.bytes()],
        };
        self.memory
            .read_slice(&mut state.memory, GuestAddress(0))
            .unwrap();
        let slice = self.region.map.as_volatile_slice();
        slice.copy_to(&mut state.record[..]);
        state
    }

    /// A backend that has just started, with the ring's position from guest memory. It lives for
    /// so many turns, of which each completes a chain at least, however slow the stepping.
    fn backend(&self, pace: Pace, turns: u16) -> impl FnMut() + use<> {
        let memory = GuestMemoryAtomic::new(self.memory.clone());
        let vring = Vring::new(memory.clone(), SIZE).unwrap();
        vring.set_queue_size(SIZE);
        vring.set_queue_info(0, AVAIL, USED).unwrap();
        vring.set_queue_ready(true);
        vring.set_enabled(true);
        let record = Record::default();
        let mut pump = Pump::new().unwrap();
        pump.set_memory(&memory);
        pump.set_record(record.clone());
        let region = Arc::clone(&self.region);
        move || {
            let used = vring.queue_used_idx().unwrap();
            vring.set_queue_next_used(used);
            let (tracker, next_avail) = Tracker::recover(&region, 0, SIZE, used).unwrap();
            vring.set_queue_next_avail(next_avail.unwrap_or(used));
            *record.lock() = Progress::Split(Some(tracker));
            let mut kept = Vec::new();
            for _ in 0..turns {
                let kept = &mut kept;
                pump.run(&vring, Executor { pace, kept }).unwrap();
            }
        }
    }
}

/// When a device finishes a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    AtOnce,
    /// Later, so many at a time, the newest first.
    Later(usize),
}

/// A device that counts how often a chain was executed, in the chain itself.
pub(super) struct Executor<'a> {
    pub(super) pace: Pace,
    pub(super) kept: &'a mut Vec<Request>,
}

impl Serve for Executor<'_> {
    fn process(&mut self, memory: &GuestRam, request: &mut Request) -> Outcome {
        if self.pace == Pace::AtOnce {
            execute(memory, request);
            return Outcome::Done(1);
        }
        self.kept.push(request.keep());
        Outcome::Pending
    }

    fn poll(&mut self, finished: &mut Finished) {
        let Pace::Later(count) = self.pace else {
            return;
        };
        for request in (0..count).map_while(|_| self.kept.pop()) {
            execute(request.memory(), &request);
            finished.push(request, 1);
        }
    }
}

fn execute(memory: &GuestRam, request: &Request) {
    let mut count = [0];
    let writable = &request.chain.writable;
    writable.read(memory, 0, &mut count).unwrap();
    writable.write(memory, 0, &[count[0] + 1]).unwrap();
}

/// The driver: what it has given away, and what came back.
#[derive(Clone)]
struct Driver {
    avail: u16,
    used: u16,
    away: BTreeSet<u16>,
}

impl Driver {
    fn word(state: &State, at: u64) -> u16 {
        let at = at as usize;
        u16::from_le_bytes([state.memory[at], state.memory[at + 1]])
    }

    fn put(state: &mut State, at: u64, bytes: &[u8]) {
        let at = at as usize;
        state.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the chain at `head` available.
    fn add(&mut self, state: &mut State, head: u16) {
        assert!(self.away.insert(head));
        Self::put(state, DATA + u64::from(head), &[0]);
        let slot = AVAIL + 4 + 2 * u64::from(self.avail % SIZE);
        Self::put(state, slot, &head.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
        Self::put(state, AVAIL + 2, &self.avail.to_le_bytes());
    }

    /// Takes back what was used; each of it was away, and executed.
    fn collect(&mut self, state: &State) -> Vec<u16> {
        let mut back = Vec::new();
        while self.used != Self::word(state, USED + 2) {
            let slot = USED + 4 + 8 * u64::from(self.used % SIZE);
            let head = Self::word(state, slot);
            assert!(self.away.remove(&head), "chain {head} came back twice");
            assert_ne!(state.memory[(DATA + u64::from(head)) as usize], 0);
            self.used = self.used.wrapping_add(1);
            back.push(head);
        }
        back
    }
}

/// A ring at `start` with `heads` available.
fn ring(start: u16, heads: &[u16]) -> (State, Driver) {
    let mut state = State {
        memory: vec![0; 0x400],
        record: vec![0; Shape::new(1, SIZE, 1, false).unwrap().bytes()],
    };
    for head in 0..SIZE {
        let flags = VRING_DESC_F_WRITE as u16;
        let descriptor = Descriptor::new(DATA + u64::from(head), 1, flags, 0);
        let raw = RawDescriptor::from(descriptor);
        let bytes = vm_memory::ByteValued::as_slice(&raw);
        Driver::put(&mut state, 16 * u64::from(head), bytes);
    }
    Driver::put(&mut state, USED + 2, &start.to_le_bytes());
    let mut driver = Driver {
        avail: start,
        used: start,
        away: BTreeSet::new(),
    };
    for &head in heads {
        driver.add(&mut state, head);
    }
    (state, driver)
}

/// Runs `action` in a child, one instruction at a time, and calls `look` after each.
fn step(action: impl FnMut(), mut look: impl FnMut()) -> u64 {
    // SAFETY: the child only runs `action`, which touches no lock that another thread of this
    // process could have held at the fork, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: takes no pointer that is used.
        if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
            // SAFETY: ends the child without running anything of the test's.
            unsafe { libc::_exit(2) };
        }
        // SAFETY: takes no pointer.
        unsafe { libc::raise(libc::SIGSTOP) };
        let failed = std::panic::catch_unwind(AssertUnwindSafe(action)).is_err();
        // SAFETY: ends the child without running anything of the test's.
        unsafe { libc::_exit(failed.into()) };
    }
    let deadline = Instant::now() + 6 * DEADLINE;
    let mut steps = 0;
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable for the call; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0);
            return steps;
        }
        assert!(libc::WIFSTOPPED(status), "status {status:#x}");
        assert!(Instant::now() < deadline, "{steps} instructions and no end");
        if steps == 0 {
            // A test that fails takes the child with it.
            // SAFETY: the child is stopped under our trace; the data are flags.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, libc::PTRACE_O_EXITKILL) };
        }
        look();
        steps += 1;
        // SAFETY: the child is stopped under our trace; neither address nor data is used.
        let stepped = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child, 0, 0) };
        assert_eq!(stepped, 0);
    }
}

/// Every state that a backend killed within `turns` turns from `state` can leave.
fn states(state: &State, pace: Pace, turns: u16) -> (BTreeSet<State>, u64) {
    let world = World::new(state);
    states_of(state, world.backend(pace, turns), || world.state())
}

/// Every state that `action` passes through from `state`, as `look` shows it.
pub(super) fn states_of(
    state: &State,
    action: impl FnMut(),
    look: impl Fn() -> State,
) -> (BTreeSet<State>, u64) {
    let mut seen = BTreeSet::from([state.clone()]);
    let mut last = state.clone();
    let steps = step(action, || {
        let now = look();
        if now != last {
            seen.insert(now.clone());
            last = now;
        }
    });
    (seen, steps)
}

/// Lets a backend run to its end from `state`; the driver then has all back.
fn finish(state: &State, pace: Pace, mut driver: Driver) {
    let world = World::new(state);
    world.backend(pace, 2 * SIZE)();
    driver.collect(&world.state());
    assert!(driver.away.is_empty(), "lost: {:?}", driver.away);
}

fn kill_at_any_instruction(pace: Pace) {
    let (state, driver) = ring(u16::MAX, &[2, 0]);
    let (first, mut steps) = states(&state, pace, 3);
    // A new record, and of each chain what the document tells to store.
    assert!(first.len() > 16, "only {} states", first.len());
    let mut count = first.len();
    for mut state in first {
        let mut driver = driver.clone();
        finish(&state, pace, driver.clone());
        // The driver uses the heads again at once, before the next backend comes.
        for head in driver.collect(&state) {
            driver.add(&mut state, head);
        }
        let (second, more) = states(&state, pace, 1);
        steps += more;
        count += second.len();
        for state in second {
            finish(&state, pace, driver.clone());
        }
    }
    println!("{count} states in {steps} instructions");
}

#[test]
fn killed_at_any_instruction_it_loses_nothing_and_repeats_nothing() {
    kill_at_any_instruction(Pace::AtOnce);
}

#[test]
fn killed_with_requests_pending_it_loses_nothing_and_repeats_nothing() {
    kill_at_any_instruction(Pace::Later(1));
}

#[test]
fn killed_while_it_completes_several_it_loses_nothing_and_repeats_nothing() {
    kill_at_any_instruction(Pace::Later(2));
}
