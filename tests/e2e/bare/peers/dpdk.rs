//! DPDK's two sides of vhost-user, which poll their rings: its backend under a
//! guest, and its frontend on outboard-net.

use std::path::Path;
use std::process::Command;

use devices::virtio::DeviceType;
use tests::backend::{self, Backend};
use tests::process::{Process, Stream};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, program, scratch};

use super::assert_agreed;

/// Frames that the guest sends, one after the echo of the other.
const FRAMES: u32 = 200;

/// DPDK's test program with one port, of `device`: it sends back what it gets, with
/// the addresses exchanged.
fn testpmd(name: &str, device: &str) -> Command {
    // Its output would come in blocks, and late.
    let mut command = Command::new(program::system("stdbuf"));
    command
        .arg("--output=L")
        .arg(program::system("dpdk-testpmd"))
        // `--in-memory` would be simpler, but does not go without huge pages.
        .args(["-l", "0,1", "--no-huge", "-m", "256", "--no-pci"])
        .args(["--no-telemetry", "--file-prefix", name])
        .arg(format!("--vdev={device}"))
        .args(["--", "--forward-mode=macswap", "--port-topology=loop"])
        // It runs until its input ends.
        .args(["--total-num-mbufs=4096", "--auto-start", "--interactive"]);
    command
}

/// A name for the files that DPDK shares between processes.
fn unique(name: &str) -> String {
    format!("outboard-{name}-{}", std::process::id())
}

fn guest_that_sends(net: &Path) -> Running {
    let mut vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("net=send count={FRAMES} size=1000 event_idx"))
        .device("net", net)
        .start();
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    let expected = format!("net: ok sent={FRAMES} received={FRAMES}");
    assert!(vmm.console().contains(&expected), "{}", vmm.console());
    vmm
}

/// What testpmd says at its end.
fn assert_forwarded(mut testpmd: Process) {
    testpmd.close_stdin();
    testpmd.wait(DEADLINE);
    let said = testpmd.printed(Stream::Out);
    let all = format!("RX-packets: {FRAMES} ");
    assert!(said.contains(&all), "{}", testpmd.transcript());
}

#[test]
fn dpdk_serves_a_guest_with_net_vhost() {
    let dir = scratch();
    let socket = dir.path().join("vhost.sock");
    let device = format!("net_vhost0,iface={},queues=1", socket.display());
    let mut command = testpmd(&unique("vhost"), &device);
    let backend = Backend::start("testpmd", &mut command, socket);
    let vmm = guest_that_sends(&backend.socket);
    let agreed = vmm
        .messages()
        .lines()
        .find(|line| line.contains("connected to the backend"))
        .unwrap()
        .to_owned();
    println!("{agreed}");
    for feature in ["VERSION_1", "EVENT_IDX", "MQ, REPLY_ACK"] {
        assert!(agreed.contains(feature), "no {feature}: {agreed}");
    }
    assert_forwarded(backend.process);
}

#[test]
fn dpdk_uses_outboard_net_with_net_virtio_user() {
    let (here, there) = (scratch(), scratch());
    let link = here.path().join("link");
    let link = link.to_str().unwrap();
    let under_dpdk = backend::outboard_net(here.path(), &["--peer-listen", link]);
    let under_guest = backend::outboard_net(there.path(), &["--peer-connect", link]);
    under_guest
        .process
        .wait_for("the network peer is here", DEADLINE);
    let device = format!(
        "net_virtio_user0,path={},queues=1",
        under_dpdk.socket.display()
    );
    let testpmd = Process::start("testpmd", &mut testpmd(&unique("user"), &device));
    // Its queues are where it takes frames from once it forwards.
    testpmd.wait_for("nb forwarding ports=1", DEADLINE);
    guest_that_sends(&under_guest.socket);
    assert_forwarded(testpmd);
    let needed = ["VERSION_1", "NET_MRG_RXBUF", "MQ", "REPLY_ACK"];
    assert_agreed(under_dpdk, DeviceType::NET, &needed);
}
