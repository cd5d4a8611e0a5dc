//! `outboard trace` between a machine and a backend.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::backend::{self, Backend};
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, program, scratch};

use crate::virtio::{SEED, check_image};

/// A proxy that frontends reach at its socket.
fn trace(backend: &Backend, file: &Path) -> Backend {
    let socket = file.with_file_name("disk.sock");
    let mut command = Command::new(program::own("outboard"));
    command.arg("trace").args(["--type", "blk"]);
    command.arg("--listen").arg(&socket);
    command.arg("--connect").arg(&backend.socket);
    command.arg("--output").arg(file);
    Backend::start("trace", &mut command, socket)
}

/// Runs a guest that writes and reads a disk through a proxy, and returns the trace.
fn traced(dir: &Path, disk: &Backend, name: &str) -> PathBuf {
    let file = dir.join(name);
    let mut proxy = trace(disk, &file);
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("sectors=64 seed={SEED} event_idx"))
        .device("blk", &proxy.socket)
        .run(0);
    let console = vmm.console();
    assert!(
        console.contains("blk: ok sectors=64 written=1"),
        "{console}"
    );
    // Requests take the same way as without it.
    assert_eq!(vmm.device_counter("blk0", "notify-exits"), 0);
    proxy.process.signal(libc::SIGINT);
    proxy.process.expect_exit(0, DEADLINE);
    file
}

fn expect(text: &str, lines: &[&str]) {
    let mut rest = text.lines();
    for expected in lines {
        let found = rest.any(|line| line.contains(expected));
        assert!(found, "no {expected:?} behind those before it in\n{text}");
    }
}

#[test]
fn a_guest_s_disk_works_through_a_proxy_that_tells_what_was_said() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let text = std::fs::read_to_string(traced(dir.path(), &disk, "trace.txt")).unwrap();
    check_image(&image, 64);
    expect(
        &text,
        &[
            "disk#1 connected",
            "-> SET_OWNER",
            "<- GET_FEATURES reply after ",
            "-> SET_FEATURES features=0x160000200 (BLK_FLUSH|EVENT_IDX|PROTOCOL_FEATURES|VERSION_1)",
            "-> ADD_MEM_REG guest=0x0 size=0x4000000 user=0x200000000000 offset=0x0 [2 memfd:outboard-ram] NEED_REPLY",
            "<- ADD_MEM_REG reply after ",
            "-> SET_VRING_KICK index=0 [",
            "-> SET_STATUS status=0xf (ACKNOWLEDGE|DRIVER|DRIVER_OK|FEATURES_OK)",
            "<- GET_VRING_BASE reply after ",
            "disk#1 closed by the frontend",
        ],
    );
}

#[test]
fn the_storage_daemon_of_qemu_is_traced_too() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    let lines = std::fs::read_to_string(traced(dir.path(), &disk, "trace.jsonl")).unwrap();
    check_image(&image, 64);
    let records: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let named = |name: &str| {
        let is_it = move |record: &&serde_json::Value| record["name"] == name;
        records.iter().filter(is_it).collect::<Vec<_>>()
    };
    let features = &named("SET_FEATURES")[0]["fields"]["features"];
    assert!(
        features.as_array().unwrap().contains(&"EVENT_IDX".into()),
        "{features}"
    );
    let config = named("GET_CONFIG");
    let reply = config
        .iter()
        .find(|record| record["reply"] == true)
        .unwrap();
    // The capacity, 8192 sectors, is at the begin of the configuration space.
    let bytes = reply["fields"]["bytes"].as_str().unwrap();
    assert!(bytes.starts_with("0020000000000000"), "{bytes}");
    assert!(reply["latency"].as_u64().unwrap() > 0);
}
