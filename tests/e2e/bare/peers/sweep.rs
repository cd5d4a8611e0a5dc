//! Every combination of the features that change how rings and messages work, with
//! this project's block backend and with QEMU's, as a matrix.
//!
//! A combination passes when the log has exactly the features agreed on that were not
//! left out and that the backend has, and the guest finishes a run on all its queues
//! with its audit.

use std::io::Write;
use std::path::Path;

use tests::backend::{self, Backend};
use tests::vmm::Running;
use tests::{DEADLINE, scratch};

use crate::killstorm;

/// As `features=-NAME` takes it, in the log, and whether the guest has to ask for it.
struct Feature {
    name: &'static str,
    logged: &'static str,
    guest_option: Option<&'static str>,
}

const FEATURES: [Feature; 5] = [
    Feature {
        name: "event_idx",
        logged: "EVENT_IDX",
        guest_option: Some("event_idx"),
    },
    Feature {
        name: "indirect",
        logged: "INDIRECT_DESC",
        guest_option: Some("indirect"),
    },
    Feature {
        name: "packed",
        logged: "RING_PACKED",
        guest_option: Some("packed"),
    },
    Feature {
        name: "mq",
        logged: "BLK_MQ",
        guest_option: None,
    },
    Feature {
        name: "reply_ack",
        logged: "REPLY_ACK",
        guest_option: None,
    },
];

const QUEUES: usize = 4;

/// Which of [`FEATURES`] are on.
type Combination = [bool; FEATURES.len()];

fn combinations() -> impl Iterator<Item = Combination> {
    (0..1u32 << FEATURES.len()).map(|bits| std::array::from_fn(|feature| bits & 1 << feature != 0))
}

/// The names that the backend and the VMM have agreed on.
fn agreed(vmm: &Running) -> Vec<String> {
    let line = vmm
        .process
        .wait_for("connected to the backend", DEADLINE)
        .text;
    let quoted = line.split('"').filter(|part| part.contains(", "));
    let names = quoted.flat_map(|part| part.split(", "));
    names.map(str::to_owned).collect()
}

/// Runs a guest on `disk` with these features only; returns what was agreed on.
fn run(disk: &Backend, combination: Combination) -> Vec<String> {
    let pick = |on: bool| {
        let all = FEATURES.iter().zip(combination);
        all.filter(move |(_, is_on)| *is_on == on)
            .map(|(feature, _)| feature)
    };
    let masked: Vec<_> = pick(false)
        .map(|feature| format!("-{}", feature.name))
        .collect();
    let multi = pick(true).any(|feature| feature.name == "mq");
    let queues = if multi { QUEUES } else { 1 };
    let mut spec = format!("blk,socket={},queues={queues}", disk.socket.display());
    if !masked.is_empty() {
        spec.push_str(&format!(",features={}", masked.join(",")));
    }
    let options: Vec<_> = pick(true)
        .filter_map(|feature| feature.guest_option)
        .collect();
    let vmm = killstorm::storming_on(queues, &spec, &options.join(" ")).start();
    vmm.process
        .wait_for(&format!("storm: start queues={queues}"), DEADLINE);
    let agreed = agreed(&vmm);
    killstorm::finish_on(queues, vmm);
    agreed
}

/// Adds a row to the matrix; whether all of it was as it should be.
fn row(
    matrix: &mut String,
    name: &str,
    disk: &Backend,
    offered: &[String],
    combination: Combination,
) -> bool {
    let agreed = run(disk, combination);
    let mut cells = String::new();
    let mut passed = true;
    for (feature, on) in FEATURES.iter().zip(combination) {
        let is_offered = offered.iter().any(|name| name == feature.logged);
        let is_agreed = agreed.iter().any(|name| name == feature.logged);
        passed &= is_agreed == (on && is_offered);
        let cell = match (on, is_offered) {
            (false, _) => "-",
            (true, true) => "on",
            (true, false) => "not offered",
        };
        cells.push_str(&format!("{cell:<14}"));
    }
    let verdict = if passed { "PASS" } else { "FAIL" };
    matrix.push_str(&format!("{name:<20}{cells}{verdict}\n"));
    passed
}

fn sweep(name: &str, start: impl Fn(&Path) -> Backend) {
    let dir = scratch();
    let disk = start(dir.path());
    let all = [true; FEATURES.len()];
    let offered = run(&disk, all);
    let heads = FEATURES
        .iter()
        .map(|feature| format!("{:<14}", feature.logged));
    let mut matrix = format!("\n{:<20}{}\n", "", heads.collect::<String>());
    let failed = combinations()
        .filter(|combination| !row(&mut matrix, name, &disk, &offered, *combination))
        .count();
    // Past the test harness, which keeps what a test prints that passes.
    std::io::stderr().write_all(matrix.as_bytes()).unwrap();
    assert_eq!(failed, 0, "combinations did not agree on what they should");
}

#[test]
fn every_combination_of_features_with_outboard_blk() {
    sweep("outboard-blk", |dir| {
        let image = backend::disk_image(dir, 8);
        backend::outboard_blk(dir, &image, &["--queues", "4"])
    });
}

#[test]
fn every_combination_of_features_with_qemu_storage_daemon() {
    sweep("qemu-storage-daemon", |dir| {
        let image = backend::disk_image(dir, 8);
        backend::qemu_storage_daemon(dir, &image)
    });
}
