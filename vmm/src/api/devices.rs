//! What is done to one device's backend.

use std::time::{Duration, Instant};

use devices::vhost_user::Backend;
use host_io::errors::chain;
use serde_json::{Value, json};

use super::http::{Status, problem};
use crate::control::Control;
use crate::transports::SharedTransport;

/// How long a backend may take to serve its device.
const DEADLINE: Duration = Duration::from_secs(30);
/// After so many that never served, the next one will not either.
const FAILURES: u64 = 3;

/// The device with this name, or the answer that there is none.
pub fn find<'a>(control: &'a Control, id: &str) -> Result<&'a SharedTransport, (Status, Value)> {
    let mut transports = control.transports().iter();
    transports.find(|shared| shared.id() == id).ok_or_else(|| {
        let names = control.transports().iter().map(SharedTransport::id);
        let names: Vec<_> = names.collect();
        let text = format!("there is no device {id:?}; there are {}", names.join(", "));
        (Status::NotFound, problem(text))
    })
}

/// Has another process take the place of device `id`'s backend, and waits until
/// it serves.
pub fn restart(control: &Control, id: &str) -> (Status, Value) {
    let shared = match find(control, id) {
        Ok(shared) => shared,
        Err(refused) => return refused,
    };
    let started = Instant::now();
    let mut transport = shared.lock();
    let before = shared.backend().backend_status().get();
    if let Err(error) = shared.backend().replace_backend(&mut transport) {
        return (Status::Conflict, problem(chain(error.as_ref())));
    }
    drop(transport);
    wait_for_backend(shared, &before, started)
}

/// Disconnects device `id`'s backend. The driver's requests wait until another one is
/// connected.
pub fn disconnect(control: &Control, id: &str) -> (Status, Value) {
    let shared = match find(control, id) {
        Ok(shared) => shared,
        Err(refused) => return refused,
    };
    let mut transport = shared.lock();
    match shared.backend().disconnect(&mut transport) {
        Ok(()) => {
            let status = transport.info().status;
            (Status::Ok, json!({ "device": id, "status": status }))
        }
        Err(error) => (Status::Conflict, problem(chain(error.as_ref()))),
    }
}

/// Looks for a backend again after [`disconnect`], and waits until one serves.
pub fn connect(control: &Control, id: &str) -> (Status, Value) {
    let shared = match find(control, id) {
        Ok(shared) => shared,
        Err(refused) => return refused,
    };
    let started = Instant::now();
    let transport = shared.lock();
    let before = shared.backend().backend_status().get();
    if let Err(error) = shared.backend().reconnect() {
        return (Status::Conflict, problem(chain(error.as_ref())));
    }
    drop(transport);
    wait_for_backend(shared, &before, started)
}

/// Waits until another backend serves than `before`.
fn wait_for_backend(
    shared: &SharedTransport,
    before: &Backend,
    started: Instant,
) -> (Status, Value) {
    let backend_status = shared.backend().backend_status();
    let backend = backend_status.wait_until(DEADLINE, |backend| {
        backend.connections > before.connections || backend.failures >= before.failures + FAILURES
    });
    let (id, elapsed) = (shared.id(), started.elapsed());
    if backend.connections > before.connections {
        let status = shared.lock().info().status;
        let milliseconds = elapsed.as_millis() as u64;
        let answer = json!({ "device": id, "milliseconds": milliseconds, "status": status });
        return (Status::Ok, answer);
    }
    let reason = backend.problem.unwrap_or_default();
    let text = format!(
        "no backend serves device {id} after {elapsed:.1?}, though it is still looked for: {reason}"
    );
    (Status::NoBackend, problem(text))
}
