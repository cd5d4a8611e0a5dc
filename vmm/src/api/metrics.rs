//! `GET /metrics`: counters in Prometheus' text format, version 0.0.4
//! (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::{Display, Write};
use std::time::Duration;

use devices::vhost_user::Handle;
use devices::virtio::counters::TransportInfo;

use crate::control::Control;
use crate::log;
use crate::vcpu::exit::Reason;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a device is waited for that waits for its backend.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a device says of itself by its status (virtio 1.4, section 2.1).
const STATUS_BITS: [&str; 6] = [
    "ACKNOWLEDGE",
    "DRIVER",
    "FEATURES_OK",
    "DRIVER_OK",
    "NEEDS_RESET",
    "FAILED",
];

/// All that is counted.
pub fn text(control: &Control) -> String {
    let mut page = Page::default();
    machine(&mut page, control);
    let transports = control.transports().iter();
    let devices: Vec<_> = transports
        .map(|shared| Device {
            id: shared.id(),
            info: shared
                .lock_within(PATIENCE)
                .map(|mut transport| transport.info()),
            handle: shared.backend(),
        })
        .collect();
    backends(&mut page, &devices);
    registers(&mut page, &devices);
    queues(&mut page, &devices);
    page.0
}

struct Device<'a> {
    id: &'a str,
    /// `None` while its backend is waited for.
    info: Option<TransportInfo>,
    handle: &'a Handle,
}

fn machine(page: &mut Page, control: &Control) {
    page.family(
        "outboard_info",
        "gauge",
        "The program that runs the machine.",
        [(vec![("version", env!("CARGO_PKG_VERSION"))], 1)],
    );
    let group = control.vcpus().group_within(PATIENCE);
    // While somebody stops or resumes the guest, neither is known.
    if let Some(group) = group {
        page.one(
            "outboard_guest_running",
            "Whether the vCPUs run.",
            !group.is_stopped(),
        );
        page.one(
            "outboard_debugger_attached",
            "Whether a debugger is attached, or its trace runs.",
            group.is_debugged(),
        );
    }
    page.family(
        "outboard_log_messages_lost_total",
        "counter",
        "Messages that nobody read in time.",
        [(no_labels(), log::lost())],
    );
    let handles = control.vcpus().handles().iter();
    let vcpus: Vec<_> = (0..)
        .zip(handles)
        .map(|(id, handle): (u32, _)| (id.to_string(), handle.counters().exits()))
        .collect();
    let samples = vcpus.iter().flat_map(|(id, exits)| {
        let exits = Reason::NAMES.iter().zip(exits);
        exits.map(move |(reason, count)| {
            let reason = reason.to_ascii_lowercase();
            (vec![("vcpu", id.clone()), ("reason", reason)], *count)
        })
    });
    page.family(
        "outboard_vcpu_exits_total",
        "counter",
        "Exits from the guest to this program.",
        samples,
    );
}

