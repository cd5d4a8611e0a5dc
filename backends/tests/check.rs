//! The project's own backends keep what the vhost-user document and virtio demand, as
//! `outboard-check` finds it out.

use std::time::{Duration, Instant};

use workbench::check::{Outcome, Runner, all};
use workbench::device::DeviceType;
use workbench::report::{Summary, Text};
use workbench::target::Target;

/// A whole run takes no longer.
const LIMIT: Duration = Duration::from_secs(60);

fn passes(program: &str, options: &str, device_type: DeviceType) {
    let target = Target::command(&format!("{program} {options}")).unwrap();
    let runner = Runner::new(target, device_type, 1).unwrap();
    let begun = Instant::now();
    let (mut findings, mut reports) = (Vec::new(), Vec::new());
    for check in all().filter(|check| check.concerns(device_type)) {
        let finding = runner.run(check);
        if let Outcome::Fail(_) | Outcome::Untried(_) = &finding.outcome {
            reports.push(Text { colour: false }.finding(&finding, &runner));
        }
        findings.push(finding);
    }
    println!("{}", Text { colour: false }.summary(&findings));
    assert!(reports.is_empty(), "{}", reports.join("\n"));
    let summary = Summary::of(&findings);
    assert!(summary.passed > summary.skipped, "{summary:?}");
    assert!(begun.elapsed() < LIMIT);
}

/// A disk of 8 MiB.
fn disk() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("disk.img")).unwrap();
    file.set_len(8 << 20).unwrap();
    dir
}

fn blk(options: &str) {
    let dir = disk();
    let path = dir.path().join("disk.img");
    let options = format!("--path {} {options}", path.display());
    passes(
        env!("CARGO_BIN_EXE_outboard-blk"),
        &options,
        DeviceType::BLK,
    );
}

#[test]
fn outboard_blk() {
    blk("--queues 2 --socket {socket}");
}

#[test]
fn outboard_blk_that_only_reads_and_serves_one_frontend() {
    blk("--readonly --fd {fd}");
}

#[test]
fn outboard_rng() {
    let program = env!("CARGO_BIN_EXE_outboard-rng");
    passes(program, "--socket {socket}", DeviceType::RNG);
}

#[test]
fn outboard_net() {
    let dir = tempfile::tempdir().unwrap();
    let peer = dir.path().join("peer");
    let options = format!("--peer-listen {} --socket {{socket}}", peer.display());
    passes(
        env!("CARGO_BIN_EXE_outboard-net"),
        &options,
        DeviceType::NET,
    );
}

#[test]
fn outboard_console() {
    let program = env!("CARGO_BIN_EXE_outboard-console");
    passes(
        program,
        "--terminal pty --socket {socket}",
        DeviceType::CONSOLE,
    );
}
