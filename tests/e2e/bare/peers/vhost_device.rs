//! A backend of the vhost-device project under a guest that needs no Linux.

use tests::vmm::Vmm;
use tests::{backend, guest, network, program, scratch};

use crate::host::provides;
use crate::small::fnv;

#[test]
fn vhost_device_rng_gives_a_guest_its_source_s_bytes() {
    if !provides("vhost-device-rng") {
        return;
    }
    let bytes = network::noise(3000);
    let expected = format!("rng: ok bytes=3000 checksum={:016x}", fnv(&bytes));
    for modes in ["", "indirect event_idx", "poll ring=0"] {
        let dir = scratch();
        let source = dir.path().join("source");
        std::fs::write(&source, &bytes).unwrap();
        let socket = dir.path().join("rng.sock");
        let options = ["--rng-source", source.to_str().unwrap()];
        let rng = backend::vhost_device("rng", "--socket-path", &socket, &options);
        let vmm = Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("bytes=3000 {modes}"))
            .device("rng", &rng.socket)
            .run(0);
        let transcript = vmm.process.transcript();
        assert!(vmm.console().contains(&expected), "{transcript}");
        let messages = vmm.messages();
        let agreed = messages.lines().find(|line| line.contains("connected to"));
        println!("{}", agreed.unwrap_or_else(|| panic!("{transcript}")));
        for feature in ["VERSION_1", "INDIRECT_DESC", "EVENT_IDX"] {
            assert!(messages.contains(feature), "no {feature}: {transcript}");
        }
    }
}

/// It puts a number behind the name that it is given.
#[test]
fn vhost_device_rng_is_started_by_outboard() {
    if !provides("vhost-device-rng") {
        return;
    }
    let program = program::cached("vhost-device/bin/vhost-device-rng");
    let command = format!("{} --socket-path {{socket}}", program.display());
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline("bytes=3000")
        .arg("--device", format!("rng,exec=\"{command}\""))
        .run(0);
    let transcript = vmm.process.transcript();
    assert!(vmm.console().contains("rng: ok bytes=3000"), "{transcript}");
}
