//! Packed queues of DPDK, which keeps no record of requests in flight: what becomes of
//! them when it is lost, stopped or reset, and what a debugger shows.

use std::path::Path;

use tests::backend::Backend;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, gdb, guest, scratch};

use super::dpdk::net_vhost;
use crate::host::provides;

const PACKED: &str = "RING_PACKED";

/// A guest whose frames DPDK sends back, driving packed queues if it can.
fn storming(net: &Backend, more: &str, configure: impl FnOnce(Vmm) -> Vmm) -> Running {
    let spec = format!("net,socket={}{more}", net.socket.display());
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline("net=storm timeout=600 event_idx packed")
        .arg("--device", spec);
    let vmm = configure(vmm).start();
    vmm.process.wait_for("net storm: start", DEADLINE);
    vmm
}

/// DPDK dies, and another takes its place.
fn replace(mut net: Backend, dir: &Path) -> Backend {
    net.process.signal(libc::SIGKILL);
    net.process.wait(DEADLINE);
    std::fs::remove_file(&net.socket).unwrap();
    net_vhost(dir)
}

fn finish(mut vmm: Running) {
    vmm.process.send(b"x");
    vmm.process.wait_for("net storm: ok", DEADLINE);
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn a_packed_device_of_a_lost_backend_needs_a_reset_and_says_how_to_do_without() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let net = net_vhost(dir.path());
    let vmm = storming(&net, "", |vmm| vmm);
    assert!(vmm.messages().contains(PACKED), "{}", vmm.messages());
    let _next = replace(net, dir.path());
    let reason = vmm.process.wait_for("the queue is packed", DEADLINE);
    for part in ["needs a reset", "INFLIGHT_SHMFD", "features=-packed"] {
        assert!(reason.text.contains(part), "no {part}: {}", reason.text);
    }
}

#[test]
fn a_device_without_packed_queues_survives_the_same_loss() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let net = net_vhost(dir.path());
    let vmm = storming(&net, ",features=-packed", |vmm| vmm);
    let from = vmm.process.lines().len();
    let _next = replace(net, dir.path());
    let back = "the backend is back";
    vmm.process.wait_for_after(from, back, DEADLINE);
    assert!(!vmm.messages().contains(PACKED), "{}", vmm.messages());
    finish(vmm);
}

#[test]
fn monitor_vq_shows_a_packed_ring_and_disturbs_nobody() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let net = net_vhost(dir.path());
    let vmm = storming(&net, "", |vmm| vmm.gdb(dir.path()));
    let commands = [
        "monitor info queues",
        "monitor vq net0 0 all",
        "monitor vq net0 1",
    ];
    let mut gdb = gdb::start_merged(vmm.gdb_socket(), &guest::bare("virtio"), &commands);
    gdb.expect_exit(0, DEADLINE);
    let text = gdb.printed(tests::process::Stream::Out);
    for part in [
        "net0 queue 0: 32 entries, packed ring 0x",
        "\ninterrupts: ",
        "\nkicks: ",
        "\ndescriptor ring:\n  0: ",
        "\n  31: ",
        ", device writes\n",
        "net0 queue 1: 32 entries, packed ring 0x",
        "made available, and perhaps used since",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(
        !text.contains("NOT IN RAM") && !text.contains("unknown flags"),
        "{text}"
    );
    println!("{text}");
    finish(vmm);
}

/// DPDK says where it stopped and is started there again, at each step and at the end.
#[test]
fn a_packed_queue_goes_on_where_its_backend_stopped_it() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let net = net_vhost(dir.path());
    let vmm = storming(&net, "", |vmm| vmm.gdb(dir.path()));
    let mut commands = vec!["monitor pause-devices on"];
    commands.extend(["stepi"; 20]);
    commands.push("monitor info devices");
    let mut gdb = gdb::start_merged(vmm.gdb_socket(), &guest::bare("virtio"), &commands);
    gdb.expect_exit(0, DEADLINE);
    let text = gdb.printed(tests::process::Stream::Out);
    assert!(!text.contains("NEEDS_RESET"), "{text}");
    finish(vmm);
}

/// Each reset leaves buffers in flight, and the next driver begins with fresh rings.
#[test]
fn a_packed_device_is_reset_again_and_again() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let net = net_vhost(dir.path());
    for options in ["packed", "packed event_idx indirect"] {
        let vmm = Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("mode=reset resets=20 {options}"))
            .device("net", &net.socket)
            .run(0);
        let console = vmm.console();
        let done = "reset: ok device=1 resets=20";
        assert!(console.contains(done), "{}", vmm.process.transcript());
        assert!(vmm.messages().contains(PACKED), "{}", vmm.messages());
    }
}
