//! The machine's counters in words, for SIGUSR1.

use std::fmt::Write;

use devices::virtio::counters::TransportInfo;

use crate::machine::{Machine, lock};
use crate::vcpu::exit::Reason;

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
        write_device(&mut text, &lock(transport).info());
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
