use std::collections::BTreeMap;
use std::sync::Arc;

use super::descriptor::INDIRECT;
use super::position::{AVAIL, USED};
use super::*;
use crate::inflight::{Region, Shape, create};

const DESCRIPTORS: u64 = 0;
const DRIVER_EVENTS: u64 = 0x800;
const DEVICE_EVENTS: u64 = 0x900;
const TABLE: u64 = 0xa00;

/// As offsets in guest memory.
const DESCRIPTOR: u64 = descriptor::SIZE as u64;
const LEN: u64 = super::LEN as u64;
const ID: u64 = super::ID as u64;
const FLAGS: u64 = super::FLAGS as u64;
const EVENT_FLAGS: u64 = super::EVENT_FLAGS as u64;

fn load(memory: &GuestRam, at: GuestAddress) -> io::Result<u16> {
    memory.load(at, Ordering::Acquire).map_err(io::Error::other)
}

fn store(memory: &GuestRam, at: GuestAddress, value: u16) -> io::Result<()> {
    let stored = memory.store(value, at, Ordering::Release);
    stored.map_err(io::Error::other)
}

fn read<T: vm_memory::ByteValued>(memory: &GuestRam, at: GuestAddress) -> io::Result<T> {
    memory.read_obj(at).map_err(io::Error::other)
}

fn write<T: vm_memory::ByteValued>(
    memory: &GuestRam,
    at: GuestAddress,
    value: T,
) -> io::Result<()> {
    memory.write_obj(value, at).map_err(io::Error::other)
}

/// The driver's side of a ring (section 2.8.21), in a device's memory.
struct Driver {
    memory: Arc<GuestRam>,
    areas: Areas<RamArea>,
    layout: Layout,
    next: Position,
    seen: Position,
    /// Chains that the device has, by id, and how many descriptors each has.
    out: BTreeMap<u16, u16>,
}

impl Driver {
    fn new(size: u16, event_idx: bool) -> Self {
        let memory = Arc::new(GuestRam::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap());
        let layout = Layout {
            size,
            descriptors: GuestAddress(DESCRIPTORS),
            driver_events: GuestAddress(DRIVER_EVENTS),
            device_events: GuestAddress(DEVICE_EVENTS),
            event_idx,
        };
        let spans = PackedRing::new(layout, 0x8000_8000).unwrap().spans();
        Driver {
            areas: Areas::find(&memory, spans).unwrap(),
            memory,
            layout,
            next: Position::START,
            seen: Position::START,
            out: BTreeMap::new(),
        }
    }

    fn ring(&self) -> PackedRing {
        PackedRing::new(self.layout, 0x8000_8000).unwrap()
    }

    fn set(&self, at: u64, descriptor: Descriptor) {
        let at = GuestAddress(at);
        write(&self.memory, at, descriptor.addr).unwrap();
        write(&self.memory, at.unchecked_add(LEN), descriptor.len).unwrap();
        write(&self.memory, at.unchecked_add(ID), descriptor.id).unwrap();
        write(&self.memory, at.unchecked_add(FLAGS), descriptor.flags).unwrap();
    }

    /// Adds a chain of buffers, given by address and flags, under `id`.
    fn add(&mut self, id: u16, buffers: &[(u64, u16)]) {
        for (i, (addr, flags)) in buffers.iter().enumerate() {
            let last = i + 1 == buffers.len();
            let next = if last { 0 } else { NEXT };
            self.put(id, *addr, flags | next);
        }
        self.out.insert(id, buffers.len() as u16);
    }

    /// One descriptor of 8 bytes with exactly these flags, but for whose it is.
    fn put(&mut self, id: u16, addr: u64, flags: u16) {
        let flags = flags | self.next.available();
        let at = DESCRIPTORS + DESCRIPTOR * u64::from(self.next.index);
        let len = 8;
        self.set(
            at,
            Descriptor {
                addr,
                len,
                id,
                flags,
            },
        );
        self.next = self.next.advanced(1, self.layout.size);
    }

