//! A read request of a disk, from the descriptors in the ring to a command.

use backends::blk::image::Image;
use backends::blk::request::Disk;
use backends::chain::Chain;
use virtio_queue_0_18::desc::RawDescriptor;
use virtio_queue_0_18::desc::split::Descriptor;
use virtio_queue_0_18::{Queue, QueueOwnedT, QueueT};
use vm_memory_0_18::{Bytes, GuestAddress, GuestMemoryMmap};

const AVAIL: u64 = 0x8000;
const HEADER: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const STATUS: u64 = 0x3_0000;
pub const RAM: usize = 1 << 20;

/// VRING_DESC_F_NEXT and VRING_DESC_F_WRITE.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Header, 4 KiB of data, status.
pub const CHAIN: [(u64, u32, u16); 3] = [
    (HEADER, 16, NEXT),
    (DATA, 4096, NEXT | WRITE),
    (STATUS, 1, WRITE),
];

fn memory() -> GuestMemoryMmap {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).expect("1 MiB of RAM");
    for (number, (addr, len, flags)) in (0..).zip(CHAIN) {
        let descriptor = Descriptor::new(addr, len, flags, number + 1);
        let at = GuestAddress(16 * u64::from(number));
        let written = memory.write_obj(RawDescriptor::from(descriptor), at);
        written.expect("the table is in RAM");
    }
    // flags, idx, ring[0]; a header of zeroes is VIRTIO_BLK_T_IN of sector 0.
    let written = memory.write_slice(&[0, 0, 1, 0, 0, 0], GuestAddress(AVAIL));
    written.expect("the ring is in RAM");
    memory
}

pub fn prepare() -> Box<dyn FnMut()> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(1 << 20).expect("1 MiB of disk");
    let image = Image::open(file.path(), false).expect("an image");
    let (disk, memory) = (Disk::new(image, "serial"), memory());
    let mut queue = Queue::new(64).expect("a valid size");
    let placed = queue.try_set_avail_ring_address(GuestAddress(AVAIL));
    placed.expect("an aligned ring");
    queue.set_ready(true);
    let mut chain = Chain::default();
    Box::new(move || {
        queue.set_next_avail(0);
        let mut available = queue.iter(&memory).expect("a ring in RAM");
        let descriptors = available.next().expect("an available chain");
        let walked = chain.refill(descriptors, CHAIN.len());
        walked.expect("a chain that ends");
        let parsed = disk.parse(&memory, &chain, u64::MAX);
        parsed.expect("a read of the first block");
    })
}
