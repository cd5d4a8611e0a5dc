use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use super::*;

const N: u16 = VRING_DESC_F_NEXT as u16;
const W: u16 = VRING_DESC_F_WRITE as u16;
const I: u16 = VRING_DESC_F_INDIRECT as u16;

const AVAIL: u64 = 0x8000;
const USED: u64 = 0x9000;
const INDIRECT: u64 = 0xa000;
const QUEUE: u16 = 16;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap()
}

/// address, length, flags, next
type Entry = (u64, u32, u16, u16);

fn write_table(memory: &GuestMemoryMmap, at: u64, table: &[Entry]) {
    for (i, &(addr, len, flags, next)) in table.iter().enumerate() {
        let descriptor = RawDescriptor::from(Descriptor::new(addr, len, flags, next));
        memory
            .write_obj(descriptor, GuestAddress(at + 16 * i as u64))
            .unwrap();
    }
}

/// Walks the chain that begins with descriptor `head` of `table`.
fn walk_from(memory: &GuestMemoryMmap, table: &[Entry], head: u16) -> Result<Chain, ChainError> {
    write_table(memory, 0, table);
    memory.write_obj(1u16, GuestAddress(AVAIL + 2)).unwrap();
    memory.write_obj(head, GuestAddress(AVAIL + 4)).unwrap();
    let mut queue = Queue::new(QUEUE).unwrap();
    queue.try_set_desc_table_address(GuestAddress(0)).unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(AVAIL))
        .unwrap();
    queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
    queue.set_ready(true);
    let descriptors = queue.iter(memory).unwrap().next().unwrap();
    let mut chain = Chain::default();
    chain.refill(descriptors, longest(QUEUE)).map(|()| chain)
}

fn walk(table: &[Entry]) -> Result<Chain, ChainError> {
    walk_from(&memory(), table, 0)
}

#[test]
fn directions_are_told_apart_and_framing_forgotten() {
    let memory = memory();
    let chain = walk_from(
        &memory,
        &[
            (0x2_0000, 3, N, 1),
            (0x2_0100, 0, N, 2),
            (0x2_0200, 5, N, 3),
            (0x3_0000, 1, N | W, 4),
            (0x3_0100, 7, W, 0),
        ],
        0,
    )
    .unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (8, 8));
    memory.write_slice(b"abc", GuestAddress(0x2_0000)).unwrap();
    memory
        .write_slice(b"defgh", GuestAddress(0x2_0200))
        .unwrap();
    let mut bytes = [0; 5];
    chain.readable.read(&memory, 2, &mut bytes).unwrap();
    assert_eq!(&bytes, b"cdefg");
    chain.writable.write(&memory, 0, b"ABCDEFGH").unwrap();
    let mut bytes = [0; 7];
    memory
        .read_slice(&mut bytes, GuestAddress(0x3_0100))
        .unwrap();
    assert_eq!(&bytes, b"BCDEFGH");
    chain.writable.zero(&memory, 1, 3).unwrap();
    memory
        .read_slice(&mut bytes, GuestAddress(0x3_0100))
        .unwrap();
    assert_eq!(&bytes, b"\0\0\0EFGH");
}

#[test]
fn an_indirect_table_is_a_chain_like_any_other() {
    let memory = memory();
    write_table(
        &memory,
        INDIRECT,
        &[(0x2_0000, 16, N, 2), (0, 0, 0, 0), (0x2_1000, 1, W, 0)],
    );
    let chain = walk_from(&memory, &[(INDIRECT, 48, I, 0)], 0).unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (16, 1));
    // Direct descriptors may come before it.
    let table = [(0x2_2000, 4, N, 1), (INDIRECT, 48, I, 0)];
    let chain = walk_from(&memory, &table, 0).unwrap();
    assert_eq!(chain.readable.len(), 20);
}

#[test]
fn chains_that_lead_nowhere_are_errors() {
    let cut = |table: &[Entry], after| {
        let error = walk(table).err();
        assert!(
            matches!(error, Some(ChainError::CutShort(n)) if n == after),
            "{error:?}"
        );
    };
    // A loop of two, a loop of one, a next beyond the table.
    cut(&[(0, 1, N, 1), (0, 1, N, 0)], QUEUE as usize);
    cut(&[(0, 1, N, 0)], QUEUE as usize);
    cut(&[(0, 1, N, QUEUE)], 1);
    // More than 4 GiB in all.
    cut(&[(0, u32::MAX, N, 1), (0, 2, 0, 0)], 1);
    // An indirect table of half a descriptor, one outside memory, one within another.
    cut(&[(0, 1, N, 1), (INDIRECT, 24, I, 0)], 1);
    cut(&[(0, 1, N, 1), (u64::MAX - 8, 16, I, 0)], 1);
    assert!(matches!(
        walk(&[(INDIRECT, 0, I, 0)]),
        Err(ChainError::Empty)
    ));
    let memory = memory();
    write_table(&memory, INDIRECT, &[(INDIRECT, 16, I, 0)]);
    let nested = walk_from(&memory, &[(INDIRECT, 16, I, 0)], 0);
    assert!(matches!(nested, Err(ChainError::Empty)));
    // A head beyond the table.
    let head = walk_from(&memory, &[], QUEUE);
    assert!(matches!(head, Err(ChainError::Empty)));
}

