use super::*;

/// A queue of four at 0x100 (descriptors), 0x200 (available) and 0x300 (used).
struct Memory(Vec<u8>);

const QUEUE: Virtqueue = Virtqueue {
    packed: false,
    size: 4,
    descriptors: PhysAddr(0x100),
    available: PhysAddr(0x200),
    used: PhysAddr(0x300),
};

impl Memory {
    fn new() -> Self {
        Self(vec![0; 0x1000])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn describe(
        &mut self,
        table: usize,
        index: usize,
        (addr, len, flags, next): (u64, u32, u16, u16),
    ) {
        let at = table + 16 * index;
        self.put(at, &addr.to_le_bytes());
        self.put(at + 8, &len.to_le_bytes());
        self.put(at + 12, &flags.to_le_bytes());
        self.put(at + 14, &next.to_le_bytes());
    }

    fn rings(&self) -> Rings {
        Rings::read(&QUEUE, &|at, buf| self.read(at, buf)).unwrap()
    }

    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<()> {
        let start = at.0 as usize;
        let end = start.checked_add(buf.len());
        let bytes = end.and_then(|end| self.0.get(start..end));
        buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(at))?);
        Ok(())
    }

    fn chain(&self, head: u16) -> (Vec<u32>, Option<Broken>) {
        let (links, broken) = self.rings().chain(head, &|at, buf| self.read(at, buf));
        (links.iter().map(|link| link.index).collect(), broken)
    }
}

/// Rings after a driver gave and a device returned these heads.
fn after(given: &[u16], returned: &[u16]) -> Rings {
    let mut memory = Memory::new();
    for (n, head) in given.iter().enumerate() {
        memory.put(0x204 + n % 4 * 2, &head.to_le_bytes());
    }
    for (n, head) in returned.iter().enumerate() {
        memory.put(0x304 + n % 4 * 8, &u32::from(*head).to_le_bytes());
        memory.put(0x308 + n % 4 * 8, &[7]);
    }
    memory.put(0x202, &(given.len() as u16).to_le_bytes());
    memory.put(0x302, &(returned.len() as u16).to_le_bytes());
    memory.rings()
}

#[track_caller]
fn in_flight(given: &[u16], returned: &[u16], heads: &[u16], perhaps: &[u16]) {
    let expected = InFlight {
        count: (given.len() - returned.len()) as u16,
        heads: heads.to_vec(),
        perhaps: perhaps.to_vec(),
    };
    assert_eq!(after(given, returned).in_flight(), expected);
}

#[test]
fn every_field_is_where_the_specification_has_it() {
    let mut memory = Memory::new();
    memory.describe(0x100, 3, (0x1122_3344_5566_7788, 0x99aa_bbcc, 2, 1));
    memory.put(0x200, &[1, 0, 6, 0, 0, 0, 3, 0, 0, 0, 0, 0, 9, 0]);
    memory.put(0x300, &[1, 0, 5, 0]);
    memory.put(0x304 + 8, &[3, 0, 0, 0, 0, 2, 0, 0]);
    memory.put(0x304 + 32, &[8, 0]);
    let rings = memory.rings();
    let expected = Descriptor {
        addr: PhysAddr(0x1122_3344_5566_7788),
        len: 0x99aa_bbcc,
        flags: flag::WRITE,
        next: 1,
    };
    assert_eq!(rings.table[3], expected);
    assert_eq!((rings.available_flags, rings.available_index), (1, 6));
    assert_eq!((rings.used_flags, rings.used_index), (1, 5));
    assert_eq!((rings.used_event, rings.available_event), (9, 8));
    assert_eq!(rings.available_at(5), 3);
    assert_eq!(rings.used_at(5), (3, 512));
}

#[test]
fn rings_outside_ram_are_an_error() {
    let memory = Memory::new();
    let queue = |available| Virtqueue {
        available: PhysAddr(available),
        ..QUEUE
    };
    for available in [0xffc, u64::MAX - 3] {
        let read: Read<'_> = &|at, buf| memory.read(at, buf);
        let error = Rings::read(&queue(available), read).unwrap_err();
        assert!(matches!(error, TargetError::NoRam(at) if at.0 == available));
    }
}

#[test]
fn what_was_given_and_not_returned_is_in_flight() {
    in_flight(&[], &[], &[], &[]);
    in_flight(&[0], &[], &[0], &[]);
    in_flight(&[0], &[0], &[], &[]);
    in_flight(&[2, 1, 3], &[2], &[1, 3], &[]);
    in_flight(&[0, 1, 2, 3], &[2], &[0, 1, 3], &[]);
    // One head again and again.
    in_flight(&[0, 0, 0, 0, 0, 0], &[0, 0, 0, 0, 0], &[0], &[]);
    in_flight(&[0, 0, 0, 0, 0, 0], &[0; 6], &[], &[]);
}