    /// Takes the next used chain: its id and length.
    fn take(&mut self) -> Option<(u16, u32)> {
        let at = DESCRIPTORS + DESCRIPTOR * u64::from(self.seen.index);
        let flags = load(&self.memory, GuestAddress(at + FLAGS)).unwrap();
        if flags & OWNER != self.seen.used() {
            return None;
        }
        let id: u16 = read(&self.memory, GuestAddress(at + ID)).unwrap();
        let len: u32 = read(&self.memory, GuestAddress(at + LEN)).unwrap();
        let slots = self.out.remove(&id).expect("a chain that the device had");
        self.seen = self.seen.advanced(slots, self.layout.size);
        Some((id, len))
    }
}

fn take(ring: &mut PackedRing, driver: &Driver, chain: &mut Chain) -> Option<u16> {
    let taken = ring.take(&driver.memory, &driver.areas, chain).unwrap();
    taken.map(|(handle, chain)| {
        chain.unwrap();
        handle
    })
}

#[test]
fn chains_of_every_length_come_back_in_any_order_lap_after_lap() {
    let mut driver = Driver::new(5, false);
    let mut ring = driver.ring();
    let mut chain = Chain::default();
    for lap in 0..40u16 {
        let (first, second) = (lap % 3 + 1, (lap / 3) % 2 + 1);
        let buffers = |count| vec![(0x1000, 0); usize::from(count)];
        driver.add(7, &buffers(first));
        driver.add(9, &buffers(second));
        let one = take(&mut ring, &driver, &mut chain).unwrap();
        assert_eq!(chain.readable.len(), 8 * u64::from(first));
        let two = take(&mut ring, &driver, &mut chain).unwrap();
        assert_eq!(chain.readable.len(), 8 * u64::from(second));
        assert_eq!(take(&mut ring, &driver, &mut chain), None);
        assert_eq!(driver.take(), None);
        // In the order in which they came, the other way around, and at once.
        match lap % 3 {
            0 => {
                ring.complete(&driver.areas, &[(one, 1)]).unwrap();
                assert_eq!(driver.take(), Some((7, 1)));
                ring.complete(&driver.areas, &[(two, 2)]).unwrap();
                assert_eq!(driver.take(), Some((9, 2)));
            }
            1 => {
                ring.complete(&driver.areas, &[(two, 2)]).unwrap();
                assert_eq!(driver.take(), Some((9, 2)));
                ring.complete(&driver.areas, &[(one, 1)]).unwrap();
                assert_eq!(driver.take(), Some((7, 1)));
            }
            _ => {
                let both = [(two, 2), (one, 0)];
                ring.complete(&driver.areas, &both).unwrap();
                assert_eq!(driver.take(), Some((9, 2)));
                assert_eq!(driver.take(), Some((7, 0)));
            }
        }
        assert_eq!(driver.take(), None);
        let stands = u32::from(driver.next.bits());
        assert_eq!(ring.base(), stands | stands << 16);
    }
}

#[test]
fn what_is_put_back_is_the_next_again() {
    let mut driver = Driver::new(4, false);
    let mut ring = driver.ring();
    let mut chain = Chain::default();
    for id in 0..30 {
        driver.add(id, &[(0x1000, 0), (0x2000, WRITE), (0x3000, WRITE)]);
        let before = ring.available;
        let handle = take(&mut ring, &driver, &mut chain).unwrap();
        ring.put_back(handle).unwrap();
        assert_eq!(ring.available, before);
        let handle = take(&mut ring, &driver, &mut chain).unwrap();
        assert_eq!((chain.readable.len(), chain.writable.len()), (8, 16));
        ring.complete(&driver.areas, &[(handle, 16)]).unwrap();
        assert_eq!(driver.take(), Some((id, 16)));
    }
}

#[test]
fn a_table_is_a_chain_in_its_own_order() {
    let mut driver = Driver::new(4, false);
    let mut ring = driver.ring();
    let entry = |addr, flags| Descriptor {
        addr,
        len: 4,
        id: 0xffff,
        flags,
    };
    driver.set(TABLE, entry(0x1000, 0));
    driver.set(TABLE + 16, entry(0x2000, WRITE));
    driver.set(TABLE + 32, entry(0x3000, WRITE));
    let at = GuestAddress(DESCRIPTORS);
    driver.put(3, TABLE, INDIRECT);
    write(&driver.memory, at.unchecked_add(LEN), 48u32).unwrap();
    driver.out.insert(3, 1);
    let mut chain = Chain::default();
    let handle = take(&mut ring, &driver, &mut chain).unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (4, 8));
    ring.complete(&driver.areas, &[(handle, 8)]).unwrap();
    assert_eq!(driver.take(), Some((3, 8)));
}

