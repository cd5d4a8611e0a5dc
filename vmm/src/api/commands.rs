//! The commands of the control API.

use std::time::Duration;

use devices::vhost_user::{Handle, QueueHealth};
use devices::virtio::counters::{QueueInfo, TransportInfo};
use host_io::errors::chain;
use serde_json::{Map, Value, json};

use super::http::{Status, problem};
use crate::control::{Control, RunError};
use crate::power::PowerRequest;
use crate::transports::SharedTransport;
use crate::vcpu::exit::Reason;
use crate::vcpus::Group;

/// How long a status waits for a change that is under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// The machine as it stands.
pub fn status(control: &Control) -> Value {
    let exits = |counts: [u64; Reason::NAMES.len()]| -> Map<String, Value> {
        let all = Reason::NAMES.iter().zip(counts);
        all.filter(|(_, count)| *count != 0)
            .map(|(name, count)| (name.to_string(), count.into()))
            .collect()
    };
    let vcpus: Vec<_> = (0..)
        .zip(control.vcpus().handles())
        .map(|(id, handle): (usize, _)| json!({ "id": id, "exits": exits(handle.counters().exits()) }))
        .collect();
    let devices = control.transports().iter();
    let devices: Vec<_> = devices.map(device_or_busy).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "state": machine_state(control),
        "vcpus": vcpus,
        "devices": devices,
    })
}

/// The same, unless it is about to change.
pub fn machine_state(control: &Control) -> &'static str {
    let group = control.vcpus().group_within(PATIENCE);
    group.map_or("changing", |group| state(&group))
}

/// Whether the guest runs, and if not, who has stopped it.
fn state(group: &Group<'_>) -> &'static str {
    match (group.is_stopped(), group.is_debugged()) {
        (false, _) => "running",
        (true, false) => "paused",
        (true, true) => "stopped in the debugger",
    }
}

/// Stops every vCPU and the guest's clock, or none.
pub fn pause(control: &Control) -> (Status, Value) {
    changed(control, control.pause())
}

/// Resumes the guest after [`pause`], or starts it under `--gdb-wait`.
pub fn resume(control: &Control) -> (Status, Value) {
    changed(control, control.resume())
}

fn changed(control: &Control, result: Result<(), RunError>) -> (Status, Value) {
    match result {
        Ok(()) => (Status::Ok, json!({ "state": machine_state(control) })),
        Err(error @ RunError::Debugged) => (Status::Conflict, problem(chain(&error))),
        Err(error) => (Status::Failed, problem(chain(&error))),
    }
}

/// Detaches a debugger that does not do so itself, and lets the guest run.
pub fn detach(control: &Control) -> (Status, Value) {
    let Some(debugger) = control.debugger() else {
        let text = "this machine serves no debugger: it was started without --gdb";
        return (Status::Conflict, problem(text));
    };
    match debugger.detach() {
        Ok(true) => (Status::Ok, json!({ "detached": true })),
        Ok(false) => (Status::Conflict, problem("no debugger is attached")),
        Err(error) => (Status::Failed, problem(error.to_string())),
    }
}

/// For each vCPU one. A guest that is stopped takes it when it is resumed.
pub fn nmi(control: &Control) -> (Status, Value) {
    match control.vcpus().inject_nmi() {
        Ok(()) => (
            Status::Ok,
            json!({ "vcpus": control.vcpus().handles().len() }),
        ),
        Err(error) => (Status::Failed, problem(chain(&error))),
    }
}

/// Power-on again, whatever `--on-reboot` says of the guest's own reboots. The
/// guest runs then, unless a debugger has it stopped.
pub fn reset(control: &Control) -> (Status, Value) {
    control.power().request(PowerRequest::UserReset);
    (Status::Ok, json!({ "reset": true }))
}

/// The same with the current files, if they can be booted; otherwise an error without a
/// reset.
pub fn reload(control: &Control) -> (Status, Value) {
    match control.boot().reload() {
        Ok(()) => reset(control),
        Err(error) => (Status::Conflict, problem(chain(&error))),
    }
}

/// The answer before the machine ends. The guest is not asked.
pub fn shutdown() -> (Status, Value) {
    (Status::Ok, json!({ "shutdown": true }))
}

/// A device whose backend is waited for is only reported as busy.
fn device_or_busy(shared: &SharedTransport) -> Value {
    match shared.lock_within(PATIENCE) {
        Some(mut transport) => device(&transport.info(), shared.backend()),
        None => json!({ "id": shared.id(), "busy": true }),
    }
}

fn device(info: &TransportInfo, handle: &Handle) -> Value {
    let counters = info.counters;
    let queues = (0..).zip(&info.queues);
    let queues = queues.map(|(index, info)| queue(info, handle.queue_health(index)));
    let queues: Vec<_> = queues.collect();
    let backend = handle.backend_status().get();
    json!({
        "id": info.id,
        "type": info.device_type.to_string(),
        "status": info.status,
        "features_offered": info.features_offered,
        "features_chosen": info.features_chosen,
        "queues": queues,
        "counters": {
            "read_exits": counters.read_exits,
            "write_exits": counters.write_exits,
            "notify_exits": counters.notify_exits,
            "interrupts": counters.interrupts_acknowledged,
            "config_interrupts": counters.config_interrupts,
            "resets": counters.resets,
        },
        "backend": {
            "address": backend.address,
            "connected": backend.connected,
            "connections": backend.connections,
            "problem": backend.problem,
        },
    })
}

fn queue(queue: &QueueInfo, health: QueueHealth) -> Value {
    json!({
        "max_size": queue.max_size,
        "size": queue.ready.map(|ready| ready.size),
        "running": queue.running,
        "errors": health.errors,
        "stalled_seconds": health.stalled.as_secs(),
    })
}
