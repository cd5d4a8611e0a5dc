//! The matrix of features with several pairs of queues, which of this project's network
//! links a tap has.

use devices::virtio::DeviceType;
use tests::sweep::{Name, Ran, Subject};
use tests::vmm::Vmm;
use tests::{guest, network, scratch};

const TAP: &str = "otap4";
const MAC: &str = "02:00:00:00:77:04";
const PAIRS: &str = "4";

/// Sends datagrams to `port` of the host by every number of pairs that there can be, and
/// compares what comes back, by which pair too.
fn use_pairs(spec: &str, on: &[Name], port: u16) -> Ran {
    let cmdline = format!(
        "net=pairs count=10 ip={} gateway={} port={port} {}",
        network::GUEST,
        network::HOST,
        on.join(" ")
    );
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&cmdline)
        .arg("--device", spec)
        .run(0);
    let all = format!("net: pairs={PAIRS} count=10");
    let transcript = vmm.process.transcript();
    assert_eq!(
        vmm.console().contains(&all),
        on.contains(&"mq"),
        "{transcript}"
    );
    assert!(vmm.console().contains("net: ok"), "{transcript}");
    Ran::with_net(&vmm)
}

#[test]
fn every_combination_of_features_with_outboard_net_on_a_tap() {
    let dir = scratch();
    let net = network::outboard_net(dir.path(), TAP, &["--queues", PAIRS, "--mac", MAC]);
    network::neighbour(TAP, MAC);
    let port = network::echo_datagrams().unwrap();
    let subject = Subject {
        backend: "outboard-net on a tap",
        device_type: DeviceType::NET,
        socket: &net.socket,
        run: &|spec, on| use_pairs(spec, on, port),
    };
    subject.sweep();
}
