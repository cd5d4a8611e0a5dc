//! Backends killed under a working guest: nothing is lost, nothing done twice.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tests::backend;
use tests::process::Stream;
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, scratch};

use crate::virtio::{SEED, check_image};

const KILLS: u64 = 20;
/// Longest time from a backend's connection to its end, in microseconds. On a fast host the
/// guest must not be finished before the storm is.
const LIFE: u64 = 15_000;
const MIB: u64 = 64;
const SECTORS: u64 = MIB << 11;

/// The guest writes a pattern, flushes, reads it back and compares, with interrupts of which
/// none may be missing.
#[test]
fn a_guest_sees_nothing_of_twenty_killed_block_backends() {
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed:#x}");
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let mut disk = backend::outboard_blk(dir.path(), &image, &[]);
    let mut vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("sectors={SECTORS} seed={SEED} event_idx"))
        .device("blk", &disk.socket)
        .start();
    vmm.process.wait_for("blk: id=", DEADLINE);
    let mut moments = seed;
    for kill in 0..KILLS {
        disk.process.wait_for("a frontend has connected", DEADLINE);
        // Not a synchronisation: any moment will do.
        std::thread::sleep(Duration::from_micros(moments % LIFE));
        moments = moments
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
            .rotate_right(13);
        disk.process.signal(libc::SIGKILL);
        disk.process.wait(DEADLINE);
        assert!(
            !vmm.process.printed(Stream::Out).contains("blk: ok"),
            "the guest was finished before kill {kill}: {}",
            vmm.process.transcript()
        );
        disk = backend::outboard_blk(dir.path(), &image, &[]);
    }
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, 2 * DEADLINE);
    let console = vmm.console();
    let verdict = format!("blk: ok sectors={SECTORS} written=1");
    assert!(console.contains(&verdict), "{}", vmm.process.transcript());
    check_image(&image, SECTORS);
}
