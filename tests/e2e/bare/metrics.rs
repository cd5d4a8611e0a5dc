//! `GET /metrics`, as Prometheus' own parser reads it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::process::{Process, Stream, wait_until};
use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, program, scratch};

use crate::control::{ctl, socket};
use crate::killstorm;
use crate::supervise::outboard_blk;

/// Prints samples as JSON, after the checks of promlint that a parser does not make itself.
const PARSER: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
samples = {}
for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    assert family.documentation.endswith("."), family
    assert family.type in ("counter", "gauge"), family
    assert family.samples, family
    for sample in family.samples:
        counts = sample.name.endswith("_total")
        assert counts == (family.type == "counter"), sample
        labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
        key = sample.name + "{" + labels + "}"
        assert key not in samples, key
        samples[key] = sample.value
print(json.dumps(samples))
"#;

/// The machine's samples by name and labels.
fn metrics(dir: &Path) -> BTreeMap<String, f64> {
    let page = dir.join("metrics");
    std::fs::write(&page, ctl(dir, &["metrics"], 0)).unwrap();
    let mut parser = Command::new(program::cached("api-tools/python"));
    parser.arg("-c").arg(PARSER).arg(&page);
    let mut parser = Process::start("parser", &mut parser);
    parser.expect_exit(0, DEADLINE);
    let samples: Value = serde_json::from_str(&parser.printed(Stream::Out)).unwrap();
    serde_json::from_value(samples).unwrap()
}

#[test]
fn prometheus_reads_what_a_machine_does() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let command = outboard_blk(&image, "--queues 4");
    let spec = format!("blk,exec=\"{command}\",id=the \\ disk");
    let vmm = killstorm::storming(&spec, "event_idx").arg("--api", socket(dir.path()));
    let vmm = killstorm::start(vmm.gdb(dir.path()));
    let before = metrics(dir.path());
    let device = r"device=the \ disk";
    let key = |name: &str, labels: &str| format!("outboard_{name}{{{labels}}}");
    let version = format!("version={}", env!("CARGO_PKG_VERSION"));
    for (name, labels, value) in [
        ("info", version.as_str(), 1.0),
        ("guest_running", "", 1.0),
        ("debugger_attached", "", 0.0),
        ("log_messages_lost_total", "", 0.0),
        ("device_busy", device, 0.0),
        ("device_info", &format!("{device},type=blk"), 1.0),
        ("device_status", &format!("bit=DRIVER_OK,{device}"), 1.0),
        ("device_status", &format!("bit=NEEDS_RESET,{device}"), 0.0),
        ("backend_connected", device, 1.0),
        ("backend_connections_total", device, 1.0),
        ("queue_running", &format!("{device},queue=3"), 1.0),
        ("queue_errors_total", &format!("{device},queue=3"), 0.0),
    ] {
        let key = key(name, labels);
        assert_eq!(before.get(&key), Some(&value), "{key} in {before:#?}");
    }
    assert!(before[&key("vcpu_exits_total", "reason=mmio_write,vcpu=0")] > 0.0);
    ctl(dir.path(), &["restart", "the \\ disk"], 0);
    ctl(dir.path(), &["pause"], 0);
    let after = metrics(dir.path());
    assert_eq!(after[&key("backend_connections_total", device)], 2.0);
    assert_eq!(after[&key("guest_running", "")], 0.0);
    let interrupts = key("device_interrupts_total", device);
    assert!(after[&interrupts] >= before[&interrupts]);
    ctl(dir.path(), &["resume"], 0);
    killstorm::finish(vmm);
}

/// A scrape does not wait for a backend.
#[test]
fn a_device_whose_backend_hangs_is_told_of_as_busy() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let spec = format!("blk,socket={},deadline=60", disk.socket.display());
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline("mode=hold timeout=3600")
        .arg("--device", spec)
        .arg("--api", socket(dir.path()))
        .start();
    vmm.process.wait_for("hold: in_flight=", DEADLINE);
    disk.process.stop();
    ctl(dir.path(), &["reset"], 0);
    wait_until("the device is busy", DEADLINE, || {
        metrics(dir.path())["outboard_device_busy{device=blk0}"] == 1.0
    });
    let samples = metrics(dir.path());
    assert_eq!(samples["outboard_backend_connected{device=blk0}"], 1.0);
    assert_eq!(
        samples.get("outboard_device_resets_total{device=blk0}"),
        None
    );
}