#[test]
fn one_that_the_device_is_slow_with_is_in_flight_as_long_as_it_is_visible() {
    in_flight(&[1, 2, 2, 2], &[2, 2, 2], &[1], &[]);
    // 1 is no longer in the available ring, and 2 is not it.
    in_flight(&[1, 2, 2, 2, 2], &[2, 2, 2, 2], &[2], &[]);
}

#[test]
fn finished_out_of_order_some_cannot_be_told_apart() {
    // The rings hold the last four of each: 0 1 0 1 given, 1 0 1 1 returned.
    in_flight(&[0, 1, 0, 1, 0, 1], &[0, 1, 0, 1, 1], &[], &[0, 1]);
}

#[test]
fn chains_are_followed_to_their_end() {
    let mut memory = Memory::new();
    memory.describe(0x100, 2, (0x800, 16, flag::NEXT, 0));
    memory.describe(0x100, 0, (0x900, 16, flag::NEXT | flag::WRITE, 1));
    assert_eq!(memory.chain(2), (vec![2, 0, 1], None));
    memory.describe(0x100, 1, (0x400, 32, flag::INDIRECT, 0));
    memory.describe(0x400, 0, (0x800, 16, flag::NEXT, 1));
    assert_eq!(memory.chain(2), (vec![2, 0, 1, 0, 1], None));
}

#[test]
fn broken_chains_end_with_what_is_wrong() {
    let mut memory = Memory::new();
    let size = 4;
    assert_eq!(
        memory.chain(4),
        (vec![], Some(Broken::Index { index: 4, size }))
    );
    memory.describe(0x100, 0, (0, 1, flag::NEXT, 1));
    memory.describe(0x100, 1, (0, 1, flag::NEXT, 0));
    assert_eq!(memory.chain(0), (vec![0, 1], Some(Broken::Loop(0))));
    memory.describe(0x100, 1, (0, 1, flag::NEXT, 9));
    assert_eq!(
        memory.chain(0),
        (vec![0, 1], Some(Broken::Index { index: 9, size }))
    );
    memory.describe(0x100, 0, (0x400, 16, flag::NEXT | flag::INDIRECT, 1));
    assert_eq!(memory.chain(0), (vec![0], Some(Broken::IndirectNext(0))));
    for len in [0, 24] {
        memory.describe(0x100, 0, (0x400, len, flag::INDIRECT, 0));
        let broken = Broken::TableLength { index: 0, len };
        assert_eq!(memory.chain(0), (vec![0], Some(broken)));
    }
    memory.describe(0x100, 0, (0x400, !15, flag::INDIRECT, 0));
    let count = u32::MAX / 16;
    assert_eq!(
        memory.chain(0),
        (vec![0], Some(Broken::Long { index: 0, count }))
    );
    memory.describe(0x100, 0, (0xff8, 16, flag::INDIRECT, 0));
    let addr = PhysAddr(0xff8);
    assert_eq!(
        memory.chain(0),
        (vec![0], Some(Broken::Table { index: 0, addr }))
    );
    memory.describe(0x100, 0, (0x400, 16, flag::INDIRECT, 0));
    memory.describe(0x400, 0, (0x400, 16, flag::INDIRECT, 0));
    assert_eq!(memory.chain(0), (vec![0, 0], Some(Broken::Nested(0))));
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    /// Where the parts of a queue may be: in RAM, at its end, or nowhere.
    fn places() -> impl Strategy<Value = PhysAddr> {
        let places = prop_oneof![8 => 0u64..0x1100, 1 => any::<u64>()];
        places.prop_map(PhysAddr)
    }

    /// RAM in which numbers are small more often than not, so that much is nearly right.
    fn contents() -> impl Strategy<Value = Vec<u8>> {
        let words = prop_oneof![6 => Just(0u16), 6 => 0u16..32, 1 => any::<u16>()];
        let words = prop::collection::vec(words, 0x800);
        words.prop_map(|words| words.into_iter().flat_map(u16::to_le_bytes).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever the guest has written, looking at it ends, in a bounded
        /// amount of text.
        #[test]
        fn any_memory_can_be_looked_at(
            ram in contents(),
            size in prop_oneof![0u16..40, any::<u16>()],
            descriptors in places(),
            available in places(),
            used in places(),
        ) {
            let memory = Memory(ram);
            let read = |at, buf: &mut [u8]| memory.read(at, buf);
            let queue = Virtqueue { packed: false, size, descriptors, available, used };
            let Ok(rings) = Rings::read(&queue, &read) else {
                return Ok(());
            };
            let in_flight = rings.in_flight();
            prop_assert!(in_flight.heads.len() + in_flight.perhaps.len() <= usize::from(size));
            for head in in_flight.heads.into_iter().chain(0..40) {
                let (links, _) = rings.chain(head, &read);
                let most = usize::from(size) + MOST_INDIRECT as usize;
                prop_assert!(links.len() <= most);
            }
        }
    }
}
