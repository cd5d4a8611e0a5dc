//! The matrix of features with backends that need no rights on the network.

use std::path::Path;

use devices::virtio::{DeviceType, features};
use tests::sweep::{Name, Ran, Subject};
use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, scratch};

use super::dpdk;
use crate::host::provides;
use crate::killstorm;

const QUEUES: usize = 4;

/// Reads, writes and flushes on as many queues as there may be.
fn storm(spec: &str, on: &[Name]) -> Ran {
    let queues = if on.contains(&"mq") { QUEUES } else { 1 };
    let spec = format!("{spec},queues={queues}");
    let vmm = killstorm::storming_on(queues, &spec, &on.join(" ")).start();
    let started = format!("storm: start queues={queues}");
    vmm.process.wait_for(&started, DEADLINE);
    vmm.report_status();
    let messages = vmm.messages();
    let (_, names) = messages.rsplit_once(" features=").unwrap();
    let names = names.split_whitespace().next().unwrap_or_default();
    let bits = names
        .split(',')
        .filter_map(|name| features::parse(DeviceType::BLK, name));
    let chosen = bits.fold(0, |all, bit| all | 1 << bit);
    killstorm::finish_on(queues, vmm);
    Ran { chosen, messages }
}

/// Sends frames and compares what comes back. Neither a link between two backends nor
/// net_vhost, which leaves the control queue to the frontend, can have several pairs.
fn echo(spec: &str, on: &[Name]) -> Ran {
    let cmdline = format!("net=send count=100 size=1000 {}", on.join(" "));
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&cmdline)
        .arg("--device", spec)
        .run(0);
    let done = "net: ok sent=100 received=100";
    assert!(vmm.console().contains(done), "{}", vmm.process.transcript());
    Ran::with_net(&vmm)
}

fn sweep_blk(backend: &str, socket: &Path) {
    let subject = Subject {
        backend,
        device_type: DeviceType::BLK,
        socket,
        run: &storm,
    };
    subject.sweep();
}

fn sweep_net(backend: &str, socket: &Path) {
    let subject = Subject {
        backend,
        device_type: DeviceType::NET,
        socket,
        run: &echo,
    };
    subject.sweep();
}

#[test]
fn every_combination_of_features_with_outboard_blk() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    sweep_blk("outboard-blk", &disk.socket);
}

#[test]
fn every_combination_of_features_with_qemu_storage_daemon() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    sweep_blk("qemu-storage-daemon", &disk.socket);
}

#[test]
fn every_combination_of_features_with_outboard_net() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let (here, there) = (scratch(), scratch());
    let link = dpdk::Link::start(here.path(), there.path(), "packed_vq=0");
    sweep_net("outboard-net", &link.under_guest.socket);
}

#[test]
fn every_combination_of_features_with_net_vhost_of_dpdk() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let backend = dpdk::net_vhost(dir.path());
    sweep_net("DPDK's net_vhost", &backend.socket);
}
