//! Frontends under `outboard-check`: this project's, and QEMU's.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::process::{Process, Stream};
use tests::{guest, program};

use crate::host::provides;
use crate::virtio::SEED;

/// For all checks, most of which start the frontend once.
const CHECKED: Duration = Duration::from_secs(540);

/// Checks a frontend with a disk, all but those with a name in `skip`; returns the names that
/// failed.
fn failures(command: &str, skip: &str) -> BTreeSet<String> {
    let mut check = Command::new(program::own("outboard-check"));
    check.args(["--frontend", "--type", "blk", "--format", "json"]);
    check.args(["--exec", command]);
    if !skip.is_empty() {
        check.args(["--skip", skip]);
    }
    let mut check = Process::start("outboard-check", &mut check);
    let status = check.wait(CHECKED);
    assert!(status.code() < Some(2), "{}", check.transcript());
    let report: Value = serde_json::from_str(&check.printed(Stream::Out)).unwrap();
    // What a guest does not come to, cannot be checked.
    assert!(report["passed"].as_u64() > Some(60), "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["outcome"] == "fail");
    failed
        .map(|check| {
            println!("{}: {}", check["name"], check["found"]);
            check["name"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn our_frontend_keeps_the_specifications() {
    let command = format!(
        "'{}' run --kernel '{}' --memory 64M --cmdline 'sectors=512 seed={SEED} event_idx' \
         --device blk,socket={{socket}}",
        program::own("outboard").display(),
        guest::bare("virtio").display()
    );
    // Of a reply that is longer than it has to be, the frontend takes what it asked for.
    let known = BTreeSet::from(["reply.config-too-long".to_owned()]);
    assert_eq!(failures(&command, ""), known);
}

/// Of what QEMU does while nothing is wrong, with its firmware for a driver.
#[test]
fn the_frontend_of_qemu_is_checked_too() {
    if !provides("qemu-system-x86_64") {
        return;
    }
    let command = "qemu-system-x86_64 -M q35,accel=tcg -m 64 -nodefaults -display none \
        -object memory-backend-memfd,id=ram,size=64M,share=on -numa node,memdev=ram \
        -chardev socket,id=disk,path={socket} -device vhost-user-blk-pci,chardev=disk";
    let active = "offer.*,reply.*,hang-up.*,reconnect.*,channel.*,shmem.*,hostile.*,packed.used-*";
    let failed = failures(command, active);
    // It sets FEATURES_OK before ACKNOWLEDGE and DRIVER.
    let known = BTreeSet::from(["status.in-order".to_owned()]);
    assert!(failed.is_subset(&known), "{failed:?}");
}