fn backends(page: &mut Page, devices: &[Device<'_>]) {
    let backends: Vec<_> = devices
        .iter()
        .map(|device| (device.id, device.handle.backend_status().get()))
        .collect();
    page.family(
        "outboard_backend_connected",
        "gauge",
        "Whether the device's backend is there.",
        backends
            .iter()
            .map(|(id, backend)| (vec![("device", *id)], u64::from(backend.connected))),
    );
    page.family(
        "outboard_backend_connections_total",
        "counter",
        "How often a backend has come to serve the device.",
        backends
            .iter()
            .map(|(id, backend)| (vec![("device", *id)], backend.connections)),
    );
}

fn registers(page: &mut Page, devices: &[Device<'_>]) {
    page.family(
        "outboard_device_busy",
        "gauge",
        "Whether the device waits for its backend, and has no other metrics meanwhile.",
        devices.iter().map(|device| {
            (
                vec![("device", device.id)],
                u64::from(device.info.is_none()),
            )
        }),
    );
    let known: Vec<_> = devices.iter().filter_map(|d| d.info.as_ref()).collect();
    page.family(
        "outboard_device_info",
        "gauge",
        "The device and its type.",
        known.iter().map(|info| {
            let device_type = info.device_type.to_string();
            (vec![("device", info.id.clone()), ("type", device_type)], 1)
        }),
    );
    page.family(
        "outboard_device_status",
        "gauge",
        "Whether a bit of the device status is set.",
        known.iter().flat_map(|info| {
            let set: Vec<_> = info.status.split("|").collect();
            STATUS_BITS.map(|bit| {
                let value = u64::from(set.contains(&bit));
                (vec![("device", info.id.as_str()), ("bit", bit)], value)
            })
        }),
    );
    type Counted = fn(&TransportInfo) -> u64;
    let counters: [(&str, &str, Counted); 6] = [
        (
            "outboard_device_read_exits_total",
            "Reads of registers that exited.",
            |info| info.counters.read_exits,
        ),
        (
            "outboard_device_write_exits_total",
            "Writes to registers that exited.",
            |info| info.counters.write_exits,
        ),
        (
            "outboard_device_notify_exits_total",
            "Kicks that exited; all others signal the backend.",
            |info| info.counters.notify_exits,
        ),
        (
            "outboard_device_interrupts_total",
            "Interrupts for used buffers that the driver acknowledged.",
            |info| info.counters.interrupts_acknowledged,
        ),
        (
            "outboard_device_config_interrupts_total",
            "Interrupts for a change of the configuration or of the status.",
            |info| info.counters.config_interrupts,
        ),
        (
            "outboard_device_resets_total",
            "Resets by the driver or the machine.",
            |info| info.counters.resets,
        ),
    ];
    for (name, help, value) in counters {
        let samples = known.iter();
        let samples = samples.map(|info| (vec![("device", info.id.as_str())], value(info)));
        page.family(name, "counter", help, samples);
    }
}

fn queues(page: &mut Page, devices: &[Device<'_>]) {
    let known = devices.iter().filter_map(|device| {
        let info = device.info.as_ref()?;
        let queues = (0..).zip(&info.queues).map(|(index, queue): (u16, _)| {
            let labels = vec![
                ("device", device.id.to_owned()),
                ("queue", index.to_string()),
            ];
            (labels, queue.running, device.handle.queue_health(index))
        });
        Some(queues.collect::<Vec<_>>())
    });
    let queues: Vec<_> = known.flatten().collect();
    page.family(
        "outboard_queue_running",
        "gauge",
        "Whether the device works on the queue.",
        queues
            .iter()
            .map(|(labels, running, _)| (labels.clone(), u64::from(*running))),
    );
    page.family(
        "outboard_queue_errors_total",
        "counter",
        "Errors that the backend has reported since the driver started the queue.",
        queues
            .iter()
            .map(|(labels, _, health)| (labels.clone(), health.errors)),
    );
    page.family(
        "outboard_queue_stalled_seconds",
        "gauge",
        "For how long requests have waited while the backend has finished none and left kicks unread.",
        queues
            .iter()
            .map(|(labels, _, health)| (labels.clone(), health.stalled.as_secs())),
    );
}

/// The text so far.
#[derive(Default)]
struct Page(String);

impl Page {
    fn one(&mut self, name: &str, help: &str, value: bool) {
        self.family(name, "gauge", help, [(no_labels(), u64::from(value))]);
    }

    /// A metric with all its samples; left out where it has none.
    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, V)>, u64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escape(&value.to_string())))
                .collect();
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
            };
        }
    }
}

fn no_labels() -> Vec<(&'static str, String)> {
    Vec::new()
}

/// A label's value between double quotes.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_told_with_its_help_and_type() {
        let mut page = Page::default();
        page.one("up", "Whether it is up.", true);
        let samples = [(vec![("device", "a\\b\"c\nd"), ("queue", "0")], 7)];
        page.family("errors_total", "counter", "Errors.", samples);
        page.family(
            "none_total",
            "counter",
            "None.",
            [(no_labels(), 1)].into_iter().skip(1),
        );
        let expected = "# HELP up Whether it is up.\n# TYPE up gauge\nup 1\n\
                        # HELP errors_total Errors.\n# TYPE errors_total counter\n\
                        errors_total{device=\"a\\\\b\\\"c\\nd\",queue=\"0\"} 7\n";
        assert_eq!(page.0, expected);
    }
}
