//! Rings that break every rule, against every backend program: loops, addresses out of range,
//! indices that jump, memory that goes away meanwhile. The program lives, does not write where the
//! driver has not let it, and serves the next frontend as if nothing had been.

mod common;

use common::program::{Backend, cases};
use common::{DEADLINE, Driver, MEMORY_SIZE, QUEUE_SIZE, connect_within};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;
use vm_memory::{Bytes, GuestAddress};

const CASES: u32 = 48;
/// What may be held more after all cases than after the first, in KiB.
const SLACK: u64 = 16 << 10;

/// A descriptor, and whose table it is in.
#[derive(Debug, Clone)]
struct Descriptor {
    at: u16,
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// What a driver does to a running ring.
#[derive(Debug, Clone)]
enum Act {
    Describe(Descriptor),
    /// The head at a place of the available ring.
    Offer(u16, u16),
    /// The available index.
    Index(u16),
    Kick,
    /// Memory of so many pages, from the same address on, in place of what there was.
    Shrink(u64),
    /// What there was at first.
    Restore,
    Stop,
    Enable(bool),
}

/// Somewhere in the first MiB, mostly; its second half is for the driver's buffers.
fn addresses() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0x1000u64..0x1_0000,
        4 => 0x8_0000u64..0x10_0000,
        2 => (MEMORY_SIZE as u64 - 64)..(MEMORY_SIZE as u64 + 64),
        1 => any::<u64>(),
        1 => (u64::MAX - 64)..=u64::MAX,
    ]
}

fn indices() -> impl Strategy<Value = u16> {
    prop_oneof![8 => 0..QUEUE_SIZE, 1 => any::<u16>()]
}

fn acts() -> impl Strategy<Value = Act> {
    let lengths = prop_oneof![4 => 0u32..64, 4 => Just(16u32), 4 => 0u32..9000, 1 => any::<u32>()];
    let flags = prop_oneof![8 => 0u16..8, 1 => any::<u16>()];
    let describe = (indices(), addresses(), lengths, flags, indices()).prop_map(
        |(at, addr, len, flags, next)| {
            Act::Describe(Descriptor {
                at: at % QUEUE_SIZE,
                addr,
                len,
                flags,
                next,
            })
        },
    );
    prop_oneof![
        16 => describe,
        6 => (0..QUEUE_SIZE, indices()).prop_map(|(place, head)| Act::Offer(place, head)),
        3 => prop_oneof![8 => 0u16..80, 1 => any::<u16>()].prop_map(Act::Index),
        4 => Just(Act::Kick),
        1 => (1u64..64).prop_map(Act::Shrink),
        1 => Just(Act::Restore),
        1 => Just(Act::Stop),
        1 => any::<bool>().prop_map(Act::Enable),
    ]
}

/// Whether the backend still listens to this frontend.
fn act(driver: &mut Driver, queue: usize, act: &Act) -> bool {
    let available = driver.rings[queue].base + 0x1000;
    match act {
        Act::Describe(descriptor) => {
            let Descriptor {
                at,
                addr,
                len,
                flags,
                next,
            } = *descriptor;
            let descriptor = common::Desc { addr, len, flags };
            driver.rings[queue].write_desc(&driver.memory, at, descriptor, next);
            true
        }
        Act::Offer(place, head) => {
            let at = GuestAddress(available + 4 + 2 * u64::from(*place));
            driver.memory.write_obj(*head, at).is_ok()
        }
        Act::Index(index) => {
            let at = GuestAddress(available + 2);
            driver.memory.write_obj(*index, at).is_ok()
        }
        Act::Kick => {
            driver.rings[queue].kick();
            true
        }
        Act::Shrink(pages) => share(driver, pages << 12).is_ok() || is_there(driver),
        Act::Restore => share(driver, MEMORY_SIZE as u64).is_ok() || is_there(driver),
        Act::Stop => driver.frontend.get_vring_base(queue).is_ok() || is_there(driver),
        Act::Enable(on) => driver.frontend.set_vring_enable(queue, *on).is_ok() || is_there(driver),
    }
}

/// The first `len` bytes of the guest's memory.
fn share(driver: &Driver, len: u64) -> vhost::Result<()> {
    let region = vm_memory::GuestMemoryBackend::iter(&driver.memory).next();
    let mut info = VhostUserMemoryRegionInfo::from_guest_region(region.unwrap())?;
    info.memory_size = len;
    driver.frontend.set_mem_table(&[info]).map(drop)
}

/// A refusal is an answer too.
fn is_there(driver: &mut Driver) -> bool {
    driver.frontend.get_queue_num().is_ok()
}

fn torment(backend: &Backend, queues: usize, all: &[(usize, Act)]) {
    let mut driver = connect_within(DEADLINE, &backend.socket(), queues);
    driver.start();
    for (queue, what) in all {
        if !act(&mut driver, queue % queues, what) {
            break;
        }
    }
    for ring in &driver.rings {
        ring.kick();
    }
    // It has seen the kicks when it answers: its worker has to come to rest for this.
    for queue in 0..queues {
        let _ = driver.frontend.get_vring_base(queue);
    }
}

fn survives(program: &str, options: &[&str], queues: usize) {
    let backend = Backend::start(program, options);
    for _ in 0..2 {
        backend.serves(queues as u64);
    }
    let before = backend.settled();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases(CASES)));
    let strategy = prop::collection::vec((0usize..8, acts()), 1..200);
    let memory = std::cell::Cell::new(None);
    let result = runner.run(&strategy, |all| {
        torment(&backend, queues, &all);
        if memory.get().is_none() {
            memory.set(Some(backend.resident()));
        }
        Ok(())
    });
    result.unwrap();
    backend.serves(queues as u64);
    backend.settles_at(before);
    let (now, before) = (backend.resident(), memory.get().unwrap_or_default());
    assert!(now < before + SLACK, "{now} KiB after {before} KiB");
}

#[test]
fn outboard_blk_survives_hostile_rings() {
    let options = ["--path", "disk.img", "--queues", "4"];
    survives(env!("CARGO_BIN_EXE_outboard-blk"), &options, 4);
}

#[test]
fn outboard_net_survives_hostile_rings() {
    let options = ["--peer-listen", "peer"];
    survives(env!("CARGO_BIN_EXE_outboard-net"), &options, 3);
}

#[test]
fn outboard_rng_survives_hostile_rings() {
    survives(env!("CARGO_BIN_EXE_outboard-rng"), &[], 1);
}

#[test]
fn outboard_console_survives_hostile_rings() {
    survives(
        env!("CARGO_BIN_EXE_outboard-console"),
        &["--terminal", "pty"],
        2,
    );
}