#[test]
fn what_cannot_be_followed_comes_back_all_the_same() {
    let check = |prepare: &dyn Fn(&mut Driver)| {
        let mut driver = Driver::new(4, false);
        let mut ring = driver.ring();
        prepare(&mut driver);
        let mut chain = Chain::default();
        let (handle, result) = ring
            .take(&driver.memory, &driver.areas, &mut chain)
            .unwrap()
            .unwrap();
        ring.complete(&driver.areas, &[(handle, 0)]).unwrap();
        assert_eq!(driver.take(), Some((1, 0)));
        result.unwrap_err()
    };
    // A chain around the whole ring, without an end.
    let endless = check(&|driver| {
        (0..4).for_each(|_| driver.put(1, 0x1000, NEXT));
        driver.out.insert(1, 4);
    });
    assert!(matches!(endless, ChainError::CutShort(4)), "{endless}");
    // A table that is not a whole number of descriptors (8 bytes).
    let odd = check(&|driver| driver.add(1, &[(TABLE, INDIRECT)]));
    assert!(matches!(odd, ChainError::Empty), "{odd}");
    // A table in the middle of a chain.
    let mixed = check(&|driver| driver.add(1, &[(0x1000, 0), (TABLE, INDIRECT)]));
    assert!(matches!(mixed, ChainError::CutShort(1)), "{mixed}");
    let order = check(&|driver| driver.add(1, &[(0x1000, WRITE), (0x2000, 0)]));
    assert!(matches!(order, ChainError::Order(1)), "{order}");
}

#[test]
fn a_driver_cannot_have_more_in_flight_than_the_ring_holds() {
    let mut driver = Driver::new(4, false);
    let mut ring = driver.ring();
    let mut chain = Chain::default();
    for id in 0..4 {
        driver.add(id, &[(0x1000, 0)]);
        take(&mut ring, &driver, &mut chain).unwrap();
    }
    // It claims another lap, though nothing has come back.
    driver.add(9, &[(0x1000, 0)]);
    assert_eq!(take(&mut ring, &driver, &mut chain), None);
}

#[test]
fn the_driver_hears_of_the_descriptor_it_waits_for() {
    let size = 4;
    for start in 0..2 * size {
        for count in 0..=size {
            for event in 0..2 * size {
                let mut driver = Driver::new(size, true);
                let mut ring = driver.ring();
                let from = Position::START.advanced(start % size, size);
                let from = if start < size {
                    from
                } else {
                    from.advanced(size, size)
                };
                ring.used = from.advanced(count, size);
                ring.untold = count;
                let awaited = from.advanced(event.min(size), size);
                driver.next = awaited;
                write(&driver.memory, driver.layout.driver_events, awaited.bits()).unwrap();
                let at = driver.layout.driver_events.unchecked_add(EVENT_FLAGS);
                store(&driver.memory, at, VRING_PACKED_EVENT_FLAG_DESC as u16).unwrap();
                let expected = event.min(size) < count;
                let wants = ring.driver_wants_notification(&driver.areas).unwrap();
                assert_eq!(wants, expected, "{start} {count} {event}");
            }
        }
    }
}

#[test]
fn a_kick_is_asked_for_before_the_ring_is_left() {
    for event_idx in [false, true] {
        let mut driver = Driver::new(4, event_idx);
        let ring = driver.ring();
        let flags = |driver: &Driver| {
            let at = GuestAddress(DEVICE_EVENTS + EVENT_FLAGS);
            u32::from(load(&driver.memory, at).unwrap())
        };
        ring.disable_notification(&driver.areas).unwrap();
        assert_eq!(flags(&driver), VRING_PACKED_EVENT_FLAG_DISABLE);
        assert!(ring.is_exhausted(&driver.areas).unwrap());
        if event_idx {
            assert_eq!(flags(&driver), VRING_PACKED_EVENT_FLAG_DESC);
            let event = load(&driver.memory, GuestAddress(DEVICE_EVENTS)).unwrap();
            assert_eq!(Position::from_bits(event), ring.available);
        } else {
            assert_eq!(flags(&driver), VRING_PACKED_EVENT_FLAG_ENABLE);
        }
        driver.add(0, &[(0x1000, 0)]);
        assert!(!ring.is_exhausted(&driver.areas).unwrap());
        assert_eq!(flags(&driver), VRING_PACKED_EVENT_FLAG_DISABLE);
    }
}

