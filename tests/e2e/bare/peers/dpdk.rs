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
use crate::host::provides;

/// Frames that the guest sends, one after the echo of the other.
const FRAMES: u32 = 200;

/// DPDK's test program with one port, of `device`: it sends back what it gets, with
/// the addresses exchanged. `dir` is for its own files.
fn testpmd(dir: &Path, device: &str) -> Command {
    let cpus = allowed_cpus();
    // Its output would come in blocks, and late.
    let mut command = Command::new(program::system("stdbuf"));
    command
        .arg("--output=L")
        .arg(program::system("dpdk-testpmd"))
        // `--in-memory` would be simpler, but does not go without huge pages.
        .arg(format!("--lcores=0@({cpus}),1@({cpus})"))
        .args(["--no-huge", "-m", "256", "--no-pci"])
        .arg("--no-telemetry")
        // Where DPDK has the files that its processes share.
        .env("RUNTIME_DIRECTORY", dir)
        .arg(format!("--vdev={device}"))
        .args(["--", "--forward-mode=macswap", "--port-topology=loop"])
        // It runs until its input ends.
        .args(["--total-num-mbufs=4096", "--auto-start", "--interactive"]);
    command
}

/// All that this process may run on, such as `0-3,8`: DPDK would pin each of its
/// threads to one, which may not be there.
fn allowed_cpus() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let (_, list) = status.split_once("Cpus_allowed_list:").unwrap();
    list.split_whitespace().next().unwrap().to_owned()
}

/// testpmd as a backend that sends back what a guest sends.
pub fn net_vhost(dir: &Path) -> Backend {
    let socket = dir.join("vhost.sock");
    let device = format!("net_vhost0,iface={},queues=1", socket.display());
    Backend::start("testpmd", &mut testpmd(dir, &device), socket)
}

/// An outboard-net for a guest, whose other end is an outboard-net under testpmd,
/// which sends back what the guest sends.
pub struct Link {
    pub under_guest: Backend,
    pub under_dpdk: Backend,
    pub testpmd: Process,
}

impl Link {
    /// With a directory for each outboard-net, and an option of DPDK's device.
    pub fn start(here: &Path, there: &Path, option: &str) -> Self {
        let link = here.join("link");
        let link = link.to_str().unwrap();
        let under_dpdk = backend::outboard_net(here, &["--peer-listen", link]);
        let under_guest = backend::outboard_net(there, &["--peer-connect", link]);
        let met = "the network peer is here";
        under_guest.process.wait_for(met, DEADLINE);
        let socket = under_dpdk.socket.display();
        let device = format!("net_virtio_user0,path={socket},queues=1,{option}");
        let testpmd = Process::start("testpmd", &mut testpmd(here, &device));
        // Its queues are where it takes frames from once it forwards.
        testpmd.wait_for("nb forwarding ports=1", DEADLINE);
        Self {
            under_guest,
            under_dpdk,
            testpmd,
        }
    }
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
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let backend = net_vhost(dir.path());
    let vmm = guest_that_sends(&backend.socket);
    let agreed = vmm
        .messages()
        .lines()
        .find(|line| line.contains("connected to the backend"))
        .unwrap()
        .to_owned();
    println!("{agreed}");
    for feature in ["VERSION_1", "EVENT_IDX", "MQ, LOG_SHMFD, REPLY_ACK"] {
        assert!(agreed.contains(feature), "no {feature}: {agreed}");
    }
    assert_forwarded(backend.process);
}

#[test]
fn dpdk_uses_outboard_net_with_net_virtio_user() {
    use_outboard_net("packed_vq=0", &[]);
}

#[test]
fn dpdk_uses_packed_queues_of_outboard_net() {
    use_outboard_net("packed_vq=1", &["RING_PACKED"]);
}

fn use_outboard_net(option: &str, more: &[&str]) {
    if !provides("dpdk-testpmd") {
        return;
    }
    let (here, there) = (scratch(), scratch());
    let link = Link::start(here.path(), there.path(), option);
    guest_that_sends(&link.under_guest.socket);
    assert_forwarded(link.testpmd);
    let needed = ["VERSION_1", "NET_MRG_RXBUF", "MQ", "REPLY_ACK"];
    let needed = [&needed[..], more].concat();
    assert_agreed(link.under_dpdk, DeviceType::NET, &needed);
}
