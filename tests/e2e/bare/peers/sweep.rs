//! Every combination of the features that change how rings and messages work, with
//! this project's backends and with others', as a matrix.
//!
//! A combination passes when the driver and the frontend have taken exactly those of
//! its features that the backend has by its own word, and the guest finishes its work
//! with its audit. What the backend does not have is "not offered" in the matrix.

use std::io::Write;
use std::path::Path;

use devices::vhost_user::parse_protocol;
use devices::virtio::{DeviceType, features};
use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, scratch};

use super::dpdk;
use super::offer::Offer;
use crate::killstorm;

/// As `features=-NAME` takes it, and the guest's command line a ring's.
type Name = &'static str;

const BLK: [Name; 5] = ["event_idx", "indirect", "packed", "mq", "reply_ack"];
/// The guest drives one pair of queues.
const NET: [Name; 4] = ["event_idx", "indirect", "packed", "reply_ack"];
const QUEUES: usize = 4;

/// What is swept: a backend, and how a guest uses its device.
struct Subject<'a> {
    backend: &'a str,
    device_type: DeviceType,
    socket: &'a Path,
    names: &'a [Name],
    /// Runs a guest to its end, given the device's SPEC and the features that its
    /// driver is to ask for.
    run: fn(&str, &[Name]) -> Ran,
}

/// What a run has shown.
struct Ran {
    /// The features that the driver took.
    chosen: u64,
    /// What the VMM has printed.
    messages: String,
}

impl Ran {
    /// Whether feature `name` was in use.
    fn used(&self, device_type: DeviceType, name: Name) -> bool {
        match features::parse(device_type, name) {
            Some(bit) => self.chosen & 1 << bit != 0,
            None => self.protocol().any(|used| used == name.to_uppercase()),
        }
    }

    fn protocol(&self) -> impl Iterator<Item = &str> {
        let (_, names) = self.messages.split_once("protocol=\"").unwrap();
        names.split('"').next().unwrap_or_default().split(", ")
    }
}

impl Subject<'_> {
    /// Whether the backend has feature `name`.
    fn is_offered(&self, offer: &Offer, name: Name) -> bool {
        match features::parse(self.device_type, name) {
            Some(bit) => offer.features & 1 << bit != 0,
            None => offer.protocol & protocol_bit(name) != 0,
        }
    }

    /// Runs a guest that asks for all features but `left_out`, and adds a row to the
    /// matrix; whether all was as it should be.
    fn row(&self, matrix: &mut String, offer: &Offer, left_out: &[Name]) -> bool {
        let masks: Vec<_> = left_out.iter().map(|name| format!("-{name}")).collect();
        let mut spec = format!("{},socket={}", self.device_type, self.socket.display());
        if !masks.is_empty() {
            spec.push_str(&format!(",features={}", masks.join(",")));
        }
        let asked = self.names.iter().filter(|name| !left_out.contains(name));
        let ran = (self.run)(&spec, &asked.copied().collect::<Vec<_>>());
        matrix.push_str(&format!("{:<20}", self.backend));
        let mut passed = true;
        for name in self.names {
            let asked = !left_out.contains(name);
            let offered = self.is_offered(offer, name);
            let used = ran.used(self.device_type, name);
            let cell = match (offered, asked, used) {
                (true, true, true) => "on",
                (true, false, false) => "-",
                (false, _, false) => "not offered",
                (true, true, false) => "NOT TAKEN",
                (_, _, true) => "TAKEN",
            };
            passed &= used == (asked && offered);
            matrix.push_str(&format!("{cell:<12}"));
        }
        matrix.push_str(if passed { "PASS\n" } else { "FAIL\n" });
        passed
    }
}

fn protocol_bit(name: Name) -> u64 {
    parse_protocol(name).map_or(0, |feature| feature.bits())
}

fn sweep(subject: &Subject<'_>) {
    let offer = Offer::of(subject.socket);
    let heads = subject.names.iter().map(|name| format!("{name:<12}"));
    let mut matrix = format!("\n{:<20}{}\n", "", heads.collect::<String>());
    // What cannot be had is always asked for.
    let names = subject.names.iter().copied();
    let swept: Vec<Name> = names
        .filter(|name| subject.is_offered(&offer, name))
        .collect();
    let mut failed = 0;
    for bits in 0..1u32 << swept.len() {
        let left_out = (0..).zip(&swept).filter(|(n, _)| bits & 1 << n != 0);
        let left_out: Vec<Name> = left_out.map(|(_, name)| *name).collect();
        failed += u32::from(!subject.row(&mut matrix, &offer, &left_out));
    }
    // Past the test harness, which keeps what a test prints that passes.
    std::io::stderr().write_all(matrix.as_bytes()).unwrap();
    assert_eq!(failed, 0, "combinations did not agree on what they should");
}

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

/// Sends frames and compares what comes back.
fn echo(spec: &str, on: &[Name]) -> Ran {
    let cmdline = format!("net=send count=100 size=1000 {}", on.join(" "));
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&cmdline)
        .arg("--device", spec)
        .run(0);
    let console = vmm.console();
    assert!(
        console.contains("net: ok sent=100 received=100"),
        "{}",
        vmm.process.transcript()
    );
    let (_, chosen) = console.split_once(" features=").unwrap();
    let chosen = chosen.split_whitespace().next().unwrap_or_default();
    Ran {
        chosen: u64::from_str_radix(chosen, 16).unwrap(),
        messages: vmm.messages(),
    }
}

fn sweep_blk(backend: &str, socket: &Path) {
    sweep(&Subject {
        backend,
        device_type: DeviceType::BLK,
        socket,
        names: &BLK,
        run: storm,
    });
}

fn sweep_net(backend: &str, socket: &Path) {
    sweep(&Subject {
        backend,
        device_type: DeviceType::NET,
        socket,
        names: &NET,
        run: echo,
    });
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
    let (here, there) = (scratch(), scratch());
    let link = dpdk::Link::start(here.path(), there.path(), "packed_vq=0");
    sweep_net("outboard-net", &link.under_guest.socket);
}

#[test]
fn every_combination_of_features_with_net_vhost_of_dpdk() {
    let dir = scratch();
    let backend = dpdk::net_vhost(dir.path());
    sweep_net("DPDK's net_vhost", &backend.socket);
}