#[test]
fn the_directions_have_an_order() {
    let mixed = walk(&[(0, 1, N, 1), (0, 1, N | W, 2), (0, 1, 0, 0)]);
    assert!(matches!(mixed, Err(ChainError::Order(2))));
}

#[test]
fn endless_tables_end() {
    let memory = memory();
    let long: Vec<Entry> = (0..1025).map(|i| (0, 1, N, i + 1)).collect();
    write_table(&memory, INDIRECT, &long);
    let chain = walk_from(&memory, &[(INDIRECT, 1026 * 16, I, 0)], 0);
    assert!(matches!(chain, Err(ChainError::TooLong(1024))));
}

#[test]
fn a_chain_may_be_as_long_as_its_ring() {
    let descriptors = |count: u64| {
        let flags = move |i| if i + 1 < count { N } else { 0 };
        (0..count).map(move |i| Descriptor::new(i, 1, flags(i), 0))
    };
    let mut chain = Chain::default();
    assert_eq!(longest(16), 1024);
    chain.refill(descriptors(32768), longest(32768)).unwrap();
    assert_eq!(chain.readable.len(), 32768);
    let longer = chain.refill(descriptors(32769), longest(32768));
    assert!(matches!(longer, Err(ChainError::TooLong(32768))));
}

#[test]
fn bytes_that_are_not_there_are_errors() {
    let memory = memory();
    let table = [(0x2_0000, 10, N, 1), (0xf_fff8, 16, W, 0)];
    let chain = walk_from(&memory, &table, 0).unwrap();
    let mut bytes = [0; 4];
    assert!(matches!(
        chain.readable.read(&memory, 7, &mut bytes),
        Err(BufferError::OutOfRange {
            offset: 7,
            end: 11,
            len: 10
        })
    ));
    assert!(matches!(
        chain.readable.zero(&memory, u64::MAX, 2),
        Err(BufferError::OutOfRange { .. })
    ));
    // Half of it is beyond the end of memory.
    assert!(matches!(
        chain.writable.write(&memory, 0, &[1; 16]),
        Err(BufferError::Memory(_))
    ));
    let mut room = IoVecBuf::default();
    let iovecs = chain
        .writable
        .iovecs(&memory, 0, 16, Permissions::Write, &mut room);
    assert!(matches!(iovecs, Err(BufferError::Memory(_))));
    let iovecs = chain
        .writable
        .iovecs(&memory, 0, 8, Permissions::Write, &mut room);
    assert!(iovecs.is_ok());
}

#[test]
fn a_buffer_may_lie_in_two_regions() {
    let border = 0x1_0000;
    let ranges = [
        (GuestAddress(0), border),
        (GuestAddress(border as u64), 0x1000),
    ];
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap();
    let mut buffers = Buffers::default();
    buffers.push(GuestAddress(border as u64 - 3), 8);
    buffers.write(&memory, 0, b"abcdefgh").unwrap();
    let mut bytes = [0; 8];
    buffers.read(&memory, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"abcdefgh");
    let mut ends = [0; 2];
    memory
        .read_slice(&mut ends, GuestAddress(border as u64 - 1))
        .unwrap();
    assert_eq!(&ends, b"cd");
    let mut room = IoVecBuf::default();
    let access = Permissions::Write;
    buffers.iovecs(&memory, 1, 7, access, &mut room).unwrap();
    let lengths: Vec<usize> = room.rest().iter().map(|iovec| iovec.iov_len).collect();
    assert_eq!(lengths, [2, 5]);
}

#[test]
fn a_chain_is_refilled_from_nothing() {
    let memory = memory();
    let mut chain = walk_from(&memory, &[(0x2_0000, 10, N, 1), (0x3_0000, 9, W, 0)], 0).unwrap();
    let shorter = walk_from(&memory, &[(0x2_0000, 4, 0, 0)], 0).unwrap();
    assert_eq!(shorter.writable.len(), 0);
    let mut queue = Queue::new(QUEUE).unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(AVAIL))
        .unwrap();
    queue.set_ready(true);
    let descriptors = queue.iter(&memory).unwrap().next().unwrap();
    chain.refill(descriptors, longest(QUEUE)).unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (4, 0));
    assert!(chain.writable.is_empty());
}

#[test]
fn a_buffer_that_ends_behind_the_greatest_address_is_refused() {
    for (addr, flags) in [(u64::MAX - 3, W), (u64::MAX - 62, 0)] {
        let wraps = walk(&[(addr, 64, flags, 0)]);
        assert!(matches!(wraps, Err(ChainError::Wraps(0))), "{wraps:?}");
    }
    // The last byte is the last address; nothing is there.
    assert!(walk(&[(u64::MAX - 63, 64, W, 0)]).is_ok());
}