#[test]
fn a_base_of_0_is_the_beginning_of_a_ring_that_nobody_has_used() {
    let mut driver = Driver::new(4, false);
    let begun = |driver: &Driver| {
        let mut ring = PackedRing::new(driver.layout, 0).unwrap();
        ring.begin_if_unused(&*driver.memory).unwrap();
        ring.used
    };
    assert_eq!(begun(&driver), Position::START);
    // Once around, the other wrap counter is meant.
    (0..4).for_each(|_| driver.put(0, 0x1000, 0));
    assert_eq!(begun(&driver), Position::from_bits(0));
}

#[test]
fn a_base_may_have_one_position_for_both() {
    let driver = Driver::new(4, false);
    let ring = PackedRing::new(driver.layout, 0x8003).unwrap();
    assert_eq!(ring.base(), 0x8003_8003);
}

/// A packet may need both.
#[test]
fn what_is_left_is_taken_one_behind_the_other() {
    let shape = Shape::new(1, 4, 1, true).unwrap();
    let (place, file) = create(shape).unwrap();
    let region = Region::map(&place, file, 1, true).unwrap();
    let region = Arc::new(region);
    let recovered =
        || Tracker::recover(&region, 0, 4, Position::START, |_| Ok::<_, ()>(AVAIL)).unwrap();
    let mut driver = Driver::new(4, false);
    let mut chain = Chain::default();
    driver.add(5, &[(0x1000, WRITE)]);
    driver.add(6, &[(0x1000, WRITE), (0x2000, WRITE)]);
    let mut killed = driver.ring();
    killed.resume(recovered().unwrap()).unwrap();
    take(&mut killed, &driver, &mut chain).unwrap();
    take(&mut killed, &driver, &mut chain).unwrap();

    let mut ring = driver.ring();
    ring.resume(recovered().unwrap()).unwrap();
    let mut both = || {
        let first = take(&mut ring, &driver, &mut chain).unwrap();
        assert_eq!(chain.writable.len(), 8);
        let second = take(&mut ring, &driver, &mut chain).unwrap();
        assert_eq!(chain.writable.len(), 16);
        assert_eq!(take(&mut ring, &driver, &mut chain), None);
        (first, second)
    };
    let (first, second) = both();
    ring.put_back(second).unwrap();
    ring.put_back(first).unwrap();
    let mut both = || {
        let first = take(&mut ring, &driver, &mut chain).unwrap();
        (first, take(&mut ring, &driver, &mut chain).unwrap())
    };
    let (first, second) = both();
    ring.complete(&driver.areas, &[(first, 8), (second, 16)])
        .unwrap();
    assert_eq!(driver.take(), Some((5, 8)));
    assert_eq!(driver.take(), Some((6, 16)));
}

#[test]
fn a_base_outside_the_ring_is_refused() {
    let driver = Driver::new(4, false);
    for base in [0x8000_8004, 0x8004_8000, 0x7fff_7fff] {
        let error = PackedRing::new(driver.layout, base).unwrap_err();
        assert_eq!(error.base, base);
    }
}

mod hostile {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::inflight::{Region, Shape, create};

    const SIZE: u16 = 8;

    /// What a driver and its device do, in any order.
    #[derive(Debug, Clone)]
    enum Act {
        Describe(u16, Descriptor),
        Events(u16, u16),
        Take,
        PutBack,
        Complete(usize),
        CompleteAll,
        Look,
        Tell,
    }

