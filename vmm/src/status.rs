//! The machine's counters in words, for SIGUSR1.

use std::fmt::Write;
use std::time::Duration;

use devices::virtio::counters::TransportInfo;

use crate::machine::Machine;
use crate::vcpu::exit::Reason;

/// How long a device is waited for: longer than an access without a backend takes.
const PATIENCE: Duration = Duration::from_millis(50);

/// One line for exits and a few for each device; `key=value`, so that scripts
/// can read it too.
pub fn report(machine: &Machine) -> String {
    let mut text = String::from("outboard: status\n");
    let exits = machine.vcpus().exits();
    let exits: Vec<_> = Reason::NAMES
        .iter()
        .zip(exits)
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "exits {}", exits.join(" "));
    for transport in machine.transports() {
        match transport.lock_within(PATIENCE) {
            Some(mut transport) => write_device(&mut text, &transport.info()),
            None => {
                let id = transport.id();
                let _ = writeln!(text, "device {id} busy: its backend is waited for");
            }
        }
    }
    text
}

fn write_device(text: &mut String, info: &TransportInfo) {
    let c = info.counters;
    let running = info.queues.iter().filter(|queue| queue.running).count();
    let _ = writeln!(
        text,
        "device {} type={} status={} queues={running}/{} read-exits={} write-exits={} \
         notify-exits={} interrupts={} config-interrupts={} resets={} features={}",
        info.id,
        info.device_type,
        info.status,
        info.queues.len(),
        c.read_exits,
        c.write_exits,
        c.notify_exits,
        c.interrupts_acknowledged,
        c.config_interrupts,
        c.resets,
        info.features_chosen.join(","),
    );
}
