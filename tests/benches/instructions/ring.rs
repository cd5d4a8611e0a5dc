//! A request through a ring, from the driver's descriptors to the device's answer there, by a
//! device that does nothing: a pass of its own, as at queue depth 1.

use backends::memory::SharedMemory;
use backends::packed::{Layout, PackedRing};
use backends::page_log::{GuestRam, PageLog};
use backends::progress::{Progress, Record};
use backends::pump::Pump;
use backends::request::{Outcome, Request};
use backends::vring::Vring;
use vhost_user_backend_0_24::VringT;
use vm_memory_0_18::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic};

use super::block::{CHAIN, RAM};

/// The rings' areas: of the descriptors at 0, of the driver, of the device.
const DRIVER: u64 = 0x8000;
const DEVICE: u64 = 0x9000;

/// Entries of the split ring.
const SPLIT: u16 = 64;
/// Of the packed ring, which a chain fills: its laps are all alike.
const PACKED: u16 = CHAIN.len() as u16;

/// VIRTQ_AVAIL_F_NO_INTERRUPT, and RING_EVENT_FLAGS_DISABLE of a packed ring: the driver polls.
const NO_INTERRUPT: u16 = 1;

/// A ring, and the pump that serves it.
struct Bench {
    memory: SharedMemory<PageLog>,
    vring: Vring,
    pump: Pump,
}

impl Bench {
    fn new(size: u16) -> Self {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM)]).expect("1 MiB of RAM");
        let memory = GuestMemoryAtomic::new(ram);
        let vring = Vring::new(memory.clone(), SPLIT).expect("a valid size");
        vring.set_queue_size(size);
        let placed = vring.set_queue_info(0, DRIVER, DEVICE);
        placed.expect("aligned areas");
        vring.set_queue_ready(true);
        vring.set_enabled(true);
        let mut pump = Pump::new().expect("an eventfd");
        pump.set_memory(&memory);
        Bench {
            memory,
            vring,
            pump,
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let written = self.memory.memory().write_slice(bytes, GuestAddress(at));
        written.expect("all of it is in RAM");
    }

    /// Has the device serve the chain that the driver has added.
    fn serve(&mut self) {
        let mut served = 0;
        let serve = |_: &GuestRam, request: &mut Request| {
            served += 1;
            Outcome::Done(request.chain.writable.len() as u32)
        };
        let run = self.pump.run(&self.vring, serve);
        run.expect("a ring without faults");
        assert_eq!(served, 1);
    }
}

/// The chain as descriptors of either format, of which the fields behind the length differ: `tail`
/// has those of one by its place and its flags.
fn descriptors(tail: impl Fn(u16, u16) -> [u16; 2]) -> Vec<u8> {
    let chain = (0..).zip(CHAIN);
    let descriptor = |(place, (addr, len, flags)): (u16, (u64, u32, u16))| {
        let [third, fourth] = tail(place, flags);
        let (addr, len) = (addr.to_le_bytes(), len.to_le_bytes());
        [&addr[..], &len, &third.to_le_bytes(), &fourth.to_le_bytes()].concat()
    };
    chain.flat_map(descriptor).collect()
}

pub fn prepare_split() -> Box<dyn FnMut()> {
    let mut bench = Bench::new(SPLIT);
    bench.write(0, &descriptors(|place, flags| [flags, place + 1]));
    bench.write(DRIVER, &NO_INTERRUPT.to_le_bytes());
    let mut added: u16 = 0;
    Box::new(move || {
        // Each entry of the available ring is 0, the head of the one chain.
        added = added.wrapping_add(1);
        bench.write(DRIVER + 2, &added.to_le_bytes());
        bench.serve();
    })
}

pub fn prepare_packed() -> Box<dyn FnMut()> {
    let mut bench = Bench::new(PACKED);
    let layout = Layout {
        size: PACKED,
        descriptors: GuestAddress(0),
        driver_events: GuestAddress(DRIVER),
        device_events: GuestAddress(DEVICE),
        event_idx: false,
    };
    // Both sides begin at the first descriptor, with a wrap counter of 1 (virtio 1.4, section
    // 2.8.1).
    let ring = PackedRing::new(layout, 0x8000_8000).expect("a base within the ring");
    let record = Record::default();
    *record.lock() = Progress::Packed(ring);
    bench.pump.set_record(record);
    bench.write(DRIVER + 2, &NO_INTERRUPT.to_le_bytes());
    let lap = |owner: u16| descriptors(|_, flags| [0, flags | owner]);
    // VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED.
    let laps = [lap(1 << 7), lap(1 << 15)];
    let mut number = 0;
    Box::new(move || {
        bench.write(0, &laps[number % 2]);
        number += 1;
        bench.serve();
    })
}