    fn acts() -> impl Strategy<Value = Act> {
        let addresses = prop_oneof![8 => 0u64..0x4000, 1 => any::<u64>()];
        let lengths = prop_oneof![8 => 0u32..200, 1 => any::<u32>()];
        let low = prop_oneof![8 => 0u16..8, 1 => any::<u16>()];
        let owner = prop_oneof![4 => Just(AVAIL), 4 => Just(USED), 1 => Just(0), 1 => Just(OWNER)];
        let describe = (0..SIZE, addresses, lengths, any::<u16>(), low, owner).prop_map(
            |(at, addr, len, id, low, owner)| {
                let flags = low & !OWNER | owner;
                Act::Describe(
                    at,
                    Descriptor {
                        addr,
                        len,
                        id,
                        flags,
                    },
                )
            },
        );
        prop_oneof![
            12 => describe,
            1 => (any::<u16>(), any::<u16>()).prop_map(|(event, flags)| Act::Events(event, flags)),
            6 => Just(Act::Take),
            1 => Just(Act::PutBack),
            3 => (0usize..8).prop_map(Act::Complete),
            2 => Just(Act::CompleteAll),
            1 => Just(Act::Look),
            1 => Just(Act::Tell),
        ]
    }

    fn region(bytes: Option<&[u8]>) -> Arc<Region> {
        let shape = Shape::new(1, SIZE, 1, true).unwrap();
        let (place, file) = create(shape).unwrap();
        let region = Region::map(&place, file, 1, true).unwrap();
        if let Some(bytes) = bytes {
            region.write(bytes);
        }
        Arc::new(region)
    }

    /// Does as told; errors are as good as answers.
    fn torment(driver: &Driver, ring: &mut PackedRing, all: &[Act]) {
        let mut chain = Chain::default();
        let mut held: Vec<u16> = Vec::new();
        let mut last = None;
        for act in all {
            let taken = last.take();
            match act {
                Act::Describe(at, descriptor) => {
                    driver.set(DESCRIPTORS + DESCRIPTOR * u64::from(*at), *descriptor);
                    last = taken;
                }
                Act::Events(event, flags) => {
                    let at = driver.layout.driver_events;
                    write(&driver.memory, at, *event).unwrap();
                    write(&driver.memory, at.unchecked_add(EVENT_FLAGS), *flags).unwrap();
                }
                Act::Take => {
                    if let Ok(Some((handle, _))) =
                        ring.take(&driver.memory, &driver.areas, &mut chain)
                        && !held.contains(&handle)
                    {
                        held.push(handle);
                        last = Some(handle);
                    }
                }
                Act::PutBack => {
                    if let Some(handle) = taken {
                        let _ = ring.put_back(handle);
                        held.retain(|held| *held != handle);
                    }
                }
                Act::Complete(which) if *which < held.len() => {
                    let handle = held.remove(*which);
                    let _ = ring.complete(&driver.areas, &[(handle, 1)]);
                }
                Act::Complete(_) => {}
                Act::CompleteAll => {
                    let all: Vec<_> = held.drain(..).map(|handle| (handle, 0)).collect();
                    let _ = ring.complete(&driver.areas, &all);
                }
                Act::Look => drop(ring.is_exhausted(&driver.areas)),
                Act::Tell => drop(ring.driver_wants_notification(&driver.areas)),
            }
            assert!(ring.outstanding <= SIZE);
            assert!(ring.used.index < SIZE && ring.available.index < SIZE);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_driver_brings_the_ring_out_of_its_bounds(
            all in prop::collection::vec(acts(), 0..200),
            tracked in any::<bool>(),
        ) {
            let driver = Driver::new(SIZE, true);
            let mut ring = driver.ring();
            if tracked {
                let fresh = Tracker::recover(&region(None), 0, SIZE, Position::START, |_| Ok::<_, ()>(0));
                ring.resume(fresh.unwrap().unwrap()).unwrap();
            }
            torment(&driver, &mut ring, &all);
        }

        /// A frontend, too, may hand over anything as the record.
        #[test]
        fn no_record_does(
            mut bytes in prop::collection::vec(prop_oneof![4 => 0u8..9, 1 => any::<u8>()], 320),
            all in prop::collection::vec(acts(), 0..60),
        ) {
            // Version 1, of as many entries: or nothing is looked at.
            bytes[8..12].copy_from_slice(&[1, 0, SIZE as u8, 0]);
            let driver = Driver::new(SIZE, true);
            let mut ring = driver.ring();
            let recovered = Tracker::recover(&region(Some(&bytes)), 0, SIZE, Position::START, |_| Ok::<_, ()>(0));
            if let Ok(Ok(recovered)) = recovered
                && ring.resume(recovered).is_ok()
            {
                torment(&driver, &mut ring, &all);
            }
        }
    }
}
