//! The entropy device and the kit's example, driven by a guest that checks what it gets.

use tests::vmm::Vmm;
use tests::{backend, guest, network, scratch};

/// FNV-1a, 64 bits, as the guest computes it.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn random_bytes_are_the_source_s() {
    let dir = scratch();
    let source = dir.path().join("source");
    let bytes = network::noise(3000 * 3);
    std::fs::write(&source, &bytes).unwrap();
    let rng = backend::outboard_rng(dir.path(), &source);
    for (modes, part) in ["", "indirect event_idx", "poll ring=0"]
        .iter()
        .zip(bytes.chunks(3000))
    {
        let vmm = Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("bytes=3000 {modes}"))
            .device("rng", &rng.socket)
            .run(0);
        let expected = format!("rng: ok bytes=3000 checksum={:016x}", fnv(part));
        assert!(
            vmm.console().contains(&expected),
            "{}",
            vmm.process.transcript()
        );
    }
}

/// The throws of `examples/dice.rs`.
fn throws(seed: u64) -> impl Iterator<Item = u8> {
    let next = |state: &u64| {
        let state = state.wrapping_mul(6_364_136_223_846_793_005);
        Some(state.wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(next(&seed), next).map(|state| (state >> 33) as u8 % 6 + 1)
}

#[test]
fn the_example_of_the_documentation_works() {
    let dir = scratch();
    let dice = backend::dice(dir.path(), 7);
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline("bytes=100")
        .device("rng", &dice.socket)
        .run(0);
    let thrown: Vec<u8> = throws(7).take(100).collect();
    let expected = format!("rng: ok bytes=100 checksum={:016x}", fnv(&thrown));
    assert!(
        vmm.console().contains(&expected),
        "{}",
        vmm.process.transcript()
    );
}
