use proptest::prelude::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::*;

const ENTRIES: u16 = 8;
const TABLE: u64 = 0;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Where indirect tables are.
const INDIRECT: u64 = 0x3000;

const NEXT: u16 = VRING_DESC_F_NEXT as u16;

/// A descriptor of a table of `entries`, likely to lead somewhere.
fn descriptor(indirect: bool) -> impl Strategy<Value = Descriptor> {
    let flags = prop_oneof![
        4 => Just(NEXT),
        2 => Just(0),
        2 => Just(NEXT | VRING_DESC_F_WRITE as u16),
        u32::from(indirect) => Just(VRING_DESC_F_INDIRECT as u16),
        1 => any::<u16>(),
    ];
    let len = prop_oneof![
        (0u32..10).prop_map(|n| n * 16),
        0u32..200,
        Just(u32::MAX),
        Just(0x10_0000),
    ];
    let address = prop_oneof![Just(INDIRECT), Just(INDIRECT + 0x80), Just(u64::MAX - 7)];
    let next = prop_oneof![8 => 0..ENTRIES, 1 => any::<u16>()];
    (address, len, flags, next).prop_map(|(a, l, f, n)| Descriptor::new(a, l, f, n))
}

/// The same chain, found through the available ring.
fn from_the_ring(memory: &GuestRam, head: u16) -> Vec<Descriptor> {
    let mut queue = Queue::new(ENTRIES).unwrap();
    queue
        .try_set_desc_table_address(GuestAddress(TABLE))
        .unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(AVAIL))
        .unwrap();
    queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
    queue.set_ready(true);
    memory.write_obj(1u16, GuestAddress(AVAIL + 2)).unwrap();
    memory.write_obj(head, GuestAddress(AVAIL + 4)).unwrap();
    let chain = queue.iter(memory).unwrap().next().unwrap();
    chain.collect()
}

proptest! {
    #[test]
    fn a_walk_sees_what_the_queue_sees(
        table in prop::collection::vec(descriptor(true), usize::from(ENTRIES)),
        indirect in prop::collection::vec(descriptor(false), 16),
        head in 0..ENTRIES + 2,
    ) {
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        for (base, descriptors) in [(TABLE, table), (INDIRECT, indirect)] {
            for (i, descriptor) in (0u64..).zip(descriptors) {
                let at = GuestAddress(base + 16 * i);
                memory.write_obj(RawDescriptor::from(descriptor), at).unwrap();
            }
        }
        let table = memory.get_slice(GuestAddress(TABLE), 16 * usize::from(ENTRIES));
        let table = Table::of(table.unwrap(), ENTRIES);
        let walk = Walk::new(&memory, table, head);
        let fields = |d: Descriptor| (d.addr(), d.len(), d.flags(), d.next());
        prop_assert_eq!(
            walk.map(fields).collect::<Vec<_>>(),
            from_the_ring(&memory, head).into_iter().map(fields).collect::<Vec<_>>()
        );
    }
}
