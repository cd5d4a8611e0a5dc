//! Several pairs of queues, which of this project's network links a tap has: the matrix of
//! features, and QEMU's frontend.

use devices::virtio::DeviceType;
use tests::sweep::{Name, Ran, Subject};
use tests::vmm::Vmm;
use tests::{guest, network, qemu, scratch};

const TAP: &str = "otap4";
const MAC: &str = "02:00:00:00:77:04";
const PAIRS: &str = "4";

/// Has the guest send datagrams to `port` of the host by every number of pairs that there can
/// be, and compare what comes back, by which pair too.
fn pairs(on: &[Name], port: u16) -> String {
    format!(
        "net=pairs count=10 ip={} gateway={} port={port} {}",
        network::GUEST,
        network::HOST,
        on.join(" ")
    )
}

fn use_pairs(spec: &str, on: &[Name], port: u16) -> Ran {
    let cmdline = pairs(on, port);
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

/// QEMU keeps the control queue to itself, and enables and disables rings instead.
#[test]
fn qemu_uses_every_pair_of_outboard_net_on_a_tap() {
    const TAP: &str = "otap5";
    const MAC: &str = "02:00:00:00:77:05";
    let dir = scratch();
    let net = network::outboard_net(dir.path(), TAP, &["--queues", "2", "--mac", MAC]);
    network::neighbour(TAP, MAC);
    let port = network::echo_datagrams().unwrap();
    let device = format!("virtio-net-device,netdev=link,mq=on,mac={MAC}");
    let link = "vhost-user,id=link,chardev=backend,queues=2";
    let devices = ["-netdev", link, "-device", &device];
    let console = qemu::drive_with(&net, &pairs(&["mq"], port), &devices);
    assert_eq!(
        console.matches("net: pairs=2 count=10").count(),
        2,
        "{console}"
    );
    assert!(console.contains("net: ok"), "{console}");
}
